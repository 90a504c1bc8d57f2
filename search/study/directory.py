"""The folder of a search: records of candidates and final trainings, and the study."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from compress.core.atomic_files import list_complete_files, write_json, write_new_json
from compress.core.errors import ParetuneError
from compress.run.directory import RunFolder
from compress.run.records import (
    Record,
    RunRecord,
    check_record_name,
    find_too_low,
    find_unknown_value,
    read_record,
)

COMPLETE, REJECTED, FAILED = "complete", "rejected", "failed"
STOPPED, DUPLICATE = "stopped", "duplicate"
LOST = "lost"
"""State of a placeholder record: the trial runs again under another number."""
FURTHER_SUFFIX = ".further.json"
"""End of the name of the record of a further training: model, epochs (those of its trial, too)."""
STATES = (COMPLETE, REJECTED, FAILED, STOPPED, DUPLICATE, LOST)


# the keys that reports read from nested tables of records; other keys are not validated
class _Epoch(TypedDict, total=False):
    epoch: int
    val: dict[str, float] | None


@dataclass(frozen=True)
class Candidate(Record):
    """A sampled model: its choices, costs and validation metrics.

    Attributes:
        id: Trial number in the form used in file names ("0005").
        state: "complete" (fully trained), "stopped" (early, because it was dominated),
            "rejected" (too costly, untrained), "duplicate" (of a candidate that ended before),
            "failed" or "lost" (with its node; `SearchFolder.read_candidates` skips these).
        choices: Sampled values, by parameter name.
        seed: Seed of its initial weights and batch order.
        reason: Why it was stopped, rejected or failed, or which candidate it duplicates.
        macs: Multiply-accumulates at batch size 1.
        params: Number of parameters.
        size_bytes: Bytes of its float32 .tflite file, where a limit or an objective needs it.
        latency_ms: Median milliseconds of that file on LiteRT with one thread, before training.
        unsupported: Names of operations that `macs` does not include.
        estimated: Names of costs that are estimates; now always empty.
        val: Validation metrics, by name; a duplicate has them only if its original was complete.
        best_epoch: Epoch of the kept weights; 0 in runs of earlier versions: the initial weights.
        history: One record per epoch.
        seconds: Wall time of building and training.
        device: Device of the training.
        notes: Deviations from the requested settings.
        ended: End time, in seconds since 1970; None in records of older versions.
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
    estimated: tuple[str, ...] = ()
    val: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    history: tuple[dict[str, Any], ...] = field(default=(), metadata={"shape": tuple[_Epoch, ...]})
    seconds: float = 0.0
    device: str = ""
    notes: tuple[str, ...] = ()
    ended: float | None = None

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        return find_unknown_value("state", self.state, STATES) or find_too_low(
            self, 0, "seed", "macs", "params", "size_bytes", "latency_ms", "seconds"
        )

    @property
    def is_trial(self) -> bool:
        """Whether it took training time, unlike rejected candidates and duplicates."""
        return self.state not in (REJECTED, DUPLICATE)


@dataclass(frozen=True)
class FinalTraining(Record):
    """A full training of a front's candidate after the search.

    Earlier versions could train a candidate several times.

    Attributes:
        model: The candidate's id.
        place: Index of this training among those of the candidate, from 0; now always 0.
        seed: Seed of its initial weights and batch order.
        epochs: Number of trained epochs.
        best_epoch: Epoch of the kept weights.
        val: Validation metrics, by name.
        test: Test metrics of the Keras model, by name.
        seconds: Wall time.
    """

    model: str
    place: int
    seed: int
    epochs: int
    best_epoch: int
    val: dict[str, float]
    test: dict[str, float]
    seconds: float

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        return find_too_low(self, 0, "place", "seed", "epochs", "seconds")


def build_final_name(model: str, index: int = 0) -> str:
    """Return the name of a model's final training: "0005-final0".

    Args:
        model: Id of the candidate.
        index: Index of the training; above 0 only in runs of earlier versions.
    """
    return f"{model}-final{index}"


