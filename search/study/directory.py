"""The folder of a run that searches: its candidates, final trainings and study."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from compress.core.atomic_files import whole_files, write_json, write_new_json
from compress.core.errors import ParetuneError
from compress.run.directory import RunFolder
from compress.run.records import RunRecord, check_name, read_record
from search.study.records import LOST, Candidate, Final, final_name


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
        """Where it lies on the run's machine: a shared storage knows its study by that."""
        return self.path.resolve()

    def shipped_file(self, name: str) -> Path:
        """Returns the `.keras` file that goes on: of the final training, where there was one."""
        final = self.final / f"{name}.keras"
        return final if final.exists() else self.model_file(name)

    def read_finals(self) -> list[Final]:
        """Returns all final trainings, in order of models and places."""
        found = []
        for path in whole_files(self.final, ".json"):
            record = read_record(path, Final)
            check_name(path, final_name(record.model, record.place))
            found.append(record)
        return found

    def write_final(self, record: Final) -> None:
        """Records a final training."""
        write_json(self.final / f"{final_name(record.model, record.place)}.json", record.to_json())

    def read_candidates(self) -> list[Candidate]:
        """Returns all candidates that ended, in order of their numbers."""
        found = [_candidate(path) for path in whole_files(self.candidates, ".json")]
        return [item for item in found if item.state != LOST]

    def read_candidate(self, name: str) -> Candidate | None:
        """Returns one candidate's record, or None where it has not ended."""
        path = self._record(name)
        found = _candidate(path) if path.exists() else None
        return None if found is None or found.state == LOST else found

    def _record(self, name: str) -> Path:
        return self.candidates / f"{name}.json"

    def brought(self, path: Path) -> Path:
        """Returns a file of the run as this machine has it."""
        return path

    def publish(self) -> tuple[str, ...]:
        """Puts what a job has written where others find it: it is there already."""
        return ()

    def write_candidate(self, candidate: Candidate) -> Candidate:
        """Records a candidate that ended, once: the first record of a number counts.

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
        """Makes sure that no worker can write a candidate's record any more.

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
