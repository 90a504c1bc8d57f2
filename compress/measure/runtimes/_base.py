"""What a runtime is to the timing loop: prepares a file, takes an input, runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt


def timed_here(invoke: Callable[[], None], count: int) -> list[float]:
    """Times `count` calls one by one; what sessions in this process do."""
    clock = time.perf_counter
    seconds = []
    for _ in range(count):
        began = clock()
        invoke()
        seconds.append(clock() - began)
    return seconds


class Session(Protocol):
    """One prepared instance of a model file."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the input, batch axis included."""
        ...

    def set_input(self, x: npt.NDArray[np.float32]) -> None:
        """Copies a batch in, quantizing where the file wants integers."""
        ...

    def invoke(self) -> None:
        """Runs one inference; this alone is timed."""
        ...

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        ...

    def output(self) -> npt.NDArray[np.float32]:
        """Returns the output as real numbers (integers are dequantized)."""
        ...


class Runtime(Protocol):
    """A way to run model files; timing stays in measure/latency.py.

    Attributes:
        name: As users type it.
        suffixes: Of the files that it runs; its own kind first.
        formats: Formats in which `bench` gives it a Keras model.
        maker: Place of `make(traced, format, stem, inputs) -> path`, which writes such a file.
        exported: Formats of exported files that a run times with it; (): none.
        converter: Place of `convert(source, path)`, which turns an exported file into its own
            kind; empty: it runs the file as it is.
    """

    name: str
    suffixes: tuple[str, ...]
    formats: tuple[str, ...]
    maker: str
    exported: tuple[str, ...]
    converter: str

    def describe(self) -> str:
        """Returns name and version, as reports show it."""
        ...

    def prepare(self, path: Path, threads: int) -> Session:
        """Loads a file anew for `threads` CPU threads.

        Raises:
            InputError: The file cannot be run.
            MissingDependency: The runtime is not installed.
        """
        ...
