"""The terminal: progress with the time left, log lines, errors and interruption."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from compress.errors import ParetuneError
from compress.runfolder import LOG

INTERRUPTED = 130


@contextmanager
def reporting_errors(resume: str) -> Iterator[None]:
    """Turns errors into one line and an exit code, and Ctrl-C into a word on how to go on.

    Args:
        resume: Printed after an interruption.
    """
    try:
        yield
    except ParetuneError as error:
        print(f"paretune: error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        print(f"paretune: error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print(f"\nparetune: interrupted. {resume}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


class _ConsoleLog(logging.Handler):
    """Prints log lines above the progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line as it is."""
        self._console.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


class RichDisplay:
    """Progress bars: one for the phase, one a worker."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._main: TaskID | None = None
        self._workers: dict[int, TaskID] = {}
        self._shares: dict[int, float] = {}
        self._done = 0

    def phase(self, title: str, done: int, total: int) -> None:
        """Begins a phase; see `search.jobs.Display`."""
        for task in (*self._workers.values(), *([] if self._main is None else [self._main])):
            self._progress.remove_task(task)
        self._workers, self._shares, self._done = {}, {}, done
        self._main = self._progress.add_task(title, total=total, completed=done)

    def advance(self, done: int, total: int) -> None:
        """Says how many jobs are finished."""
        self._done = done
        self._refresh()

    def worker(self, index: int, text: str, share: float) -> None:
        """Says what a worker does."""
        if index not in self._workers:
            self._workers[index] = self._progress.add_task("", total=1.0)
        self._progress.update(self._workers[index], description=f"  {text}", completed=share)
        self._shares[index] = share if text else 0.0
        self._refresh()

    def _refresh(self) -> None:
        """Counts jobs in hand by their share: the time left would stand still otherwise."""
        if self._main is not None:
            self._progress.update(self._main, completed=self._done + sum(self._shares.values()))


@contextmanager
def display() -> Iterator[RichDisplay]:
    """Shows progress and log lines on standard error while the context lasts."""
    # a descriptor of our own: libraries' chatter on 2 is captured now and then
    with os.fdopen(os.dup(2), "w", encoding="utf-8") as stream:
        console = Console(file=stream)
        handler = _ConsoleLog(console)
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        try:
            with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
                yield RichDisplay(progress)
        finally:
            LOG.removeHandler(handler)
