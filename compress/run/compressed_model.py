"""Records of a compressed model: the compression, its files, decisions, graphs and values.

The records are stored beside the exported files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from compress.core.arguments import convert_json
from compress.core.arrays import open_npz
from compress.core.atomic_files import read_json, replace_file
from compress.core.errors import InputError
from compress.core.statistics import Floats
from compress.data.tasks import MEANING, is_metric, is_share
from compress.run.records import (
    Record,
    check_record_name,
    find_too_low,
    find_unknown_value,
    read_record,
)

if TYPE_CHECKING:
    from compress.run.directory import RunFolder

PICTURE_PATTERN = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
VARIANTS = ("dense", "pruned")
"""The models before and after compression, in a record's validation metrics."""
FILE_VARIANTS = (*VARIANTS, "tuned")
"""What a file was made of: the original, a pruned model, or one that was trained further only."""


# keys of nested tables that reports read; other keys are not checked
class _PrunedLayer(TypedDict):
    layer: str
    size: int
    zeros: int
    weight: NotRequired[str]


class _KeptLayer(TypedDict):
    layer: str
    reason: str


class _LayerRepair(TypedDict):
    name: str
    kind: str
    state: str
    before: float | None
    after: float | None
    rows: int
    reason: str


class _Repair(TypedDict):
    layers: list[_LayerRepair]
    examples: int
    held_back: int
    seconds: float
    output_error: list[list[float]]


class _Weights(TypedDict):
    pruned: list[_PrunedLayer]
    kept: list[_KeptLayer]
    repair: NotRequired[_Repair | None]


class LayerRow(TypedDict):
    """Precision of a layer in an int8 file.

    `losses` are columns of a table with numbers that compare layers; `why` is the reason for a
    precision other than int8 or the cheapest one.
    """

    layer: str
    precision: str
    losses: dict[str, float]
    why: str


class _Group(TypedDict):
    name: str
    kind: str
    total: int
    kept: int
    reason: str


class _Frozen(TypedDict):
    reason: str
    units: int
    made_by: list[str]
    layer: str


class _Channels(TypedDict):
    groups: list[_Group]
    frozen: list[_Frozen]
    unknown: list[list[str]]
    repair: NotRequired[_Repair | None]


@dataclass(frozen=True)
class Artifact(Record):
    """One exported file and all measurements of it.

    Attributes:
        id: Id, such as "0005.float32" or "0005-p80.int8".
        model: Name of the original model ("0005").
        variant: "dense" (the original), "pruned", or "tuned" (trained further, nothing removed).
        format: Export format, such as "float32" or "int8".
        file: Path in the run's folder.
        baseline: Id of the artifact that ratios refer to: the original model's file, in float32 if
            it was exported.
        macs, params, nonzero: Counts on the Keras model; zero weights are included in the MACs.
        sparsity: Share of zeros in the pruned kernels, in [0, 1]; 0 for the original.
        unsupported: Layers that `macs` does not include, as "name (class): reason".
        size_bytes, gzip_bytes: Bytes of the file, and after gzip -9.
        zstd_bytes: Bytes after zstd -19, in records of older versions.
        sparse_macs: MACs with non-zero weights; ordinary runtimes do not skip the others.
        test: Test metrics of the file itself, by name.
        max_difference, agreement: Largest difference to and agreement with the Keras model, on
            `checked` validation examples.
        checked: Number of validation examples compared with the Keras model.
        val: Validation metrics of the file itself, by name, which select files; empty in records of
            older versions.
        tested: Number of examples behind `test`; None in records of older versions.
        test_interval: 95 % jackknife interval of the main metric, if it is not a share of right
            examples; else None.
        arena_bytes: Measured memory in bytes that LiteRT's built-in kernels reserve for
            activations; None if it cannot be determined, for other formats and in records of older
            versions.
        layers: Precision of each layer and its effect, if precisions were selected or trained.
    """

    id: str
    model: str
    variant: str
    format: str
    file: str
    baseline: str
    macs: int
    params: int
    nonzero: int
    sparsity: float
    unsupported: tuple[str, ...]
    size_bytes: int
    gzip_bytes: int
    test: dict[str, float]
    max_difference: float
    agreement: float
    checked: int
    zstd_bytes: int | None = None
    sparse_macs: int | None = None
    val: dict[str, float] = field(default_factory=dict)
    tested: int | None = None
    test_interval: tuple[float, float] | None = None
    arena_bytes: int | None = None
    layers: tuple[LayerRow, ...] = ()

    @property
    def zeros(self) -> float:
        """The share of all parameters that are zero, in [0, 1]."""
        return 1 - self.nonzero / self.params if self.params else 0.0

    def find_violation(self) -> str:
        """Return the first violation of a rule, or ""; see `Record.find_violation`."""
        if unknown := sorted(name for name in self.test if not is_metric(name)):
            return find_unknown_value("test", unknown[0], tuple(MEANING))
        for name, value in self.test.items():
            if is_share(name) and not 0 <= value <= 1:
                return f"test.{name} must be a share in [0, 1]; received: {value}"
        return (
            find_unknown_value("variant", self.variant, FILE_VARIANTS)
            or find_too_low(
                self, 0, "macs", "params", "nonzero", "sparsity", "sparse_macs", "checked", "tested"
            )
            or find_too_low(self, 1, "size_bytes", "gzip_bytes", "zstd_bytes")
            or ("" if self.test else "test must hold a quality; received: none")
        )