class _SearchPart(TypedDict, total=False):
    objectives: tuple[str, ...]
    epochs: int
    space: str
    storage: str
    no_train: bool


class _PlanPart(TypedDict, total=False):
    search: _SearchPart


class _PlanRecord(RunRecord):
    plan: _PlanPart


class TrialGivenUp(ParetuneError):
    """Error of a worker whose trial was given to another, because its node seemed lost."""


class SearchFolder(RunFolder):
    """The folder of a search, with its files by role.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        candidates: Folder of the candidates' records and models.
        journal: File of the study, unless another storage is used.
        shared: Folder of the data while workers share them.
    """

    PLAN_RECORD: ClassVar[Any] = _PlanRecord
    PACKAGES: ClassVar[tuple[str, ...]] = (*RunFolder.PACKAGES, "optuna")

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.candidates = self.models
        self.journal = self.path / "study.journal"
        self.shared = self.path / ".shared"

    @cached_property
    def origin_path(self) -> Path:
        """The folder's path on the run's machine, which identifies its study in shared storages."""
        return self.path.resolve()

    def get_shipped_path(self, name: str) -> Path:
        """Return the path of the final `.keras` file: of the final training, if there is one."""
        final = self.final / f"{name}.keras"
        return final if final.exists() else self.get_model_path(name)

    def read_finals(self) -> list[FinalTraining]:
        """Return all final trainings, in order of models and indices."""
        records = []
        for path in list_complete_files(self.final, ".json"):
            if path.name.endswith(FURTHER_SUFFIX):
                continue
            record = read_record(path, FinalTraining)
            check_record_name(path, build_final_name(record.model, record.place))
            records.append(record)
        return records

    def write_final(self, record: FinalTraining) -> None:
        """Write the record of a final training."""
        write_json(
            self.final / f"{build_final_name(record.model, record.place)}.json", record.to_json()
        )

    def read_candidates(self) -> list[Candidate]:
        """Return all candidates that ended, in order of their numbers."""
        candidates = [
            _read_candidate(path) for path in list_complete_files(self.candidates, ".json")
        ]
        return [item for item in candidates if item.state != LOST]

    def read_candidate(self, name: str) -> Candidate | None:
        """Return the record of a candidate; None if it has not ended or was given up."""
        path = self._get_record_path(name)
        candidate = _read_candidate(path) if path.exists() else None
        return None if candidate is None or candidate.state == LOST else candidate

    def _get_record_path(self, name: str) -> Path:
        return self.candidates / f"{name}.json"

    def fetch_file(self, path: Path) -> Path:
        """Return the local path of a file of the run."""
        return path

    def publish(self) -> tuple[str, ...]:
        """Publish a job's files for other machines and return their names; nothing to do here."""
        return ()

    def write_candidate(self, candidate: Candidate) -> Candidate:
        """Write the record of a candidate that ended, unless its number already has one.

        A worker whose node seemed lost may still be running after its trial was given to another.

        Returns:
            The valid record: this one, or the one that existed before.

        Raises:
            TrialGivenUp: The trial was given to another worker; this result is discarded.
        """
        path = self._get_record_path(candidate.id)
        if write_new_json(path, candidate.to_json()):
            return candidate
        existing = _read_candidate(path)
        if existing.state == LOST:
            raise TrialGivenUp(f"Candidate {candidate.id} runs again under another number.")
        return existing

    def give_up(self, name: str, seed: int, reason: str) -> bool:
        """Prevent workers from writing a candidate's record.

        Args:
            name: The candidate's name.
            seed: The trial's seed.
            reason: Why the trial is given up.

        Returns:
            True if the record was prevented; False if it had already been written.
        """
        lost = Candidate(name, LOST, {}, seed, reason)
        path = self._get_record_path(name)
        return write_new_json(path, lost.to_json()) or _read_candidate(path).state == LOST


def _read_candidate(path: Path) -> Candidate:
    record = read_record(path, Candidate)
    check_record_name(path, record.id)
    return record
