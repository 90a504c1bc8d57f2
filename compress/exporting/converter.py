"""The process that converts: a fork of it does the work, and is replaced when it crashes.

Started as `python -m compress.exporting.converter`, or forked ahead. It imports TensorFlow and
never uses it: only then may its forks do so. What a conversion writes goes to a file, whose last
line is shown when it crashes.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import select
import signal
import tempfile
from collections.abc import Callable
from typing import IO, Any

from compress.core.errors import MissingDependency
from compress.core.plugins import STEPS
from compress.core.processes import (
    Server,
    fork,
    how_it_ended,
    last_line,
    receive,
    send,
    serving,
)
from compress.exporting.conversions import CRASHED, DONE, MISSING, REFUSED, use

IDLE_SECONDS = 600.0
"""Without a question for so long it ends, and gives its memory back."""
LONGEST = 20_000
"""Characters of a converter's reason that are handed on."""
CONVERSIONS = 20
"""After so many a fresh fork goes on: TensorFlow gives no memory back."""
_RENEW = 75


def serve(questions: int, answers: int) -> None:
    """Answers (step, arguments) with (DONE, MISSING, REFUSED or CRASHED, text) until told to end.

    Args:
        questions: Where they come from; its end is the asking process's end.
        answers: Where answers go.
    """
    import tensorflow  # noqa: F401 - before the forks, not in each

    with tempfile.TemporaryFile() as said, mmap.mmap(-1, 1) as busy:
        code = _RENEW
        while code:
            code = _fork(lambda: _answer(questions, answers, said, busy), questions)
            if busy[0]:
                busy[0] = 0
                words = last_line(said)
                how = how_it_ended(code) + (f"; its last words: {words}" if words else "")
                send(answers, (CRASHED, how))


def _fork(work: Callable[[], int], questions: int) -> int:
    """Runs `work` in a fork and returns its exit status; 0 where whoever asks has ended too."""
    alive, life = os.pipe()
    child = fork()
    if child == 0:
        code = 1
        try:
            # a crash is reported; a dump by Python or a core file helps nobody
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code = work()
        finally:
            # no exit handlers: they belong to the process that was forked
            os._exit(code)
    os.close(life)
    # both pipes tell of their other ends alone: questions are for the fork to read
    ends = select.poll()
    ends.register(alive, 0)
    ends.register(questions, 0)
    ended = [number for number, _ in ends.poll()]
    os.close(alive)
    if alive not in ended:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if alive in ended else 0


def _answer(questions: int, answers: int, said: IO[bytes], busy: mmap.mmap) -> int:
    """Answers questions in a fork; returns its exit status.

    Args:
        questions, answers: See `serve`.
        said: Takes what a conversion writes.
        busy: Its byte says whether a question is being answered.
    """
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    for _ in range(CONVERSIONS):
        ready, _, _ = select.select([questions], [], [], IDLE_SECONDS)
        if not ready:
            return 0
        try:
            step, given = receive(questions)
        except EOFError:
            return 0
        said.seek(0)
        said.truncate()
        busy[0] = 1
        answer = _run(step, given, said)
        busy[0] = 0
        send(answers, answer)
    return _RENEW


def _run(step: str, given: dict[str, Any], said: IO[bytes]) -> tuple[str, str]:
    try:
        STEPS[step](**given)
    except MissingDependency as error:
        return MISSING, str(error)
    except Exception as error:  # converters raise many kinds, bare ones from C++ among them
        reason = str(error).strip() or last_line(said) or repr(error)
        return REFUSED, reason[:LONGEST]
    return DONE, ""


def fork_ahead() -> None:
    """Makes the process for conversions a fork of this one, which has only imported TensorFlow.

    To be called while TensorFlow has not begun to work and no other thread runs; it spares the
    seconds that another import takes.
    """
    use(Server.forked(serve))


def main() -> None:
    """Runs the process."""
    questions, answers = serving()
    serve(questions, answers)


if __name__ == "__main__":
    main()
