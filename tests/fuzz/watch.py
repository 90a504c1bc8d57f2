"""Runs commands in a forked child that is watched: the driver outlives whatever it does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REFUSED, ACCEPTED = "refused", "accepted"
TRACEBACK, CRASH, HANG, MEMORY = "traceback", "crash", "hang", "memory"
HALF, LINES, EXIT_1 = "half-written", "not one line", "exit 1"
GOOD = (REFUSED, ACCEPTED)
MIB = 2**20

Body = Callable[[list[str]], tuple[int, str, BaseException | None]]
"""Does a command: (exit code, standard error, exception that nobody expected)."""


@dataclass(frozen=True)
class Outcome:
    """What came of one input."""

    kind: str
    detail: str = ""
    seconds: float = 0.0


def command(words: list[str]) -> tuple[int, str, BaseException | None]:
    """Runs the command line in this process."""
    from typer.testing import CliRunner

    from search.cli import app

    result = CliRunner().invoke(app, words)
    unexpected = None if isinstance(result.exception, SystemExit) else result.exception
    return result.exit_code, result.stderr, unexpected


def classify(code: int, errors: str, unexpected: BaseException | None) -> tuple[str, str]:
    """Says what a command that came to its end made of its input."""
    if unexpected is not None:
        where = traceback.extract_tb(unexpected.__traceback__)[-1]
        text = " ".join(str(unexpected).split())[:200]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return TRACEBACK, f"{type(unexpected).__name__}: {text} ({place})"
    if code == 0:
        return ACCEPTED, ""
    # advice may stand above the error
    advice = r"\A(paretune: [^\n]*(is read as) [^\n]*\n)+"
    errors = re.sub(advice, "", errors)
    if not (errors.startswith("paretune: error: ") and errors.count("\n") == 1):
        return LINES, errors[:300]
    return (REFUSED, errors.strip()) if code == 2 else (EXIT_1, errors.strip())


def tree(folder: Path) -> set[str]:
    """Returns the paths of everything in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class Watched:
    """A child process that does one command after the other, and is replaced when it must be.

    Args:
        body: Does a command, in the child.
        seconds: For one command; then it hangs.
        growth: Bytes of memory that the child may take beyond what it began with.
        renew: Commands after which it is replaced.
    """

    def __init__(
        self, body: Body = command, *, seconds: float = 60.0, growth: int = 3 * 1024 * MIB,
        renew: int = 150,
    ) -> None:  # fmt: skip
        self._body, self._seconds, self._growth, self._renew = body, seconds, growth, renew
        self._child = 0
        self._done = 0

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, words: list[str], folder: Path) -> Outcome:
        """Runs a command in a folder and says what came of it."""
        if not self._child or self._done >= self._renew:
            self._end()
            self._begin()
        self._done += 1
        before, began = tree(folder), time.monotonic()
        content = json.dumps({"words": words, "folder": str(folder)}).encode() + b"\n"
        os.write(self._to, content)
        kind, detail = self._answer(began)
        if kind not in (ACCEPTED, TRACEBACK, CRASH, HANG, MEMORY):
            new = sorted(tree(folder) - before)
            if new:
                kind, detail = HALF, f"{', '.join(new[:5])} after: {detail}"
        elif kind == ACCEPTED:
            # temporary names of compress.core.atomic_files.replace_file
            left = [name for name in tree(folder) - before if Path(name).name.startswith(".")]
            if left:
                kind, detail = HALF, ", ".join(sorted(left)[:5])
        return Outcome(kind, detail, time.monotonic() - began)

    def _answer(self, began: float) -> tuple[str, str]:
        content = b""
        while not content.endswith(b"\n"):
            ready, _, _ = select.select([self._from], [], [], 0.05)
            if ready:
                part = os.read(self._from, 65536)
                if not part:
                    _, status = os.waitpid(self._child, 0)
                    self._child = 0
                    code = os.waitstatus_to_exitcode(status)
                    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                    return CRASH, how
                content += part
            elif time.monotonic() - began > self._seconds:
                self._end()
                return HANG, f"over {self._seconds:g} s"
            elif resident(self._child) > self._first + self._growth:
                self._end()
                return MEMORY, f"over {self._growth // MIB} MiB more"
        kind, detail = json.loads(content)
        return kind, detail

    def _begin(self) -> None:
        (get, self._to), (self._from, put) = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of libraries' idle threads
            self._child = os.fork()
        if self._child == 0:
            os.close(self._to)
            os.close(self._from)
            try:
                _serve(self._body, get, put)
            finally:
                os._exit(1)
        os.close(get)
        os.close(put)
        self._done, self._first = 0, resident(self._child)

    def _end(self) -> None:
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            os.close(self._to)
            os.close(self._from)
        self._child = 0


def _serve(body: Body, get: int, put: int) -> None:
    """Does what comes in, in the child."""
    os.setpgid(0, 0)
    sink = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # what C++ libraries say of corrupt files
        os.dup2(sink, descriptor)
    warnings.simplefilter("ignore")  # as in a process of the user's they would be printed
    with os.fdopen(get, "r", encoding="utf-8") as stream:
        for line in stream:
            task: dict[str, Any] = json.loads(line)
            os.chdir(task["folder"])
            answer = classify(*body(task["words"]))
            os.write(put, json.dumps(answer).encode() + b"\n")


def resident(process: int) -> int:
    """Returns a process's resident bytes; 0 where it is gone."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
