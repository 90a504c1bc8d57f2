"""Terminal output: results, progress with the time left, log lines, errors and interruption."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import typer
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from compress.core.credentials import hide_passwords
from compress.core.errors import MAX_MESSAGE_LENGTH, ParetuneError, to_one_line
from compress.core.faults import SPACE, explain_fault, find_fault
from compress.core.summary import WIDTH, DisplayableResult, escape_line
from compress.run.directory import LOG
from search.engines import Display

INTERRUPTED, TERMINATED = 130, 143
RESUME_HINT = (
    "The same command continues: what is finished is kept, what was in progress runs again."
)
"""Message after an interruption of a run."""
_PATH_ERRORS = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM,
    errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
"""Error numbers that mean an invalid path from the user, rather than a fault of the machine."""
MAX_WIDTH = 120
"""Maximum number of columns of a result screen, because longer lines are hard to read."""
MAX_SHOWN = 16
"""Maximum number of workers with a progress bar, so that the bars fit on a screen."""
MAX_UPDATES = 100
"""Number of changes of a bar from which on every second one is forgotten."""


@contextmanager
def report_errors(resume: str) -> Iterator[None]:
    """Report errors as one line and an exit code, and interruptions with a resume hint.

    Ctrl-C and SIGTERM end the work in order, with its workers. Faults of the machine (such as a
    full disk) are reported with a remedy.

    Args:
        resume: Hint that is printed after an interruption.

    Raises:
        Exit: An error or an interruption occurred; it holds the exit code.
    """
    try:
        with _raise_on_sigterm():
            yield
    except ParetuneError as error:
        print_error(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        _print_line(f"\nparetune: interrupted. {resume}".rstrip())
        raise typer.Exit(INTERRUPTED) from None
    except _TerminatedError:
        _print_line(f"paretune: terminated by SIGTERM. {resume}".rstrip())
        raise typer.Exit(TERMINATED) from None
    except Exception as error:
        # libraries raise their own errors when a disk is full
        fault = find_fault(error)
        if fault is not None and (isinstance(error, OSError) or fault.kind == SPACE):
            print_error(explain_fault(fault))
            raise typer.Exit(1) from None
        if not isinstance(error, OSError):
            raise
        print_error(error)
        is_path_error = error.filename is not None and error.errno in _PATH_ERRORS
        raise typer.Exit(2 if is_path_error else 1) from None


class _TerminatedError(BaseException):
    """Error raised when the process receives SIGTERM."""


@contextmanager
def _raise_on_sigterm() -> Iterator[None]:
    """Raise `_TerminatedError` on SIGTERM, as Ctrl-C raises KeyboardInterrupt."""

    def terminate(*_: object) -> None:
        raise _TerminatedError

    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def print_error(error: object) -> None:
    """Print an error as one line on standard error."""
    _print_line(f"paretune: error: {hide_passwords(to_one_line(error, MAX_MESSAGE_LENGTH))}")


def print_note(text: object) -> None:
    """Print a note as one line on standard error, unless the command is quiet."""
    if not OUTPUT_MODE.get().quiet:
        _print_line(f"paretune: {hide_passwords(to_one_line(text, MAX_MESSAGE_LENGTH))}")


def _print_line(text: str) -> None:
    with contextlib.suppress(OSError):  # standard error may be closed
        print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class OutputMode:
    """Output options of a command.

    Attributes:
        quiet: Whether progress, log lines and notes are left out.
        as_json: Whether the result is one JSON document in place of a screen.
    """

    quiet: bool = False
    as_json: bool = False


DEFAULT_MODE = OutputMode()
OUTPUT_MODE: ContextVar[OutputMode] = ContextVar("OUTPUT_MODE", default=DEFAULT_MODE)
"""Mode of the running command."""


def create_console() -> Console:
    """Return a console on standard output, with wide lines if the output is a file.

    Names from users (models, classes, files) are printed literally: brackets are not markup.
    """
    output = Console(markup=False, emoji=False)
    return output if output.is_terminal else Console(markup=False, emoji=False, width=200)


def show_result(result: DisplayableResult, build_json: Callable[[], object], saved: object) -> None:
    """Print a result on standard output: as its screen, or with `--json` as a JSON document.

    Args:
        result: The result; no name or path of its screen is broken across lines.
        build_json: Builds the content of the document.
        saved: File of the results on disk, for error messages.

    Raises:
        SystemExit: See `report_output_errors`.
    """
    as_json = OUTPUT_MODE.get().as_json
    with report_output_errors(saved):
        print(
            json.dumps(build_json(), indent=1)
            if as_json
            else result.build_summary().to_text(choose_width()),
            flush=True,
        )


def choose_width() -> int:
    """Return the width of result screens: the terminal's up to `MAX_WIDTH`; `WIDTH` for files."""
    console = Console()
    return min(console.width, MAX_WIDTH) if console.is_terminal else WIDTH


def show(*parts: RenderableType, saved: object = "", last: str = "") -> None:
    """Print results on standard output, each on its own lines.

    Args:
        *parts: Texts and tables.
        saved: File of the results on disk, for error messages; empty: none.
        last: The last line, which names the written files; empty: none.

    Raises:
        SystemExit: See `report_output_errors`.
    """
    output = create_console()
    with report_output_errors(saved):
        for part in parts:
            output.print(part)
        if last:
            output.print(last, highlight=False, soft_wrap=True)


