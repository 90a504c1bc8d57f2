"""A run's folder: where everything is, whose plan it follows, and who writes to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, TypeVar

from compress.core.atomic_files import (
    check_folder,
    read_json,
    whole_files,
    writable_folder,
    write_json,
)
from compress.core.credentials import hidden_in
from compress.core.errors import InputError, one_line
from compress.core.platform import host
from compress.core.typed import conform
from compress.plan import Plan
from compress.plan.fields import differing_fields, from_nested, to_nested
from compress.run.records import Candidate, Compressed, Final, read_record

PlanT = TypeVar("PlanT", bound=Plan)

FORMAT = 1
LOG = logging.getLogger("paretune")
_PACKAGES = ("tensorflow", "keras", "tensorflow-model-optimization", "optuna", "numpy")


def final_name(model: str, place: int) -> str:
    """Returns the name of one of a model's final trainings: "0005-final2"."""
    return f"{model}-final{place}"


def _candidate(path: Path) -> Candidate:
    record = read_record(path, Candidate)
    _check_name(path, record.id)
    return record


def _compressed(path: Path) -> Compressed:
    """Reads a record; its files are the model's own and lie in the folder."""
    record = read_record(path, Compressed)
    _check_name(path, record.model)
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


def _check_name(path: Path, name: str) -> None:
    """Refuses a record that is named otherwise than its file: names become paths again."""
    if path.stem != name:
        raise InputError(
            f"'{path}' must be named as the record in it. Received: {name!r}. The file was "
            "renamed or changed by hand."
        )


class _SearchPart(TypedDict, total=False):
    objectives: tuple[str, ...]
    epochs: int
    space: str
    storage: str


class _PlanPart(TypedDict, total=False):
    search: _SearchPart


class _PlanRecord(TypedDict):
    command: str
    facts: dict[str, Any]
    shown: dict[str, str]
    plan: _PlanPart
    versions: dict[str, str]


class _Preprocess(TypedDict, total=False):
    formula: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool


class _DataRecord(TypedDict, total=False):
    source: str
    task: str
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    preprocess: _Preprocess
    fingerprint: str
    notes: tuple[str, ...]


