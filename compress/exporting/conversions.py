"""Conversions run in a child process: a converter that crashes or hangs costs its file alone.

A process that has imported TensorFlow once, and never uses it, forks for each conversion
(`compress.exporting.converter`). It is started at the first conversion, or forked from this
process where TensorFlow has not begun to work here (`converter.fork_ahead`), and ends with it.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

from compress.core.errors import MissingDependency
from compress.core.processes import ProcessEnded, ProcessOverdue, Server

HANG_SECONDS = 3600.0
"""A conversion that takes longer hangs: large networks calibrated on 200 images take minutes."""
DONE, MISSING, REFUSED, CRASHED = "done", "missing", "refused", "crashed"
NO_SPACE = "no space"
"""The disk is full, say: no fault of the converter or the model."""


class ConversionFailed(Exception):
    """No file was made.

    Attributes:
        verb: What the converter did: "refused", "crashed on" or "hung on".
        reason: Its own words, or how it ended.
    """

    def __init__(self, verb: str, reason: str) -> None:
        super().__init__(verb, reason)
        self.verb, self.reason = verb, reason


class _Converter:
    """The process that converts for this one, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._owner = 0

    def ask(self, step: str, given: dict[str, Any]) -> tuple[str, str]:
        """Returns the answer of `compress.exporting.converter`."""
        with self._lock:
            if self._server is not None and self._owner == os.getpid():
                try:
                    return self._answer(self._server, step, given)
                except ProcessEnded:
                    pass  # idle for long, or killed: a conversion's own end is an answer
            quiet = {
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "-1",
            }
            self.keep(Server.started("compress.exporting.converter", environment=quiet))
            assert self._server is not None
            return self._answer(self._server, step, given)

    @staticmethod
    def _answer(server: Server, step: str, given: dict[str, Any]) -> tuple[str, str]:
        kind, text = server.ask(step, given, seconds=HANG_SECONDS)
        return str(kind), str(text)

    def keep(self, server: Server) -> None:
        """Takes a process for this one's conversions."""
        self.close()
        self._server, self._owner = server, os.getpid()

    def close(self) -> None:
        """Ends the process; one that a fork has inherited is its parent's to end."""
        if self._server is not None and self._owner == os.getpid():
            self._server.close()
        self._server = None


_CONVERTER = _Converter()
atexit.register(_CONVERTER.close)


def convert(step: str, **given: Any) -> None:
    """Runs a step of `compress.exporting.converter.STEPS` in a process of its own.

    Args:
        step: Its name.
        given: Its arguments: paths, texts and numbers.

    Raises:
        ConversionFailed: The converter refused, crashed or hung.
        MissingDependency: The step needs a package that is not installed.
        OSError: The machine has no space left, or no more files.
    """
    try:
        answer, text = _CONVERTER.ask(step, given)
    except ProcessOverdue:
        raise hung() from None
    except ProcessEnded as error:
        raise ConversionFailed("crashed on", str(error)) from None
    if answer == MISSING:
        raise MissingDependency(text)
    if answer == NO_SPACE:
        raise OSError(text)
    if answer in (REFUSED, CRASHED):
        raise ConversionFailed("refused" if answer == REFUSED else "crashed on", text)


def hung() -> ConversionFailed:
    """Returns the error of a conversion that was stopped."""
    return ConversionFailed("hung on", f"it did not end within {HANG_SECONDS:g} s and was stopped")


def use(server: Server) -> None:
    """Takes a process, of `converter.serve`, for the conversions of this one."""
    _CONVERTER.keep(server)
