"""The folder of a run: its files, its plan, and the lock of its writer."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypedDict, TypeVar

from compress.core import linux
from compress.core.arguments import conform
from compress.core.atomic_files import (
    check_folder,
    read_json,
    remove_unfinished,
    whole_files,
    writable_folder,
    write_json,
)
from compress.core.credentials import hidden_in
from compress.core.errors import InputError, one_line
from compress.plan import Plan
from compress.plan.fields import differing_fields, from_nested, to_nested
from compress.plugins import MAIN_RUNTIME, RUNTIMES
from compress.run.compressed import Compressed, read_compressed
from compress.run.records import FORMAT, PlanRecord

LOG = logging.getLogger("paretune")
ResultT = TypeVar("ResultT")


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
    input_shapes: dict[str, tuple[int, ...]]
    class_names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    examples: dict[str, int]
    preprocess: _Preprocess
    fingerprint: str
    notes: tuple[str, ...]


class OtherRun(InputError):
    """A folder is another run's, or holds files that are no run's."""


class _Above(logging.Handler):
    """Hands records to the root logger, whose handlers know no level of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().handle(record)


def run_in_own_folder(
    out: str | Path | None, default: str, work: Callable[[Path], ResultT]
) -> ResultT:
    """Run in the folder that the user names, or in the first default one that is no other run's.

    The same call, unfinished, is resumed in its default folder, and finished its result is shown;
    another one gets the next number: "runs/shrink-model", then "runs/shrink-model-2".

    Args:
        out: The folder that the user names; None: a default one.
        default: The default folder, without a number.
        work: Called with the folder; raises `OtherRun` before it writes to another run's.

    Returns:
        What `work` returns.

    Raises:
        OtherRun: `out` is another run's.
    """
    if out is not None:
        return work(Path(out))
    folder, number = Path(default), 1
    while True:
        try:
            return work(folder)
        except OtherRun:
            number += 1
            folder = Path(f"{default}-{number}")


