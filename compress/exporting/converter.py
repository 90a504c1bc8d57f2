"""Converter process: each conversion runs in a fork of it, which is replaced after a crash.

It is started as `python -m compress.exporting.converter` or forked from the main process. It
imports TensorFlow but never uses it, because only then can its forks use TensorFlow. The output of
a conversion goes to a file, and its last line is shown after a crash.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import tempfile
from typing import IO, Any

from compress.core import linux
from compress.core.errors import MissingDependency
from compress.core.faults import SPACE, find_fault
from compress.core.processes import (
    ServerProcess,
    describe_exit,
    read_last_line,
    receive_object,
    run_in_fork,
    send_object,
    start_serving,
)
from compress.exporting import conversions
from compress.exporting.conversions import ConversionFailed
from compress.plugins import STEPS

IDLE_SECONDS = 600.0
"""Idle time after which the process ends, to free its memory."""
LONGEST = 20_000
"""Maximum length of a converter's error message, in characters."""
CONVERSIONS = 20
"""Conversions per fork; then a fresh fork takes over, because TensorFlow does not free memory."""
_RENEW = 75
"""Exit status of a fork that a fresh one replaces."""


def serve(questions: int, answers: int) -> None:
    """Answer requests (step, arguments) with None or the error, until the requests end.

    Args:
        questions: File descriptor of the requests; it is closed when the client process ends.
        answers: File descriptor of the answers.
    """
    import tensorflow  # noqa: F401 - imported once, before the forks

    with tempfile.TemporaryFile() as output_file, mmap.mmap(-1, 1) as busy:
        code = _RENEW
        while code:
            code = run_in_fork(
                lambda: _answer_questions(questions, answers, output_file, busy), questions
            )
            if busy[0]:
                busy[0] = 0
                last_words = read_last_line(output_file)
                reason = describe_exit(code) + (
                    f"; its last words: {last_words}" if last_words else ""
                )
                send_object(answers, ConversionFailed("crashed on", reason))


def _answer_questions(questions: int, answers: int, output_file: IO[bytes], busy: mmap.mmap) -> int:
    """Answer up to `CONVERSIONS` requests and return `_RENEW`, or 0 at the end of the requests.

    Args:
        questions, answers: See `serve`.
        output_file: File for the output of conversions.
        busy: One shared byte: 1 while a request is being answered.
    """
    # crashes are reported to the client, so Python's traceback dump and core files are not needed
    faulthandler.disable()
    linux.disable_core_dumps()
    os.dup2(output_file.fileno(), 1)
    os.dup2(output_file.fileno(), 2)
    for _ in range(CONVERSIONS):
        try:
            step, arguments = receive_object(questions, IDLE_SECONDS)
        except (EOFError, TimeoutError):
            return 0
        output_file.seek(0)
        output_file.truncate()
        busy[0] = 1
        answer = _run_step(step, arguments, output_file)
        busy[0] = 0
        send_object(answers, answer)
    return _RENEW


def _run_step(step: str, arguments: dict[str, Any], output_file: IO[bytes]) -> Exception | None:
    """Run a conversion step; return None, or the error that the client receives."""
    try:
        STEPS[step](**arguments)
    except MissingDependency as error:
        return MissingDependency(str(error))
    except Exception as error:  # converters raise many types, some without a message
        fault = find_fault(error)
        if fault is not None and fault.kind == SPACE:
            return OSError(str(error))  # not caused by the converter or the model
        reason = str(error).strip() or read_last_line(output_file) or repr(error)
        return ConversionFailed("refused", reason[:LONGEST])
    return None


def fork_converter() -> None:
    """Fork the converter process from this process, which must only have imported TensorFlow.

    This saves the seconds of another import. Call it before TensorFlow is used, while no other
    thread is running.
    """
    conversions.CLIENT.keep(ServerProcess.start_fork(serve))


def main() -> None:
    """Run the converter process."""
    serve(*start_serving())


if __name__ == "__main__":
    main()
