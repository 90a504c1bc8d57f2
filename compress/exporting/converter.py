"""Process for conversions: a fork of it does the work, and is replaced when it crashes.

Started as `python -m compress.exporting.converter`, or forked ahead. It imports TensorFlow and
never uses it: only then may its forks do so. What a conversion writes goes to a file, whose
last line is shown when it crashes.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import tempfile
from typing import IO, Any

from compress.core import linux
from compress.core.errors import MissingDependency
from compress.core.faults import SPACE, fault_of
from compress.core.processes import (
    Server,
    how_it_ended,
    last_line,
    receive,
    run_in_fork,
    send,
    serving,
)
from compress.exporting.conversions import ConversionFailed, use
from compress.plugins import STEPS

IDLE_SECONDS = 600.0
"""Without a question for so long it ends, and gives its memory back."""
LONGEST = 20_000
"""Characters of a converter's reason that are handed on."""
CONVERSIONS = 20
"""After so many a fresh fork goes on: TensorFlow gives no memory back."""
_RENEW = 75


def serve(questions: int, answers: int) -> None:
    """Answer (step, arguments) with None, or the error, until told to end.

    Args:
        questions: Where they come from; its end is the asking process's end.
        answers: Where answers go.
    """
    import tensorflow  # noqa: F401 - before the forks, not in each

    with tempfile.TemporaryFile() as said, mmap.mmap(-1, 1) as busy:
        code = _RENEW
        while code:
            code = run_in_fork(lambda: _answer(questions, answers, said, busy), questions)
            if busy[0]:
                busy[0] = 0
                words = last_line(said)
                how = how_it_ended(code) + (f"; its last words: {words}" if words else "")
                send(answers, ConversionFailed("crashed on", how))


def _answer(questions: int, answers: int, said: IO[bytes], busy: mmap.mmap) -> int:
    """Answer some questions; return an exit status.

    Args:
        questions, answers: See `serve`.
        said: Takes what a conversion writes.
        busy: Its byte says whether a question is being answered.
    """
    # a crash is reported; a dump by Python or a core file helps nobody
    faulthandler.disable()
    linux.no_core_file()
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    for _ in range(CONVERSIONS):
        try:
            step, given = receive(questions, IDLE_SECONDS)
        except (EOFError, TimeoutError):
            return 0
        said.seek(0)
        said.truncate()
        busy[0] = 1
        answer = _run(step, given, said)
        busy[0] = 0
        send(answers, answer)
    return _RENEW


def _run(step: str, given: dict[str, Any], said: IO[bytes]) -> Exception | None:
    try:
        STEPS[step](**given)
    except MissingDependency as error:
        return MissingDependency(str(error))
    except Exception as error:  # converters raise many kinds, bare ones from C++ among them
        fault = fault_of(error)
        if fault is not None and fault.kind == SPACE:
            return OSError(str(error))  # no fault of the converter or the model
        reason = str(error).strip() or last_line(said) or repr(error)
        return ConversionFailed("refused", reason[:LONGEST])
    return None


def fork_ahead() -> None:
    """Make the process for conversions a fork of this one, which has only imported TensorFlow.

    To be called while TensorFlow has not begun to work and no other thread runs; it spares the
    seconds that another import takes.
    """
    use(Server.forked(serve))


def main() -> None:
    """Run the process."""
    serve(*serving())


if __name__ == "__main__":
    main()
