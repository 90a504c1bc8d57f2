"""Frozen records that runs write as JSON and reports read back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar, cast, get_type_hints

from compress.core.atomic_files import read_json
from compress.core.errors import InputError, one_line
from compress.core.typed import conform
from compress.task import MEANING, UNBOUNDED

RecordT = TypeVar("RecordT", bound="Record")

COMPLETE, REJECTED, FAILED = "complete", "rejected", "failed"
STOPPED, DUPLICATE = "stopped", "duplicate"
STATES = (COMPLETE, REJECTED, FAILED, STOPPED, DUPLICATE)
VARIANTS = ("dense", "pruned")


@dataclass(frozen=True)
class Record:
    """Base of the records: to JSON and back, unknown keys refused."""

    def to_json(self) -> dict[str, Any]:
        """Returns the record as dictionaries, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(
        cls: type[RecordT], content: Mapping[str, Any], where: str | Path = ""
    ) -> RecordT:
        """Reads what `to_json` wrote.

        Args:
            content: The record.
            where: The file it comes from, for the error.

        Raises:
            InputError: Keys are missing or unknown, a value is of another type, or the record
                contradicts itself.
        """
        shown = f"'{where}'" if where else f"A {cls.__name__} record"
        if not isinstance(content, Mapping):
            raise InputError(f"{shown} must be a table. Received: {one_line(content)}.")
        hints: dict[str, Any] = _hints(cast(Hashable, cls))
        needed = {item.name for item in fields(cls) if _is_required(item)}
        wrong = [f"no '{name}'" for name in needed if name not in content]
        wrong += [f"an unknown '{one_line(name)}'" for name in content if name not in hints]
        if wrong:
            raise InputError(
                f"{shown} must have the keys {', '.join(hints)}. Received: {sorted(wrong)[0]}."
            )
        record = cls(
            **{
                name: conform(value, hints[name], f"{shown}: {name}")
                for name, value in content.items()
            }
        )
        if flaw := record.flaw():
            raise InputError(f"{shown}: {flaw}.")
        return record

    def flaw(self) -> str:
        """Returns what no such record can hold, as "x must ...; Received: y"; else nothing."""
        return ""


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Returns what JSON may hold of each field: its type, or the shape that it declares."""
    declared = get_type_hints(kind)
    return {item.name: item.metadata.get("shape", declared[item.name]) for item in fields(kind)}


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    """Reads a record's file.

    Raises:
        InputError: It cannot be read, or holds no such record.
    """
    return kind.from_json(read_json(path), path)


# what reports read of the tables inside records; further keys are left as they are
class _Epoch(TypedDict, total=False):
    epoch: int
    val: dict[str, float] | None


class _PrunedLayer(TypedDict):
    layer: str
    size: int
    zeros: int
    weight: NotRequired[str]


class _KeptLayer(TypedDict):
    layer: str
    reason: str


class _Weights(TypedDict):
    pruned: list[_PrunedLayer]
    kept: list[_KeptLayer]


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


def _unknown(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Returns a flaw where a value is none of the choices."""
    if value in choices:
        return ""
    return f"{name} must be one of {', '.join(choices)}; received: {one_line(value)}"


def _too_low(record: Record, lowest: float, *names: str) -> str:
    """Returns a flaw where a figure that is known lies below what is possible."""
    for name in names:
        value = getattr(record, name)
        if value is not None and value < lowest:
            return f"{name} must be at least {lowest:g}; received: {value}"
    return ""


