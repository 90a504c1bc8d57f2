"""Frozen records that runs write as JSON and reports read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from compress.errors import InputError

RecordT = TypeVar("RecordT", bound="Record")

COMPLETE, REJECTED, FAILED = "complete", "rejected", "failed"
STOPPED, DUPLICATE = "stopped", "duplicate"


@dataclass(frozen=True)
class Record:
    """Base of the records: to JSON and back, unknown keys refused."""

    def to_json(self) -> dict[str, Any]:
        """Returns the record as dictionaries, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls: type[RecordT], content: Mapping[str, Any]) -> RecordT:
        """Reads what `to_json` wrote.

        Raises:
            InputError: Keys are missing or unknown.
        """
        try:
            values = {
                key: tuple(item) if isinstance(item, list) else item
                for key, item in content.items()
            }
            return cls(**values)
        except TypeError as error:
            known = ", ".join(field.name for field in fields(cls))
            raise InputError(
                f"A {cls.__name__} record must have the keys {known}. Received: {error}."
            ) from None


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
    history: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    device: str = ""
    notes: tuple[str, ...] = ()
    ended: float | None = None

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
    test_interval: tuple[float, ...] | None = None

    @property
    def zeros(self) -> float:
        """Share of all parameters that are zero, in [0, 1]."""
        return 1 - self.nonzero / self.params if self.params else 0.0


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
    """

    model: str
    teacher: str
    val: dict[str, dict[str, float]]
    weights: dict[str, Any]
    best_epoch: int
    epochs: int
    command: str
    seconds: float
    device: str
    notes: tuple[str, ...]
    artifacts: tuple[dict[str, Any], ...]
    channels: dict[str, Any] | None = None
    compressed: str = ""
    val_learnt: bool = False

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
