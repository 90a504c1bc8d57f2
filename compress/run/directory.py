"""The folder of a run: its files, its plan, and the lock of its writer."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypedDict, TypeVar

from compress.core import linux
from compress.core.arguments import convert_json
from compress.core.atomic_files import (
    check_folder,
    ensure_writable_folder,
    list_complete_files,
    read_json,
    remove_unfinished,
    write_json,
)
from compress.core.credentials import hide_json_passwords
from compress.core.errors import InputError, to_one_line
from compress.plan import Plan
from compress.plan.nesting import from_nested, list_forbidden_changes, to_nested
from compress.plugins import MAIN_RUNTIME, RUNTIMES
from compress.run.compressed_model import CompressedModel, read_compressed_model
from compress.run.records import FORMAT, PlanRecord, drop_validation_keys

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


class OtherRunError(InputError):
    """A folder that belongs to another run, or has files that are not a run's."""


class _RootForwarder(logging.Handler):
    """Handler that forwards records to the handlers of the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().handle(record)


def run_in_own_folder(
    out: str | Path | None, default: str, work: Callable[[Path], ResultT]
) -> ResultT:
    """Run in the user's folder, or in the first default folder without another run.

    An unfinished call is resumed in its default folder, and the result of a finished one is shown
    again; another call gets the next number: "runs/shrink-model", then "runs/shrink-model-2".

    Args:
        out: The user's folder; None: a default folder.
        default: The default folder, without a number.
        work: Function called with the folder; it raises `OtherRunError` before it writes to another
            run's folder.

    Returns:
        The return value of `work`.

    Raises:
        OtherRunError: `out` belongs to another run.
    """
    if out is not None:
        return work(Path(out))
    folder, suffix = Path(default), 1
    while True:
        try:
            return work(folder)
        except OtherRunError:
            suffix += 1
            folder = Path(f"{default}-{suffix}")


class _LogFileHandler(logging.FileHandler):
    """Handler of a log file that raises write errors."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - Python's name
        """Raise the error of `emit`, for which Python would print a traceback."""
        raise