@dataclass(frozen=True)
class CompressedModel(Record):
    """The record of a model's compression: steps, files and measurements.

    Attributes:
        model: Name of the model.
        teacher: Name and validation metric of the teacher; empty without one.
        val: Validation metrics before ("dense") and after ("pruned") compression.
        weights: Weight pruning report: pruned layers, kept layers with reasons.
        best_epoch, epochs: Best epoch and number of epochs of the fine-tuning.
        command: Command that reproduces this compression.
        seconds: Wall time in seconds.
        device: Device of the training.
        notes: Steps that were skipped or changed, with reasons.
        artifacts: The exported files, as JSON.
        channels: Channel pruning report; None if no channels were removed.
        compressed: Name of the compressed model in files, which encodes the compression:
            "0005-c0_5x-p80"; empty in records of older versions, see `compressed_name`.
        finetuned: Number of epochs of all fine-tunings; None in records of older versions.
        dense_epochs: Number of epochs that the original model was trained for; None: unknown.
        dense_begun: Whether that training started from trained weights.
        as_long: Metrics ("val", "test") of the original Keras model, trained for the same number of
            extra epochs without compression; None if this was not requested.
        each: For several pruned models of the model (`shrink`): fine-tuning epochs by name;
            `finetuned` then refers to the reported one.
    """

    model: str
    teacher: str
    val: dict[str, dict[str, float]]
    weights: dict[str, Any] = field(metadata={"shape": _Weights})
    best_epoch: int
    epochs: int
    command: str
    seconds: float
    device: str
    notes: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    channels: dict[str, Any] | None = field(default=None, metadata={"shape": _Channels | None})
    compressed: str = ""
    finetuned: int | None = None
    dense_epochs: int | None = None
    dense_begun: bool = False
    as_long: dict[str, dict[str, float]] | None = None
    each: dict[str, int] = field(default_factory=dict)

    def find_violation(self) -> str:
        """Return the first violation of a rule, or ""; see `Record.find_violation`."""
        for variant in VARIANTS:
            if variant not in self.val:
                return f"val must hold '{variant}'; received: {', '.join(self.val) or 'nothing'}"
        if self.as_long is not None and not {"val", "test"} <= self.as_long.keys():
            received = ", ".join(self.as_long) or "nothing"
            return f"as_long must hold 'val' and 'test'; received: {received}"
        if not self.compressed and all(item.variant == "dense" for item in self.artifacts):
            return "artifacts must hold a compressed file; received: none"
        if any(item["size"] < 1 for item in self.weights["pruned"]):
            return "weights.pruned must be layers of at least one weight; received: one of none"
        invalid = [item for item in (self.channels or {}).get("unknown", ()) if len(item) != 3]
        if invalid:
            return f"channels.unknown must be names, kinds and reasons; received: {invalid[0]}"
        return ""

    @property
    def compressed_name(self) -> str:
        """The name of the compressed model in files."""
        if self.compressed:
            return self.compressed
        ids = [item.id for item in self.artifacts if item.variant != "dense"]
        return ids[0].rpartition(".")[0]


def read_compressed_model(path: Path) -> CompressedModel:
    """Read a record's file, and check that its artifacts belong to the model and lie in the folder.

    Raises:
        InputError: The file cannot be read, or has other content.
    """
    record = read_record(path, CompressedModel)
    check_record_name(path, record.model)
    for item in record.artifacts:
        file_path = PurePosixPath(item.file)
        if (
            item.model != record.model
            or item.id in ("", ".", "..")
            or "/" in item.id
            or file_path.is_absolute()
            or ".." in file_path.parts
            or "\0" in item.id + item.file
        ):
            raise InputError(
                f"'{path}' must list files of model {record.model!r} that lie in the run's folder. "
                f"Received: {item.id!r} of {item.model!r} in {item.file!r}."
            )
    return record


