"""Keeps what C++ libraries write out of the user's terminal."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import IO

from compress.core import linux


@contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Redirect the process's standard error to a file while the context lasts.

    TFLite's converter and interpreter write from C++, past Python's `sys.stderr`, so
    the file descriptor itself is redirected. Python warnings are ignored meanwhile:
    the converter's are about its own defaults.

    Yields:
        A function that returns what was written so far.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink, _redirected(2, sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def written() -> str:
            sink.seek(0)
            return sink.read().decode("utf-8", errors="replace")

        yield written


@contextmanager
def silenced_stdout() -> Iterator[None]:
    """Drop what C and C++ code writes to standard output while the context lasts.

    The C library's buffers are flushed on both sides, so that nothing shows up later.
    """
    sys.stdout.flush()
    linux.flush_c()
    with open(os.devnull, "wb") as sink, _redirected(1, sink):
        try:
            yield
        finally:
            linux.flush_c()


@contextmanager
def _redirected(descriptor: int, sink: IO[bytes]) -> Iterator[None]:
    saved = os.dup(descriptor)
    os.dup2(sink.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


@contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Let a library's logger tell of errors alone while the context lasts."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def quiet_tensorflow_here() -> None:
    """Keep what TensorFlow says of itself out of the terminal, in a process that is ours.

    It writes about its build while it is imported, before any log level counts, and it warns of
    many traces when many models are traced, which is what we do. TensorFlow is not imported by
    this: its import is caught, whenever it comes. Where that fails, what was written is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules and not any(type(f) is _Catch for f in sys.meta_path):
        sys.meta_path.insert(0, _Catch())


class _Catch(MetaPathFinder):
    """Lets the import of TensorFlow run with standard error redirected."""

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find TensorFlow as Python does, once; see `MetaPathFinder`."""
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader = spec.loader
            run = loader.exec_module

            def quietly(module: ModuleType) -> None:
                said = ""
                try:
                    with captured_stderr() as written:
                        try:
                            run(module)
                        except BaseException:
                            said = written()
                            raise
                finally:
                    sys.stderr.write(said)

            loader.exec_module = quietly  # type: ignore[method-assign]
        return spec
