"""The folder of a run that searches: records of its candidates and final trainings, its study."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from compress.core.atomic_files import whole_files, write_json, write_new_json
from compress.core.errors import ParetuneError
from compress.run.directory import RunFolder
from compress.run.records import Record, RunRecord, check_name, read_record, too_low, unknown_value

COMPLETE, REJECTED, FAILED = "complete", "rejected", "failed"
STOPPED, DUPLICATE = "stopped", "duplicate"
LOST = "lost"
"""Stands in the place of a record: the trial runs again under another number."""
STATES = (COMPLETE, REJECTED, FAILED, STOPPED, DUPLICATE, LOST)


# what reports read of the tables inside records; further keys are left as they are
class _Epoch(TypedDict, total=False):
    epoch: int
    val: dict[str, float] | None


@dataclass(frozen=True)
class Candidate(Record):
    """One sampled model: what it is, what it costs, how well it validated.

    Attributes:
        id: Its number in the study, as file names carry it ("0005").
        state: "complete" (trained), "stopped" (trained in part: others were better),
            "rejected" (too costly, untrained), "duplicate" (of a candidate that ended before),
            "failed" or "lost" (with its node; never among a folder's candidates).
        reason: Why it was stopped, rejected or failed, or what it repeats.
        choices: What the sampler chose, by parameter name.
        seed: Seed of its initial weights and batch order.
        macs: Counted at batch 1.
        params: Counted.
        size_bytes: Of its float32 .tflite file, where a limit or an objective asks for it.
        latency_ms: Median of that file on LiteRT, one thread, before training: measured, or
            estimated from times of the parts of the model that the search is around.
        estimated: Names of costs that are estimates.
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
    estimated: tuple[str, ...] = ()
    val: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    history: tuple[dict[str, Any], ...] = field(default=(), metadata={"shape": tuple[_Epoch, ...]})
    seconds: float = 0.0
    device: str = ""
    notes: tuple[str, ...] = ()
    ended: float | None = None

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return unknown_value("state", self.state, STATES) or too_low(
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
        return too_low(self, 0, "place", "seed", "epochs", "seconds")


def final_name(model: str, place: int) -> str:
    """Return the name of one of a model's final trainings: "0005-final2"."""
    return f"{model}-final{place}"


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
    """A trial was given to another worker, as this one's node seemed lost."""


class SearchFolder(RunFolder):
    """The files of one run, by role, with those of its search.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        candidates: Records and models of the candidates.
        journal: The study, where it is kept in the folder.
        shared: The data, while workers share them.
        part_times: What was timed of the model that the search is around.
    """

    PLAN_RECORD: ClassVar[Any] = _PlanRecord
    PACKAGES: ClassVar[tuple[str, ...]] = (*RunFolder.PACKAGES, "optuna")

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.candidates = self.models
        self.journal = self.path / "study.journal"
        self.shared = self.path / ".shared"
        self.part_times = self.path / "part_times.json"

    @cached_property
    def known_as(self) -> Path:
        """The folder's path on the run's machine: a shared storage knows its study by that."""
        return self.path.resolve()

    def shipped_file(self, name: str) -> Path:
        """Return the `.keras` file that goes on: of the final training, where there was one."""
        final = self.final / f"{name}.keras"
        return final if final.exists() else self.model_file(name)

    def read_finals(self) -> list[Final]:
        """Return all final trainings, in order of models and places."""
        found = []
        for path in whole_files(self.final, ".json"):
            record = read_record(path, Final)
            check_name(path, final_name(record.model, record.place))
            found.append(record)
        return found

    def write_final(self, record: Final) -> None:
        """Record a final training."""
        write_json(self.final / f"{final_name(record.model, record.place)}.json", record.to_json())

    def read_candidates(self) -> list[Candidate]:
        """Return all candidates that ended, in order of their numbers."""
        found = [_candidate(path) for path in whole_files(self.candidates, ".json")]
        return [item for item in found if item.state != LOST]

    def read_candidate(self, name: str) -> Candidate | None:
        """Return one candidate's record, or None where it has not ended."""
        path = self._record(name)
        found = _candidate(path) if path.exists() else None
        return None if found is None or found.state == LOST else found

    def _record(self, name: str) -> Path:
        return self.candidates / f"{name}.json"

    def brought(self, path: Path) -> Path:
        """Return a file of the run as this machine has it."""
        return path

    def publish(self) -> tuple[str, ...]:
        """Put a job's files where other machines find them: here they are there already."""
        return ()

    def write_candidate(self, candidate: Candidate) -> Candidate:
        """Record a candidate that ended, once: the first record of a number counts.

        A worker whose node seemed lost may still run when its trial has been given to another.

        Returns:
            What stands there now: this one, or what was there before.

        Raises:
            TrialGivenUp: Its trial was given to another; nothing of it counts.
        """
        path = self._record(candidate.id)
        if write_new_json(path, candidate.to_json()):
            return candidate
        found = _candidate(path)
        if found.state == LOST:
            raise TrialGivenUp(f"Candidate {candidate.id} runs again under another number.")
        return found

    def give_up(self, name: str, seed: int, reason: str) -> bool:
        """Make sure that no worker can write a candidate's record any more.

        Args:
            name: The candidate's.
            seed: The trial's.
            reason: Why it is given up.

        Returns:
            Whether that was in time; False: its record is there.
        """
        lost = Candidate(name, LOST, {}, seed, reason)
        path = self._record(name)
        return write_new_json(path, lost.to_json()) or _candidate(path).state == LOST


def _candidate(path: Path) -> Candidate:
    record = read_record(path, Candidate)
    check_name(path, record.id)
    return record