class _LogFile(logging.FileHandler):
    """A file of log lines; one that cannot be written ends what it tells of."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - Python's name
        """Raises the error that `emit` has met, where Python would print a traceback."""
        raise


class RunFolder:
    """The files of one run, by role.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.plan_path = self.path / "plan.json"
        self.candidates = self.path / "candidates"
        self.final = self.path / "final"
        self.exports = self.path / "exports"
        self.compressed = self.path / "compressed"
        self.latency = self.path / "latency.json"
        self.data = self.path / "data.json"
        self.examples = self.path / "examples.npz"
        self.journal = self.path / "study.journal"
        self.log = self.path / "log.txt"
        self.shared = self.path / ".shared"

    def latency_of(self, runtime: str) -> Path:
        """Where the times of a runtime other than LiteRT stand."""
        return self.path / f"latency-{runtime}.json"

    def claim(
        self,
        command: str,
        plan: Plan,
        facts: dict[str, Any] | None = None,
        shown: dict[str, str] | None = None,
        untried: Callable[[], bool] | None = None,
        forget: Callable[[], None] | None = None,
    ) -> None:
        """Makes the folder this plan's, or finds that it is already.

        A folder in which nothing was begun may be corrected: it becomes this plan's.

        Args:
            command: The command that writes here ("run", "search", "compress").
            plan: The plan; fields marked extendable may differ from the stored one.
            facts: What else must agree (the data's fingerprint, say).
            shown: Commands that the report shows.
            untried: See `check`.
            forget: Removes what a corrected folder's plan has queued elsewhere.

        Raises:
            InputError: The folder is not writable, holds other files, is in use, or belongs
                to another plan.
        """
        record: dict[str, Any] = {"command": command, "facts": facts or {}}
        if self.check(command, plan, facts, untried):
            with self.locked():  # whoever claimed it may be about to begin
                if forget is not None:
                    forget()
                self._claimed(record, plan, shown or {})
            return
        self._claimed(record, plan, shown or {})

    def check(
        self,
        command: str,
        plan: Plan,
        facts: dict[str, Any] | None = None,
        untried: Callable[[], bool] | None = None,
    ) -> bool:
        """Checks whether a plan may claim the folder; nothing is written.

        Args:
            command, plan, facts: See `claim`.
            untried: Tells of a folder without results whether nothing was begun elsewhere
                (in the study); default: where there is no study.

        Returns:
            Whether it is another plan's that never began, and may become this one's.

        Raises:
            InputError: It holds other files, or belongs to another plan.
        """
        if not self.plan_path.exists():
            self.check_usable()
            return False
        stored = self.read_plan_record()
        if stored["command"] == command:
            differences = differing_fields(from_nested(type(plan), stored["plan"]), plan)
        else:
            differences = [f"command was {stored['command']}, now {command}"]
        differences += [
            f"{name} was {stored['facts'].get(name)!r}, now {value!r}"
            for name, value in (facts or {}).items()
            if stored["facts"].get(name) != value
        ]
        if not differences:
            return False
        nothing = untried or (lambda: not self.journal.exists())
        if self._without_results() and nothing():
            return True
        raise InputError(
            f"Output folder '{self.path}' belongs to another run: "
            f"{'; '.join(differences)}. Choose another folder with --out."
        )

    def _without_results(self) -> bool:
        """Tells whether the folder holds no more than a claim leaves, and a study perhaps."""
        places = (self.candidates, self.final, self.exports, self.compressed)
        begun = any(any(place.iterdir()) for place in places if place.is_dir())
        return not begun and not (self.path / "unfinished").exists()

    def _claimed(self, record: dict[str, Any], plan: Plan, shown: dict[str, str]) -> None:
        self.check_usable()
        writable_folder(self.path)
        for folder in (self.candidates, self.final, self.exports, self.compressed):
            folder.mkdir(exist_ok=True)
        versions = {package: metadata.version(package) for package in _PACKAGES}
        write_json(
            self.plan_path,
            {
                "format": FORMAT,
                **record,
                "shown": shown,
                "plan": to_nested(plan),
                "versions": versions,
            },
        )

    def check_usable(self) -> None:
        """Checks, without writing anything, that results may be written here.

        Raises:
            InputError: It is not writable, or holds files that are no run's.
        """
        check_folder(self.path)
        if not self.plan_path.exists() and self.path.is_dir() and any(self.path.iterdir()):
            raise InputError(
                f"Output folder '{self.path}' must be empty or an earlier run's. Received: a "
                "folder with other files. Choose another folder with --out."
            )

    def read_plan_record(self) -> dict[str, Any]:
        """Returns the content of plan.json, without passwords that older versions put there.

        Raises:
            InputError: The folder is no run's, or of another format.
        """
        if not self.plan_path.is_file():
            raise InputError(
                f"'{self.path}' must be the folder of a run (it has no plan.json). "
                "Give the --out folder of paretune run, search or compress."
            )
        record = read_json(self.plan_path)
        if record.get("format") != FORMAT:
            raise InputError(
                f"'{self.plan_path}' must have format {FORMAT}. Received: "
                f"{one_line(record.get('format'))}."
            )
        checked: dict[str, Any] = conform(hidden_in(record), _PlanRecord, f"'{self.plan_path}'")
        return checked

    def read_data_record(self) -> dict[str, Any]:
        """Returns the content of data.json; nothing where there is none.

        Raises:
            InputError: It holds something else.
        """
        if not self.data.exists():
            return {}
        checked: dict[str, Any] = conform(read_json(self.data), _DataRecord, f"'{self.data}'")
        for part, counts in checked.get("counts", {}).items():
            if any(count < 0 for count in counts):
                raise InputError(
                    f"'{self.data}': counts.{one_line(part)} must be at least 0. Received: "
                    f"{min(counts)}."
                )
        return checked

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps the folder to one writing process.

        Raises:
            InputError: Another process holds it.
        """
        held = host().lock(self.path / "run.lock", wait=False)
        if held is None:
            raise InputError(
                f"Output folder '{self.path}' is in use by another paretune process. Wait "
                "for it, or choose another folder with --out."
            )
        try:
            yield
        finally:
            held.release()

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Appends what is logged to log.txt while the context lasts."""
        handler = _LogFile(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        level = LOG.level
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        try:
            yield
        finally:
            LOG.removeHandler(handler)
            LOG.setLevel(level)
            handler.close()

    def model_file(self, name: str) -> Path:
        """Returns the `.keras` file of a model."""
        return self.candidates / f"{name}.keras"

    def shipped_file(self, name: str) -> Path:
        """Returns the `.keras` file that goes on: of the final training, where there was one."""
        final = self.final / f"{name}.keras"
        return final if final.exists() else self.model_file(name)

    def read_finals(self) -> list[Final]:
        """Returns all final trainings, in order of models and places."""
        found = []
        for path in whole_files(self.final, ".json"):
            record = read_record(path, Final)
            _check_name(path, final_name(record.model, record.place))
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

    def read_compressed(self) -> list[Compressed]:
        """Returns what the compress stage has finished, in order of the models' names."""
        return [_compressed(path) for path in whole_files(self.compressed, ".json")]

    def write_compressed(self, record: Compressed) -> None:
        """Records a model whose compress stage is finished."""
        write_json(self.compressed / f"{record.model}.json", record.to_json())

    def is_compressed(self, name: str) -> bool:
        """Tells whether a model's compress stage is finished."""
        return (self.compressed / f"{name}.json").exists()

    def relative(self, path: Path) -> str:
        """Returns a path as it is written in records: relative to the folder."""
        return os.path.relpath(path, self.path)
