"""Records of a compressed model: the work done, its files, decisions, graphs and values.

Beside exported files lie decisions, graphs of the models and values by example.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from compress.core.arguments import conform
from compress.core.arrays import opened
from compress.core.atomic_files import read_json, replacing, write_json
from compress.core.errors import InputError
from compress.core.statistics import Floats
from compress.data.tasks import MEANING, is_quality, is_share
from compress.run.records import Record, check_name, read_record, too_low, unknown_value

if TYPE_CHECKING:
    from compress.run.directory import RunFolder

PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")
VARIANTS = ("dense", "pruned")


# what reports read of the tables inside records; further keys are left as they are
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
    notes: list[str]


class _Weights(TypedDict):
    pruned: list[_PrunedLayer]
    kept: list[_KeptLayer]
    repair: NotRequired[_Repair | None]


class LayerRow(TypedDict):
    """How a layer is computed in a file of whole numbers.

    `losses` are columns of a table, of numbers that compare layers; `why` tells why it is not in
    whole numbers, or not in the cheapest.
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
    """One exported file and everything that was measured on it.

    Attributes:
        id: "0005.float32", "0005-p80.int8".
        model: The model it was made of ("0005").
        variant: "dense" or "pruned".
        format: "float32" or "int8".
        file: Path in the run's folder.
        baseline: The artifact that ratios are against: the model's dense file, float32
            where it was exported.
        macs, params, nonzero: Counted on the Keras model; zeros count as MACs.
        sparsity: Share of zeros in the kernels that were pruned; 0 for dense.
        unsupported: What `macs` does not include, by name.
        size_bytes, gzip_bytes, zstd_bytes: Of the file; None in records of older versions.
        sparse_macs: MACs whose weight is not zero, which no ordinary runtime skips.
        test: Test quality of the file itself, by name.
        max_difference, agreement, checked: Against the Keras model, on `checked`
            validation examples.
        val: Validation quality of the file itself, by name: what files are chosen by; empty in
            records of older versions.
        tested: How many examples `test` is of; None in records of older versions.
        test_interval: 95 % interval of the main quality, where it is no share of right
            examples, by a jackknife over them; None otherwise.
        arena_bytes: That LiteRT's built-in kernels set aside for activations, measured; None where
            it cannot be read off, of other formats and in records of older versions.
        layers: How each layer is computed and what that loses, where a precision was chosen or
            trained for.
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
        """Share of all parameters that are zero, in [0, 1]."""
        return 1 - self.nonzero / self.params if self.params else 0.0

    def flaw(self) -> str:
        """See `Record.flaw`."""
        if strange := sorted(name for name in self.test if not is_quality(name)):
            return unknown_value("test", strange[0], tuple(MEANING))
        for name, value in self.test.items():
            if is_share(name) and not 0 <= value <= 1:
                return f"test.{name} must be a share in [0, 1]; received: {value}"
        return (
            unknown_value("variant", self.variant, VARIANTS)
            or too_low(
                self, 0, "macs", "params", "nonzero", "sparsity", "sparse_macs", "checked", "tested"
            )
            or too_low(self, 1, "size_bytes", "gzip_bytes", "zstd_bytes")
            or ("" if self.test else "test must hold a quality; received: none")
        )


@dataclass(frozen=True)
class Compressed(Record):
    """The compress stage of one model: steps, files and measurements.

    Attributes:
        model: The model's name.
        teacher: Who taught it, and with what validation quality; empty without one.
        val: Validation quality before ("dense") and after ("pruned").
        weights: The weight report: pruned layers, kept layers with reasons.
        channels: The channel report, or None where no channels were removed.
        best_epoch, epochs: Of the fine-tuning.
        command: Reproduces this model's compression.
        seconds: Wall time.
        device: What it was trained on.
        notes: What was skipped or done other than asked, with reasons.
        artifacts: The exported files, as JSON.
        compressed: The compressed model's name in files, which tells what was done:
            "0005-c0_5x-p80"; empty in records of older versions, see `small`.
        val_learnt: Model or teacher had learnt the validation part: it selected nothing, the
            last epoch was kept, and `val` says little.
        finetuned: Epochs of all fine-tunings together; None in records of older versions.
        each: Of several nets of the model (`shrink`): epochs of each one's fine-tuning, by its
            name; `finetuned` is then of the one that is shown.
        dense_epochs: For how many epochs the dense model had been trained before; None: unknown.
        dense_begun: That training began with weights which had been trained before.
        as_long: Qualities ("val", "test") of the dense Keras model trained on for as long,
            in the same way, without compression; None where that was not asked for.
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
    artifacts: tuple[dict[str, Any], ...]
    channels: dict[str, Any] | None = field(default=None, metadata={"shape": _Channels | None})
    compressed: str = ""
    val_learnt: bool = False
    finetuned: int | None = None
    dense_epochs: int | None = None
    dense_begun: bool = False
    as_long: dict[str, dict[str, float]] | None = None
    each: dict[str, int] = field(default_factory=dict)

    def flaw(self) -> str:
        """See `Record.flaw`."""
        try:
            files = self.files()
        except InputError as error:
            return str(error).rstrip(".")
        for variant in VARIANTS:
            if variant not in self.val:
                return f"val must hold '{variant}'; received: {', '.join(self.val) or 'nothing'}"
        if self.as_long is not None and not {"val", "test"} <= self.as_long.keys():
            received = ", ".join(self.as_long) or "nothing"
            return f"as_long must hold 'val' and 'test'; received: {received}"
        if not self.compressed and not any(item.variant == "pruned" for item in files):
            return "artifacts must hold a pruned file; received: none"
        if any(item["size"] < 1 for item in self.weights["pruned"]):
            return "weights.pruned must be layers of at least one weight; received: one of none"
        wrong = [item for item in (self.channels or {}).get("unknown", ()) if len(item) != 3]
        if wrong:
            return f"channels.unknown must be names, kinds and reasons; received: {wrong[0]}"
        return ""

    @property
    def small(self) -> str:
        """The compressed model's name in files."""
        if self.compressed:
            return self.compressed
        ids = [item["id"] for item in self.artifacts if item["variant"] == "pruned"]
        return str(ids[0]).rpartition(".")[0]

    def files(self) -> list[Artifact]:
        """Return the artifacts as records."""
        return [Artifact.from_json(content) for content in self.artifacts]


