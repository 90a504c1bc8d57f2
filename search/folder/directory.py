"""The folder of a run that searches: its candidates, final trainings and study."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypedDict

from compress.core.atomic_files import whole_files, write_json
from compress.run.directory import RunFolder
from compress.run.records import check_name, read_record
from compress.run.stored import RunRecord
from search.folder.records import Candidate, Final, final_name


class _SearchPart(TypedDict, total=False):
    objectives: tuple[str, ...]
    epochs: int
    space: str
    storage: str


class _PlanPart(TypedDict, total=False):
    search: _SearchPart


class _PlanRecord(RunRecord):
    plan: _PlanPart


class SearchFolder(RunFolder):
    """The files of one run, by role, with those of its search.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        candidates: Records and models of the candidates.
        journal: The study, where it is kept in the folder.
        shared: The data, while workers share them.
    """

    PLAN_RECORD: ClassVar[Any] = _PlanRecord
    PACKAGES: ClassVar[tuple[str, ...]] = (*RunFolder.PACKAGES, "optuna")

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.candidates = self.models
        self.journal = self.path / "study.journal"
        self.shared = self.path / ".shared"

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
        return [_candidate(path) for path in whole_files(self.candidates, ".json")]

    def read_candidate(self, name: str) -> Candidate | None:
        """Returns one candidate's record, or None where it has not ended."""
        path = self.candidates / f"{name}.json"
        return _candidate(path) if path.exists() else None

    def write_candidate(self, candidate: Candidate) -> None:
        """Records a candidate that ended."""
        write_json(self.candidates / f"{candidate.id}.json", candidate.to_json())


def _candidate(path: Path) -> Candidate:
    record = read_record(path, Candidate)
    check_name(path, record.id)
    return record
