"""Suppression of terminal output from C++ libraries."""

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
def capture_stderr() -> Iterator[Callable[[], str]]:
    """Redirect the process's standard error to a file within the context.

    TFLite's converter and interpreter write from C++, past Python's `sys.stderr`, so the file
    descriptor itself is redirected. Python warnings are ignored too, because those of the converter
    are about its own defaults.

    Yields:
        A function that returns the text written so far.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink, _redirect(2, sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")

        def read_written() -> str:
            sink.seek(0)
            return sink.read().decode("utf-8", errors="replace")

        yield read_written


@contextmanager
def silence_stdout() -> Iterator[None]:
    """Discard the standard output of C and C++ code within the context.

    The buffers of the C library are flushed before and after, so that nothing appears later.
    """
    sys.stdout.flush()
    linux.flush_c_buffers()
    with open(os.devnull, "wb") as sink, _redirect(1, sink):
        try:
            yield
        finally:
            linux.flush_c_buffers()


@contextmanager
def _redirect(descriptor: int, sink: IO[bytes]) -> Iterator[None]:
    saved = os.dup(descriptor)
    os.dup2(sink.fileno(), descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


@contextmanager
def silence_logger(name: str) -> Iterator[None]:
    """Restrict a library's logger to errors within the context."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def silence_tensorflow_import() -> None:
    """Suppress TensorFlow's messages about itself.

    TensorFlow writes about its build during its import, before any log level applies. It also warns
    about many traces, which are intended here. This function does not import TensorFlow but
    prepares its later import. If that fails, its messages are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "tensorflow" not in sys.modules and not any(
        type(f) is _SilencedImport for f in sys.meta_path
    ):
        sys.meta_path.insert(0, _SilencedImport())


class _SilencedImport(MetaPathFinder):
    """Import hook that loads TensorFlow with standard error redirected."""

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find TensorFlow like Python, once; see `MetaPathFinder`."""
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader = spec.loader
            execute = loader.exec_module

            def execute_silently(module: ModuleType) -> None:
                output = ""
                try:
                    with capture_stderr() as written:
                        try:
                            execute(module)
                        except BaseException:
                            output = written()
                            raise
                finally:
                    sys.stderr.write(output)

            loader.exec_module = execute_silently  # type: ignore[method-assign]
        return spec