class _DecisionChange(TypedDict):
    place: int
    label: int
    before: int
    after: int
    picture: str


class _FileDecisions(TypedDict):
    baseline: str
    confusion: list[list[int]]
    differ: int
    examples: list[_DecisionChange]


class Decisions(TypedDict):
    """Decisions of a model's files on the test part.

    `files` contains for each artifact "confusion" (rows: labels, columns: decisions), "baseline"
    (the artifact it is compared with), "differ" (number of examples with different decisions) and
    "examples" (some of these).
    """

    class_names: list[str]
    files: dict[str, _FileDecisions]


def read_decisions(path: Path) -> Decisions | None:
    """Read the decisions of one model's files; return None if there are none.

    Pictures other than PNG data URLs become "", because reports show them.

    Raises:
        InputError: The file is corrupt.
    """
    if not path.exists():
        return None
    content: Decisions = convert_json(read_json(path), Decisions, f"'{path}'")
    names = content["class_names"]
    for file in content["files"].values():
        indices = [item[key] for item in file["examples"] for key in ("label", "before", "after")]
        is_square = [len(row) for row in file["confusion"]] == [len(names)] * len(names)
        if not is_square or any(not 0 <= index < len(names) for index in indices):
            raise InputError(f"'{path}' must hold decisions among {len(names)} classes.")
        for item in file["examples"]:
            if not PICTURE_PATTERN.fullmatch(item["picture"]):
                item["picture"] = ""
    return content


@dataclass(frozen=True)
class CallNode(Record):
    """One call of a layer in a model.

    Attributes:
        name: Name of the layer, prefixed by the names of the enclosing models.
        kind: Class name of the layer.
        shape: Shape of its first output, without the batch axis; None for unknown sizes.
        macs: MACs at batch size 1; None: not countable, see `reason`.
        params: Number of parameters; a shared layer has them only at its first call.
        sources: Indices of the calls that it reads.
        reason: Reason for `macs` being None.
        ms: Latency in milliseconds, including operations fused into it, from a table of calls that
            were timed separately; None if there is no table.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    macs: int | None
    params: int
    sources: tuple[int, ...]
    reason: str = ""
    ms: float | None = None

    def find_violation(self) -> str:
        """Return the first violation of a rule, or ""; see `Record.find_violation`."""
        return find_too_low(self, 0, "macs", "params", "ms")


Nodes = tuple[CallNode, ...]


@dataclass(frozen=True)
class ModelGraphs(Record):
    """Calls of a model before and after compression; each reads only earlier ones."""

    before: Nodes
    after: Nodes

    def find_violation(self) -> str:
        """Return the first violation of a rule, or ""; see `Record.find_violation`."""
        calls = [*enumerate(self.before), *enumerate(self.after)]
        if any(not 0 <= source < index for index, node in calls for source in node.sources):
            return "sources must be calls in front of the call; received: another"
        return ""


def read_graphs(path: Path) -> ModelGraphs | None:
    """Read the graphs of a model before and after compression; return None if there are none.

    Raises:
        InputError: The file is corrupt.
    """
    return read_record(path, ModelGraphs) if path.exists() else None


def write_example_values(folder: RunFolder, file: str, part: str, values: Floats) -> None:
    """Write the per-example values of an exported file on one part of the data.

    Args:
        folder: The run's folder.
        file: Id of the file: "0005.int8".
        part: "val" or "test".
        values: Values from `compress.data.tasks.Task.example_values`, (n,).
    """
    with replace_file(_get_values_path(folder, file, part)) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, values=values)


def read_example_values(folder: RunFolder, file: str, part: str) -> Floats | None:
    """Return the per-example values of an exported file on one part of the data.

    Args:
        folder: The run's folder.
        file: Id of the file.
        part: "val" or "test".

    Returns:
        (n,); None if there are none, as in folders of older versions.

    Raises:
        InputError: The stored file is corrupt.
    """
    path = _get_values_path(folder, file, part)
    if not path.is_file():
        return None
    with open_npz(path) as archive:
        values = archive.read_arrays(("values",)).get("values")
    if values is None or values.ndim != 1 or values.dtype != np.float64 or not len(values):
        raise InputError(
            f"'{path}' must hold a number for each example. Received: something else. Remove it to "
            "go on without intervals of differences."
        )
    return values


def _get_values_path(folder: RunFolder, file: str, part: str) -> Path:
    return folder.exports / "examples" / f"{file}.{part}.npz"