class RunFolder:
    """The files of one run, by role; subclasses add further files.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        models: Folder of the run's models, including the compressed ones; its name dates from the
            first release.
        final: Folder of the models that the run retrained at its end.
        ship: Folder with the file to deploy and everything needed to use it.
    """

    PLAN_RECORD: ClassVar[Any] = PlanRecord
    """The TypedDict of the content of plan.json."""
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
        self.ship = self.path / "ship"
        self.outcome = self.path / "outcome.json"
        self.log = self.path / "log.txt"
        self.lock = self.path / "run.lock"
        self._is_claimed = False

    def get_latency_path(self, runtime: str) -> Path:
        """Return the path of the latencies of a runtime."""
        return self.latency if runtime == MAIN_RUNTIME else self.path / f"latency-{runtime}.json"

    def find_timed_runtime(self) -> str:
        """Return the runtime whose latencies are shown.

        It is the main one if it has measurements or no runtime has, else the first that has.
        """
        return next(
            (
                name
                for name in (MAIN_RUNTIME, *RUNTIMES)
                if (path := self.get_latency_path(name)).exists()
                and "skipped" not in read_json(path)
            ),
            MAIN_RUNTIME,
        )

    def claim(
        self,
        command: str,
        plan: Plan,
        facts: dict[str, Any] | None = None,
        shown: dict[str, str] | None = None,
    ) -> None:
        """Claim the folder for a plan, or resume the plan that already owns it.

        Args:
            command: Name of the command ("compress").
            plan: The plan; fields marked extendable may differ from the stored one.
            facts: Further values that must match (for example the data's fingerprint).
            shown: Commands that the report shows.

        Raises:
            InputError: The folder is not writable, holds other files, or belongs to another plan.
        """
        self.check_claim(command, plan, facts)
        self.check_usable()
        ensure_writable_folder(self.path)
        for folder in self._folders:
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

    def check_claim(self, command: str, plan: Plan, facts: dict[str, Any] | None = None) -> None:
        """Check whether a plan may claim the folder, without writing anything.

        Args:
            command: See `claim`.
            plan: See `claim`.
            facts: See `claim`.

        Raises:
            InputError: The folder holds other files, or belongs to another plan.
        """
        if not self.plan_path.exists():
            self.check_usable()
            return
        stored = self.read_plan_record()
        if stored["command"] == command:
            differences = list_forbidden_changes(from_nested(type(plan), stored["plan"]), plan)
        else:
            differences = [f"command was {stored['command']}, now {command}"]
        differences += [
            f"{name} was {stored['facts'].get(name)!r}, now {value!r}"
            for name, value in (facts or {}).items()
            if stored["facts"].get(name) != value
        ]
        if differences:
            raise OtherRunError(
                f"Output folder '{self.path}' belongs to another run: "
                f"{'; '.join(differences)}. Choose another output folder."
            )

    @contextmanager
    def drop_if_refused(self) -> Iterator[None]:
        """Remove the content of the folder if an input error occurs before there are results.

        So a target that cannot be met leaves no files, and the corrected call can use the folder.
        """
        new_folders = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            yield
        except InputError:
            if self._is_claimed and not self._has_work:
                self._drop_content(new_folders)
            raise

    @property
    def _has_work(self) -> bool:
        """Whether there are results of training or repair, or a compression can be resumed."""
        has_results = any(
            folder.is_dir() and any(folder.iterdir())
            for folder in (self.models, self.final, self.compressed)
        )
        return has_results or (self.path / "unfinished").exists()

    def _drop_content(self, new_folders: list[Path]) -> None:
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for folder in new_folders:
            with suppress(OSError):  # the folder is not empty
                folder.rmdir()

    def get_decisions_path(self, model: str) -> Path:
        """Return the path of the decisions of a model's files on the test part."""
        return self.decisions / f"{model}.json"

    def get_graphs_path(self, model: str) -> Path:
        """Return the path of a model's graphs before and after compression."""
        return self.exports / "graphs" / f"{model}.json"

    def get_unfinished_path(self, name: str) -> Path:
        """Return the path of the saved state of an unfinished compression."""
        return self.path / "unfinished" / name

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (self.models, self.final, self.exports, self.compressed)

    def check_usable(self) -> None:
        """Check, without writing anything, that results may be written to the folder.

        Raises:
            InputError: The folder is not writable, or holds files that are not a run's.
        """
        check_folder(self.path)
        if not self.plan_path.exists() and self.path.is_dir() and any(self.path.iterdir()):
            raise OtherRunError(
                f"Output folder '{self.path}' must be empty or an earlier run's. Received: a "
                "folder with other files. Choose another output folder."
            )

    def read_plan_record(self) -> dict[str, Any]:
        """Return the content of plan.json, without passwords stored by older versions.

        Raises:
            InputError: The folder is not a run's, has another format, or holds models that version
                0.1 trained on the validation part.
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
                f"{to_one_line(record.get('format'))}."
            )
        checked: dict[str, Any] = convert_json(
            hide_json_passwords(record), self.PLAN_RECORD, f"'{self.plan_path}'"
        )
        final = checked["plan"].get("final")
        if isinstance(final, dict):  # refused if version 0.1 trained on the validation part
            drop_validation_keys(final, f"'{self.plan_path}': plan.final")
        return checked

    def read_data_record(self) -> dict[str, Any]:
        """Return the content of data.json; {} if there is none.

        Raises:
            InputError: The file has other content.
        """
        if not self.data.exists():
            return {}
        checked: dict[str, Any] = convert_json(read_json(self.data), _DataRecord, f"'{self.data}'")
        for part, counts in checked.get("counts", {}).items():
            if any(count < 0 for count in counts):
                raise InputError(
                    f"'{self.data}': counts.{to_one_line(part)} must be at least 0. Received: "
                    f"{min(counts)}."
                )
        return checked

    @contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Lock the folder for this process for the duration of the context.

        Raises:
            InputError: Another process holds the lock.
        """
        try:
            lock = linux.lock_file(self.lock, wait=False)
        except BlockingIOError:
            raise InputError(
                f"Output folder '{self.path}' is in use by another paretune process. Wait "
                "for it, or choose another output folder."
            ) from None
        with lock:
            yield

    def remove_half_written(self) -> None:
        """Remove half-written files of killed processes; no other process may be writing."""
        count = remove_unfinished(self.path)
        if count:
            LOG.info("removed %d file(s) that a killed process had not finished", count)

    @contextmanager
    def log_to_file(self) -> Iterator[None]:
        """Append log messages to log.txt for the duration of the context.

        If the calling program has not configured logging, it receives only warnings.
        """
        handler, forwarder = (
            _LogFileHandler(self.log, encoding="utf-8"),
            _RootForwarder(logging.WARNING),
        )
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        level, propagate = LOG.level, LOG.propagate
        is_unconfigured = propagate and level == logging.NOTSET
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        if is_unconfigured:
            LOG.addHandler(forwarder)
            LOG.propagate = False
        try:
            yield
        finally:
            LOG.removeHandler(handler)
            LOG.removeHandler(forwarder)
            LOG.setLevel(level)
            LOG.propagate = propagate
            handler.close()

    def get_model_path(self, name: str) -> Path:
        """Return the `.keras` file of a model."""
        return self.models / f"{name}.keras"

    def read_compressed(self) -> list[CompressedModel]:
        """Return the records of finished compressions, sorted by model name."""
        return [
            read_compressed_model(path) for path in list_complete_files(self.compressed, ".json")
        ]

    def write_compressed(self, record: CompressedModel) -> None:
        """Write the record of a finished compression."""
        write_json(self.compressed / f"{record.model}.json", record.to_json())

    def is_compressed(self, name: str) -> bool:
        """Return whether a model's compression is finished."""
        return (self.compressed / f"{name}.json").exists()

    def to_relative(self, path: Path) -> str:
        """Return a path relative to the folder, as stored in records."""
        return os.path.relpath(path, self.path)