def read_compressed(path: Path) -> Compressed:
    """Read a record's file; the files that it lists are the model's own and lie in the folder.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    record = read_record(path, Compressed)
    check_name(path, record.model)
    for item in record.files():
        inside = PurePosixPath(item.file)
        if (
            item.model != record.model
            or item.id in ("", ".", "..")
            or "/" in item.id
            or inside.is_absolute()
            or ".." in inside.parts
            or "\0" in item.id + item.file
        ):
            raise InputError(
                f"'{path}' must list files of model {record.model!r} that lie in the run's folder. "
                f"Received: {item.id!r} of {item.model!r} in {item.file!r}."
            )
    return record


class _Differing(TypedDict):
    place: int
    label: int
    before: int
    after: int
    picture: str


class _File(TypedDict):
    baseline: str
    confusion: list[list[int]]
    differ: int
    examples: list[_Differing]


class Decisions(TypedDict):
    """Decisions of a model's files, on the test part.

    `files` has by artifact "confusion" (rows: labels, columns: decisions), "baseline" (what the
    file is held against), "differ" (examples that the two decide otherwise), "examples" (some of
    these).
    """

    class_names: list[str]
    files: dict[str, _File]


def read_decisions(path: Path) -> Decisions | None:
    """Read the decisions of one model's files; None where there are none.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return None
    content: Decisions = conform(read_json(path), Decisions, f"'{path}'")
    names = content["class_names"]
    for file in content["files"].values():
        places = [item[key] for item in file["examples"] for key in ("label", "before", "after")]
        square = [len(row) for row in file["confusion"]] == [len(names)] * len(names)
        if not square or any(not 0 <= place < len(names) for place in places):
            raise InputError(f"'{path}' must hold decisions among {len(names)} classes.")
        for item in file["examples"]:
            if not PICTURE.fullmatch(item["picture"]):
                item["picture"] = ""
    return content


@dataclass(frozen=True)
class CallNode(Record):
    """One call of a model.

    Attributes:
        name: Of the layer, behind those of the models around it.
        kind: Class name.
        shape: Of its first output, without the batch axis; None where a size is unknown.
        macs: At batch 1; None: they could not be counted, see `reason`.
        params: Of a shared layer only at its first call.
        sources: Places of the calls that it reads.
        reason: Why `macs` is None.
        ms: That it takes, with what is fused into it: from a table of calls that were timed one by
            one; None where there is none.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    macs: int | None
    params: int
    sources: tuple[int, ...]
    reason: str = ""
    ms: float | None = None

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return too_low(self, 0, "macs", "params", "ms")


Nodes = tuple[CallNode, ...]
SIDES = ("before", "after")


def write_graphs(path: Path, before: Nodes, after: Nodes) -> None:
    """Write both graphs of a model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        name: [node.to_json() for node in nodes]
        for name, nodes in zip(SIDES, (before, after), strict=True)
    }
    write_json(path, content)


def read_graphs(path: Path) -> tuple[Nodes, Nodes] | None:
    """Read both graphs of a model; None where none were written.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return None
    content = read_json(path)
    found = []
    for name in SIDES:
        part = content.get(name)
        if not isinstance(part, list):
            raise InputError(f"'{path}' must hold two graphs. Received: none called {name}.")
        nodes = tuple(CallNode.from_json(item, path) for item in part)
        for place, node in enumerate(nodes):
            if any(not 0 <= source < place for source in node.sources):
                raise InputError(f"'{path}' must name calls in their order. Received: another.")
        found.append(nodes)
    return found[0], found[1]


def write_example_values(folder: RunFolder, file: str, part: str, values: Floats) -> None:
    """Keep the values of an exported file on one part of the data.

    Args:
        folder: The run's.
        file: Id of the file: "0005.int8".
        part: "val" or "test".
        values: See `compress.data.tasks.Task.example_values`, (n,).
    """
    with replacing(_values_path(folder, file, part)) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, values=values)


def read_example_values(folder: RunFolder, file: str, part: str) -> Floats | None:
    """Return the values of an exported file on one part of the data.

    Args:
        folder: The run's.
        file: Id of the file.
        part: "val" or "test".

    Returns:
        (n,); None where none were kept, as in folders of older versions.

    Raises:
        InputError: What was kept is damaged.
    """
    path = _values_path(folder, file, part)
    if not path.is_file():
        return None
    with opened(path) as archive:
        values = archive.read(("values",)).get("values")
    if values is None or values.ndim != 1 or values.dtype != np.float64 or not len(values):
        raise InputError(
            f"'{path}' must hold a number for each example. Received: something else. Remove it to "
            "go on without intervals of differences."
        )
    return values


def _values_path(folder: RunFolder, file: str, part: str) -> Path:
    return folder.exports / "examples" / f"{file}.{part}.npz"