class _LogFile(logging.FileHandler):
    """A file of log lines; one that cannot be written ends what it tells of."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - Python's name
        """Raise the error that `emit` has met, where Python would print a traceback."""
        raise


class RunFolder:
    """The files of one run, by role; whoever adds others extends it.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        models: Models of the run, the compressed ones among them. The folder has the name that
            the first release gave it.
        final: Models that the run has trained anew at its end.
    """

    PLAN_RECORD: ClassVar[Any] = PlanRecord
    """What plan.json holds: a TypedDict."""
    PACKAGES: ClassVar[tuple[str, ...]] = (
        "tensorflow", "keras", "tensorflow-model-optimization", "numpy",
    )  # fmt: skip
    """Packages whose versions are recorded."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.plan_path = self.path / "plan.json"
        self.models = self.path / "candidates"
        self.final = self.path / "final"
        self.exports = self.path / "exports"
        self.decisions = self.exports / "decisions"
        self.compressed = self.path / "compressed"
        self.latency = self.path / "latency.json"
        self.data = self.path / "data.json"
        self.examples = self.path / "examples.npz"
        self.outcome = self.path / "outcome.json"
        self.log = self.path / "log.txt"
        self.lock = self.path / "run.lock"
        self._is_claimed = False

    def latency_of(self, runtime: str) -> Path:
        """Where the times of a runtime stand."""
        return self.latency if runtime == MAIN_RUNTIME else self.path / f"latency-{runtime}.json"

    def timed_by(self) -> str:
        """Return the runtime whose times stand beside files: the main one, where it timed."""
        names: tuple[str, ...] = (MAIN_RUNTIME, *RUNTIMES)
        for name in names:
            path = self.latency_of(name)
            if path.exists() and "skipped" not in read_json(path):
                return name
        return MAIN_RUNTIME

    def claim(
        self,
        command: str,
        plan: Plan,
        facts: dict[str, Any] | None = None,
        shown: dict[str, str] | None = None,
        untried: Callable[[], bool] | None = None,
        forget: Callable[[], None] | None = None,
    ) -> None:
        """Claim the folder for a plan, or resume where it is that plan's already.

        A folder in which nothing was begun may be corrected: it becomes this plan's.

        Args:
            command: The command that writes here ("compress").
            plan: The plan; fields marked extendable may differ from the stored one.
            facts: What else must agree (the data's fingerprint, say).
            shown: Commands that the report shows.
            untried: See `check`.
            forget: Removes what a corrected folder's plan has queued elsewhere.

        Raises:
            InputError: The folder is not writable, holds other files, is in use, or belongs
                to another plan.
        """
        corrects = self.check(command, plan, facts, untried)
        # whoever claimed it may be about to begin
        with self.locked(OtherRun) if corrects else nullcontext():
            if corrects and forget is not None:
                forget()
            self.check_usable()
            writable_folder(self.path)
            for folder in self._places:
                folder.mkdir(exist_ok=True)
            record = {
                "format": FORMAT,
                "command": command,
                "facts": facts or {},
                "shown": shown or {},
                "plan": to_nested(plan),
                "versions": {package: metadata.version(package) for package in self.PACKAGES},
            }
            write_json(self.plan_path, record)
            self._is_claimed = True

    def check(
        self,
        command: str,
        plan: Plan,
        facts: dict[str, Any] | None = None,
        untried: Callable[[], bool] | None = None,
    ) -> bool:
        """Check whether a plan may claim the folder; nothing is written.

        Args:
            command, plan, facts: See `claim`.
            untried: Tells of a folder without results whether nothing was begun that its other
                files tell of; default: where there are none.

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
        if not self._holds_work(*self._places) and (untried or self._holds_no_more)():
            return True
        raise OtherRun(
            f"Output folder '{self.path}' belongs to another run: "
            f"{'; '.join(differences)}. Choose another output folder."
        )

    @contextmanager
    def dropping_refused(self) -> Iterator[None]:
        """Remove what lies in the folder where its work is refused before it has a result.

        So a target that cannot be met leaves nothing, and the corrected call may take the folder.
        """
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            yield
        except InputError:
            # what took training or repair stays
            if self._is_claimed and not self._holds_work(self.models, self.final, self.compressed):
                self._drop(missing)
            raise

    def _holds_work(self, *places: Path) -> bool:
        """Return whether something lies in one of these folders, or waits to go on."""
        begun = any(place.is_dir() and any(place.iterdir()) for place in places)
        return begun or (self.path / "unfinished").exists()

    def _drop(self, missing: list[Path]) -> None:
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for folder in missing:
            with suppress(OSError):  # something else lies in it by now
                folder.rmdir()

    def _holds_no_more(self) -> bool:
        """Return whether the folder has no other files than a claim and what follows it leave."""
        own = {self.plan_path, self.data, self.examples, self.log, self.lock}
        return all(
            path in own or path.is_dir() or path.name.startswith(".")
            for path in self.path.iterdir()
        )

    def decisions_of(self, model: str) -> Path:
        """Where it stands what a model's files decided of the test part."""
        return self.decisions / f"{model}.json"

    def graphs_of(self, model: str) -> Path:
        """Where a model's graphs before and after stand."""
        return self.exports / "graphs" / f"{model}.json"

    def unfinished(self, name: str) -> Path:
        """Return where a compression that can go on keeps what it has; gone when it is done."""
        return self.path / "unfinished" / name

    @property
    def _places(self) -> tuple[Path, ...]:
        return (self.models, self.final, self.exports, self.compressed)

    def check_usable(self) -> None:
        """Check, without writing anything, that results may be written here.

        Raises:
            InputError: It is not writable, or holds files that are no run's.
        """
        check_folder(self.path)
        if not self.plan_path.exists() and self.path.is_dir() and any(self.path.iterdir()):
            raise OtherRun(
                f"Output folder '{self.path}' must be empty or an earlier run's. Received: a "
                "folder with other files. Choose another output folder."
            )

    def read_plan_record(self) -> dict[str, Any]:
        """Return the content of plan.json, without passwords that older versions put there.

        Raises:
            InputError: The folder is no run's, or of another format.
        """
        if not self.plan_path.is_file():
            raise InputError(
                f"'{self.path}' must be the folder of a run (it has no plan.json). "
                "Give the output folder of paretune run, search, shrink or compress."
            )
        record = read_json(self.plan_path)
        if record.get("format") != FORMAT:
            raise InputError(
                f"'{self.plan_path}' must have format {FORMAT}. Received: "
                f"{one_line(record.get('format'))}."
            )
        checked: dict[str, Any] = conform(
            hidden_in(record), self.PLAN_RECORD, f"'{self.plan_path}'"
        )
        return checked

    def read_data_record(self) -> dict[str, Any]:
        """Return the content of data.json; nothing where there is none.

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
    def locked(self, refusal: type[InputError] = InputError) -> Iterator[None]:
        """Keep the folder to one writing process.

        Args:
            refusal: What is raised where another process holds it.

        Raises:
            InputError: Another process holds it.
        """
        held = linux.lock(self.lock, wait=False)
        if held is None:
            raise refusal(
                f"Output folder '{self.path}' is in use by another paretune process. Wait "
                "for it, or choose another output folder."
            )
        try:
            yield
        finally:
            held.release()

    def clear(self) -> None:
        """Remove the half-written files of writers that were killed; nobody may write here."""
        count = remove_unfinished(self.path)
        if count:
            LOG.info("removed %d file(s) that a killed process had not finished", count)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Append what is logged to log.txt while the context lasts.

        A program of the user's, which set no level, hears of warnings alone.
        """
        handler, above = _LogFile(self.log, encoding="utf-8"), _Above(logging.WARNING)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        level, handed_on = LOG.level, LOG.propagate
        quiet = handed_on and level == logging.NOTSET
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        if quiet:
            LOG.addHandler(above)
            LOG.propagate = False
        try:
            yield
        finally:
            LOG.removeHandler(handler)
            LOG.removeHandler(above)
            LOG.setLevel(level)
            LOG.propagate = handed_on
            handler.close()

    def model_file(self, name: str) -> Path:
        """Return the `.keras` file of a model."""
        return self.models / f"{name}.keras"

    def read_compressed(self) -> list[Compressed]:
        """Return the finished records of the compress stage, in order of the models' names."""
        return [read_compressed(path) for path in whole_files(self.compressed, ".json")]

    def write_compressed(self, record: Compressed) -> None:
        """Record a model whose compress stage is finished."""
        write_json(self.compressed / f"{record.model}.json", record.to_json())

    def is_compressed(self, name: str) -> bool:
        """Return whether a model's compress stage is finished."""
        return (self.compressed / f"{name}.json").exists()

    def relative(self, path: Path) -> str:
        """Return a path as it is written in records: relative to the folder."""
        return os.path.relpath(path, self.path)