@contextmanager
def report_output_errors(saved: object = "") -> Iterator[None]:
    """Report in one line that standard output is not writable (because of a full disk, say).

    Args:
        saved: File of the results on disk; empty: none.

    Raises:
        SystemExit: Standard output is not writable; the exit code is 1.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise  # an error of a file rather than of standard output
        redirect = "Redirect it to a file on a disk with free space."
        remedy = f"The work is done: see '{saved}'." if saved else redirect
        print_error(f"Standard output must take what is printed ({error.strerror}). {remedy}")
        # Python would write the rest of the buffer at exit, and fail again
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, sys.stdout.fileno())
            os.close(sink)
        raise SystemExit(1) from None


def format_written(paths: Iterable[Path]) -> str:
    """Return "written: a.json, b.csv" for the files that exist; empty if none exists."""
    names = ", ".join(escape_line(path) for path in paths if path.exists())
    return f"written: {names}" if names else ""


class _ConsoleLog(logging.Handler):
    """A log handler that prints above the progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a log line literally; log.txt has the lines that cannot be printed."""
        with contextlib.suppress(OSError):
            self._console.print(Text(escape_line(record.getMessage())), soft_wrap=True)


class Elapsed(TimeElapsedColumn):
    """A progress column with the elapsed time, labelled."""

    def render(self, task: Task) -> Text:
        """Return "0:01:30 elapsed"."""
        return Text.assemble(super().render(task), " elapsed")


class TimeLeft(ProgressColumn):
    """A progress column with the estimated time left, empty without an estimate.

    The estimate uses the recent speed.
    """

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return "0:01:30 left"."""
        seconds = self.estimate_seconds(task)
        if seconds is None:
            return Text("")
        return Text(f"{timedelta(seconds=round(seconds))} left", style="progress.remaining")

    @staticmethod
    def estimate_seconds(task: Task) -> float | None:
        """Return the estimate in seconds; None without an estimate.

        The speed is that of the second half of the time so far: the first steps may take longer,
        because TensorFlow traces its functions, and later ones may take longer than those before.
        A first step that took more than half of the time does not count.
        The estimate counts down from the last step (such as one of several jobs), and is None when
        the next one is late.
        """
        updates = [(0.0, task.fields.get("initial", 0.0)), *task.fields.get("updates", ())]
        last_update, completed = updates[-1]
        first_update = next((time for time, _ in updates if 0.0 < time < last_update), 0.0)
        latest = max(last_update / 2, first_update)
        begin, before = max(item for item in updates if item[0] <= latest)
        if task.elapsed is None or task.remaining is None or completed <= before:
            return None
        speed = (completed - before) / max(last_update - begin, 1e-9)
        remaining = task.remaining / speed - (task.elapsed - last_update)
        return remaining if remaining >= 0.5 else None


class RichDisplay(Display):
    """Progress bars for the phase and for each worker, up to a maximum number of workers."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._main: TaskID | None = None
        self._workers: dict[int, TaskID] = {}
        self._shares: dict[int, float] = {}
        self._done = 0
        self._steps = False

    def start_phase(self, title: str, done: int, total: int, *, is_stepwise: bool = False) -> None:
        """Begin a phase; see `search.engines.Display`."""
        for task in (*self._workers.values(), *([] if self._main is None else [self._main])):
            self._progress.remove_task(task)
        self._workers, self._shares, self._done, self._steps = {}, {}, done, is_stepwise
        # `initial` leaves jobs of an earlier run out of the estimate of this run's speed
        self._main = self._progress.add_task(
            escape_line(title), total=total, completed=done, initial=done
        )

    def advance(self, done: int, total: int) -> None:
        """Show the number of finished jobs."""
        self._done = done
        self._update_total()

    def update_worker(self, index: int, text: str, share: float) -> None:
        """Show a worker's activity."""
        if index not in self._workers and len(self._workers) < MAX_SHOWN:
            self._workers[index] = self._progress.add_task("", total=1.0)
        task = self._workers.get(index)
        if task is not None:
            if share < self._shares.get(index, 0.0):
                # the next step or job restarts the elapsed time
                self._progress.reset(task, updates=())
            self._progress.update(task, description=f"  {escape_line(text)}")
            self._update_bar(task, share)
        self._shares[index] = share if text else 0.0
        self._update_total()

    def _update_total(self) -> None:
        """Update the phase's bar, to which running jobs add their shares unless it is stepwise."""
        if self._main is not None:
            running_share = 0.0 if self._steps else sum(self._shares.values())
            self._update_bar(self._main, self._done + running_share)

    def _update_bar(self, task: TaskID, completed: float) -> None:
        """Update a bar and the times of its changes."""
        (bar,) = (item for item in self._progress.tasks if item.id == task)
        if bar.completed != completed:
            updates = [*bar.fields.get("updates", ()), (bar.elapsed or 0.0, completed)]
            if len(updates) > MAX_UPDATES:
                updates = [*updates[:-1:2], updates[-1]]
            self._progress.update(task, completed=completed, updates=updates)


@contextmanager
def show_progress() -> Iterator[RichDisplay]:
    """Show progress and log lines on standard error while the context lasts."""
    # a copy of the descriptor, because descriptor 2 is redirected at times to hide library output
    with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace") as stream:
        is_quiet = OUTPUT_MODE.get().quiet
        console = Console(file=stream, markup=False, emoji=False, quiet=is_quiet)
        handler = _ConsoleLog(console)
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        # libraries may add a handler to the root logger, which would print each line again
        LOG.propagate = False
        columns = (
            # names in the description must not be read as markup
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            Elapsed(),
            TimeLeft(),
        )
        try:
            with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
                yield RichDisplay(progress)
        finally:
            LOG.removeHandler(handler)
            LOG.propagate = True
