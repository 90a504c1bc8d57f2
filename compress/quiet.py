"""Keeps what C++ libraries write out of the user's terminal."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Redirects the process's standard error to a file while the context lasts.

    TFLite's converter and interpreter write from C++, past Python's `sys.stderr`, so
    the file descriptor itself is redirected. Python warnings are ignored meanwhile:
    the converter's are about its own defaults.

    Yields:
        A function that returns what was written so far.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile(mode="w+b") as sink:
        os.dup2(sink.fileno(), 2)

        def written() -> str:
            sink.seek(0)
            return sink.read().decode("utf-8", errors="replace")

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield written
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextmanager
def silenced_stdout() -> Iterator[None]:
    """Drops what C and C++ code writes to standard output while the context lasts.

    The C library's buffers are flushed on both sides, so that nothing shows up later.
    """
    library = ctypes.CDLL(None)
    sys.stdout.flush()
    library.fflush(None)
    saved = os.dup(1)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        yield
    finally:
        library.fflush(None)
        os.dup2(saved, 1)
        os.close(saved)
        os.close(sink)