@dataclass(frozen=True)
class Candidate(Record):
    """One sampled model: what it is, what it costs, how well it validated.

    Attributes:
        id: Its number in the study, as file names carry it ("0005").
        state: "complete" (trained), "stopped" (trained in part: others were better),
            "rejected" (too costly, untrained), "duplicate" (of a candidate that ended before)
            or "failed".
        reason: Why it was stopped, rejected or failed, or what it repeats.
        choices: What the sampler chose, by parameter name.
        seed: Seed of its initial weights and batch order.
        macs: Counted at batch 1.
        params: Counted.
        size_bytes: Of its float32 .tflite file, where a limit or an objective asks for it.
        latency_ms: Measured median of that file on LiteRT, one thread, before training.
        unsupported: What `macs` does not include, by name.
        val: Validation quality, by name; of a duplicate only where the original was complete.
        best_epoch: Whose weights were kept; 0: those before, of a model that came trained.
        history: One record an epoch.
        seconds: Wall time of building and training.
        device: What it was trained on.
        notes: What was done other than asked.
        ended: When it ended, in seconds since the epoch; None in records of older versions.
    """

    id: str
    state: str
    choices: dict[str, Any]
    seed: int
    reason: str = ""
    macs: int | None = None
    params: int | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    unsupported: tuple[str, ...] = ()
    val: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    history: tuple[dict[str, Any], ...] = field(default=(), metadata={"shape": tuple[_Epoch, ...]})
    seconds: float = 0.0
    device: str = ""
    notes: tuple[str, ...] = ()
    ended: float | None = None

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return _unknown("state", self.state, STATES) or _too_low(
            self, 0, "seed", "macs", "params", "size_bytes", "latency_ms", "seconds"
        )

    @property
    def is_trial(self) -> bool:
        """Whether it cost training: rejected ones and repeats did not."""
        return self.state not in (REJECTED, DUPLICATE)


@dataclass(frozen=True)
class Final(Record):
    """One training of a front's candidate after the search, to the full budget.

    Attributes:
        model: The candidate's id.
        place: 0, 1, ...: which of its trainings.
        seed: Seed of its initial weights and batch order.
        epochs: Trained.
        best_epoch: Whose weights were kept: the last where validation data were trained on.
        on_validation: Trained on training and validation part.
        val: Validation quality; empty where validation data were trained on.
        test: Test quality of the Keras model, by name.
        seconds: Wall time.
    """

    model: str
    place: int
    seed: int
    epochs: int
    best_epoch: int
    on_validation: bool
    val: dict[str, float]
    test: dict[str, float]
    seconds: float

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return _too_low(self, 0, "place", "seed", "epochs", "seconds")


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
            examples, by resampling them; None otherwise.
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

    @property
    def zeros(self) -> float:
        """Share of all parameters that are zero, in [0, 1]."""
        return 1 - self.nonzero / self.params if self.params else 0.0

    def flaw(self) -> str:
        """See `Record.flaw`."""
        if strange := sorted(self.test.keys() - MEANING.keys()):
            return _unknown("test", strange[0], tuple(MEANING))
        for name, value in self.test.items():
            if name not in UNBOUNDED and not 0 <= value <= 1:
                return f"test.{name} must be a share in [0, 1]; received: {value}"
        return (
            _unknown("variant", self.variant, VARIANTS)
            or _too_low(
                self, 0, "macs", "params", "nonzero", "sparsity", "sparse_macs", "checked", "tested"
            )
            or _too_low(self, 1, "size_bytes", "gzip_bytes", "zstd_bytes")
            or ("" if self.test else "test must hold a quality; received: none")
        )


@dataclass(frozen=True)
class Compressed(Record):
    """What the compress stage did to one model.

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

    def flaw(self) -> str:
        """See `Record.flaw`."""
        try:
            files = self.files()
        except InputError as error:
            return str(error).rstrip(".")
        for variant in VARIANTS:
            if variant not in self.val:
                return f"val must hold '{variant}'; received: {', '.join(self.val) or 'nothing'}"
        if not self.compressed and not any(item.variant == "pruned" for item in files):
            return "artifacts must hold a pruned file; received: none"
        sizes = [item["size"] for item in self.weights["pruned"]]
        if any(size < 1 for size in sizes):
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
        """Returns the artifacts as records."""
        return [Artifact.from_json(content) for content in self.artifacts]
