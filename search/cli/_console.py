"""The terminal: results, progress with the time left, log lines, errors and interruption."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

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

from compress.core.credentials import hidden
from compress.core.errors import LONGEST, ParetuneError, one_line
from compress.core.faults import SPACE, explain_fault, fault_of
from compress.core.summary import line
from compress.measure import formats
from compress.run.directory import LOG, RunFolder
from search.engines import Display

if TYPE_CHECKING:
    from compress.report import Report
    from search.report import SearchReport

INTERRUPTED, TERMINATED = 130, 143
GOES_ON = "The same command continues: what is finished is kept, what was in progress runs again."
"""What an interruption of a run means."""
_PATHS = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM,
    errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip
"""What is wrong with a path that was given; the rest (a full disk) is the machine's."""
MOST_SHOWN = 16
"""Workers that have a bar: more than a screen holds tell nobody anything."""


@contextmanager
def reporting_errors(resume: str) -> Iterator[None]:
    """Turn errors into one line and an exit code, and an interruption into how to resume.

    Ctrl-C and SIGTERM end the work in order, with its workers. What the machine lacks (a full disk)
    is told with what to do then.

    Args:
        resume: Printed after an interruption.
    """
    try:
        with _raising_terminated():
            yield
    except ParetuneError as error:
        complain(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        _tell(f"\nparetune: interrupted. {resume}".rstrip())
        raise typer.Exit(INTERRUPTED) from None
    except _Terminated:
        _tell(f"paretune: terminated by SIGTERM. {resume}".rstrip())
        raise typer.Exit(TERMINATED) from None
    except Exception as error:
        # libraries raise kinds of their own where a disk is full
        fault = fault_of(error)
        if fault is not None and (isinstance(error, OSError) or fault.kind == SPACE):
            complain(explain_fault(fault))
            raise typer.Exit(1) from None
        if not isinstance(error, OSError):
            raise
        complain(error)
        of_path = error.filename is not None and error.errno in _PATHS
        raise typer.Exit(2 if of_path else 1) from None


class _Terminated(BaseException):
    """The process was asked to end, by SIGTERM."""


@contextmanager
def _raising_terminated() -> Iterator[None]:
    """Raise `_Terminated` in the work where SIGTERM comes, as Ctrl-C raises KeyboardInterrupt."""

    def terminate(*_: object) -> None:
        raise _Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def complain(what: object) -> None:
    """Print an error as one line on standard error."""
    _tell(f"paretune: error: {hidden(one_line(what, LONGEST))}")


def note(what: object) -> None:
    """Print a word of advice as one line on standard error."""
    _tell(f"paretune: {hidden(one_line(what, LONGEST))}")


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody is left to be told
        print(text, file=sys.stderr, flush=True)


def console() -> Console:
    """Return a console on standard output; a file gets wide lines.

    What users named (models, classes, files) is printed as it is: brackets are no markup.
    """
    shown = Console(markup=False, emoji=False)
    return shown if shown.is_terminal else Console(markup=False, emoji=False, width=200)


def show(*parts: RenderableType, saved: object = "", last: str = "") -> None:
    """Print results on standard output, each on lines of its own.

    Args:
        parts: Texts and tables.
        saved: Where they are on disk too.
        last: The last line: which files were made.

    Raises:
        SystemExit: See `delivering`.
    """
    out = console()
    with delivering(saved):
        for part in parts:
            out.print(part)
        if last:
            out.print(last, highlight=False, soft_wrap=True)


@contextmanager
def delivering(saved: object = "") -> Iterator[None]:
    """Report in one line that standard output cannot be written to (a full disk, say).

    Args:
        saved: Where the results are on disk.

    Raises:
        SystemExit: It does not, with code 1.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise  # of a file, not of the output
        redirect = "Redirect it to a file on a disk with free space."
        remedy = f"The work is done: see '{saved}'." if saved else redirect
        complain(f"Standard output must take what is printed ({error.strerror}). {remedy}")
        # what is left in its buffer would be written, and fail again, when Python ends
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, sys.stdout.fileno())
            os.close(sink)
        raise SystemExit(1) from None


def written(paths: Iterable[Path]) -> str:
    """Return "written: a.json, b.csv" of the files that there are; empty for none."""
    names = ", ".join(line(path) for path in paths if path.exists())
    return f"written: {names}" if names else ""


def outcome(report: Report) -> str:
    """Return the place of a run's report, and its file to ship, in one line.

    Validation data choose, as `compress.measure.verdict` says. Of a search alone it is the
    best model of the front, which is not compressed yet.
    """
    from search.report import SearchReport

    page, chosen = f"report: {line(report.folder / 'report.html')}", ""
    if report.rows:
        chosen = _file(report)
    elif isinstance(report, SearchReport):
        chosen = _model(report)
    return f"{page}; {chosen}" if chosen else page


def _file(report: Report) -> str:
    from compress.report.standouts import GOAL, standouts

    found = standouts(report)
    if found.to_ship is None:
        place = line(RunFolder(report.folder).exports)
        return f"ship: a file of your choice in {place} (none is chosen: {found.missing})"
    artifact = found.to_ship.row.artifact
    why = "cheapest that cannot be told apart from the best"
    if found.to_ship.what == GOAL:
        why = "for the goal"
    elif found.to_ship.row is found.best.row:
        why = "the best"
    figure = formats.quality(found.quality, found.to_ship.val)
    ready = next((item.shipped_file for item in report.sections if item.shipped), artifact.file)
    return (
        f"ship: {line(report.folder / ready)} "
        f"(chosen by validation {found.quality}: {figure}, {why})"
    )


def _model(report: SearchReport) -> str:
    from search.study.directory import SearchFolder

    folder, quality = SearchFolder(report.folder), report.objectives[0]
    front = [item for item in report.candidates if item.id in report.front]
    if not front:
        return ""
    if report.validation_learnt:
        return (
            f"models: {line(folder.candidates)} (none is chosen: validation data were trained on)"
        )
    best = max(front, key=lambda item: item.val[quality])
    return (
        f"best model: {line(folder.shipped_file(best.id))} (chosen by validation {quality}: "
        f"{formats.quality(quality, best.val[quality])}); `paretune compress` makes files to ship"
    )


class _ConsoleLog(logging.Handler):
    """A log handler that prints above the progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line as it is; one that cannot be printed stands in log.txt."""
        with contextlib.suppress(OSError):
            self._console.print(Text(line(record.getMessage())), soft_wrap=True)


class TimeLeft(ProgressColumn):
    """The time left by what was done so far, or nothing while nothing is known of it."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return "0:01:30 left"."""
        seconds = self.seconds(task)
        if seconds is None:
            return Text("")
        return Text(f"{timedelta(seconds=round(seconds))} left", style="progress.remaining")

    @staticmethod
    def seconds(task: Task) -> float | None:
        """Return the estimate in seconds; None where there is none.

        What came in one piece (a finished job of several) says how long the next piece takes: the
        estimate counts down from when it came, and ends when the next one is late.
        """
        made = task.completed - task.fields.get("begun", 0.0)
        if task.elapsed is None or task.total is None or made <= 0 or task.remaining is None:
            return None
        told = task.fields.get("told", task.elapsed)
        left = told * task.remaining / made - (task.elapsed - told)
        return left if left >= 0.5 else None


class RichDisplay(Display):
    """Progress bars: one for the phase, one a worker; of many workers the first ones."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._main: TaskID | None = None
        self._workers: dict[int, TaskID] = {}
        self._shares: dict[int, float] = {}
        self._done = 0
        self._steps = False

    def phase(self, title: str, done: int, total: int, *, steps: bool = False) -> None:
        """Begin a phase; see `search.engines.Display`."""
        for task in (*self._workers.values(), *([] if self._main is None else [self._main])):
            self._progress.remove_task(task)
        self._workers, self._shares, self._done, self._steps = {}, {}, done, steps
        # what an earlier start finished tells nothing of this one's speed
        self._main = self._progress.add_task(line(title), total=total, completed=done, begun=done)

    def advance(self, done: int, total: int) -> None:
        """Show how many jobs are finished."""
        self._done = done
        self._refresh()

    def worker(self, index: int, text: str, share: float) -> None:
        """Show a worker's activity."""
        if index not in self._workers and len(self._workers) < MOST_SHOWN:
            self._workers[index] = self._progress.add_task("", total=1.0)
        task = self._workers.get(index)
        if task is not None:
            if share < self._shares.get(index, 0.0):
                self._progress.reset(task)  # the next step or job, with a time of its own
            self._progress.update(task, description=f"  {line(text)}")
            self._tell(task, share)
        self._shares[index] = share if text else 0.0
        self._refresh()

    def _refresh(self) -> None:
        """Count jobs in hand by their share where that is known."""
        if self._main is not None:
            in_hand = 0.0 if self._steps else sum(self._shares.values())
            self._tell(self._main, self._done + in_hand)

    def _tell(self, task: TaskID, completed: float) -> None:
        """Move a bar, and note the time."""
        (bar,) = (item for item in self._progress.tasks if item.id == task)
        if bar.completed != completed:
            self._progress.update(task, completed=completed, told=bar.elapsed or 0.0)


@contextmanager
def display() -> Iterator[RichDisplay]:
    """Show progress and log lines on standard error while the context lasts."""
    # a descriptor of our own: libraries' chatter on 2 is captured now and then
    with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace") as stream:
        console = Console(file=stream, markup=False, emoji=False)
        handler = _ConsoleLog(console)
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        # libraries give the root logger a handler of their own, which would print each line again
        LOG.propagate = False
        columns = (
            # a name in it is no markup
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeLeft(),
        )
        try:
            with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
                yield RichDisplay(progress)
        finally:
            LOG.removeHandler(handler)
            LOG.propagate = True
