"""Runtimes: what one is to the timing loop, and those that `compress.core.plugins` names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.plugins import RUNTIMES

__all__ = [
    "RUNTIMES",
    "Runtime",
    "Session",
    "TensorInfo",
    "runtime_for",
    "runtimes",
    "session_for",
    "suffixes",
]


def runtimes() -> tuple[Runtime, ...]:
    """Returns all runtimes, those that are not installed too."""
    return tuple(RUNTIMES[name] for name in RUNTIMES)


def suffixes() -> tuple[str, ...]:
    """Returns the suffixes of all files that some runtime runs."""
    return tuple(dict.fromkeys(suffix for runtime in runtimes() for suffix in runtime.suffixes))


def runtime_for(path: Path) -> Runtime:
    """Returns the first runtime that runs files of this suffix.

    Raises:
        InputError: None does.
    """
    for runtime in runtimes():
        if path.suffix in runtime.suffixes:
            return runtime
    raise InputError(f"A model file must end in {', '.join(suffixes())}. Received: '{path}'.")


def session_for(path: Path, threads: int = 1) -> Session:
    """Prepares a file with the first runtime that runs files of its suffix.

    Raises:
        InputError: There is none, or it cannot run the file.
        MissingDependency: It is not installed.
    """
    return runtime_for(path).prepare(path, threads)


def timed_here(invoke: Callable[[], None], count: int) -> list[float]:
    """Times `count` calls one by one; what sessions in this process do."""
    clock = time.perf_counter
    seconds = []
    for _ in range(count):
        began = clock()
        invoke()
        seconds.append(clock() - began)
    return seconds


@dataclass(frozen=True)
class TensorInfo:
    """What a file takes or gives: one of its inputs or outputs.

    Attributes:
        name: As the file calls it.
        shape: The batch axis included.
        dtype: NumPy's name of the type.
        scale: Of quantized numbers: real = scale * (integer - zero_point); 0: it is none.
        zero_point: See `scale`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    scale: float = 0.0
    zero_point: int = 0

    @property
    def indices(self) -> bool:
        """Whether it holds whole numbers as they are: indices, not quantized numbers."""
        return np.dtype(self.dtype).kind in "iub" and not self.scale

    def stored(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns real numbers as the file takes them: round(x / scale) + zero_point, clipped."""
        if not self.scale:
            return np.ascontiguousarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        levels = np.round(values / self.scale) + self.zero_point
        return np.ascontiguousarray(np.clip(levels, limits.min, limits.max), self.dtype)

    def real(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Returns what a file gives as real numbers."""
        if not self.scale:
            return np.asarray(stored, np.float32)
        return np.asarray((stored.astype(np.float32) - self.zero_point) * self.scale, np.float32)

    def to_json(self) -> dict[str, Any]:
        """Returns what whoever feeds the file must know of it."""
        if not self.scale:
            return {"dtype": self.dtype}
        return {"dtype": self.dtype, "scale": self.scale, "zero_point": self.zero_point}


class Session(Protocol):
    """One prepared instance of a model file."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What it takes, in the order of the model's inputs."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What it gives, in the order of the model's outputs."""
        ...

    def set_inputs(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Copies a batch in, one array of real numbers an input; see `TensorInfo.stored`."""
        ...

    def invoke(self) -> None:
        """Runs one inference; this alone is timed."""
        ...

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        ...

    def results(self) -> list[npt.NDArray[np.float32]]:
        """Returns one array of real numbers an output; see `TensorInfo.real`."""
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
        library: The module that it imports to run files.
    """

    name: str
    suffixes: tuple[str, ...]
    formats: tuple[str, ...]
    maker: str
    exported: tuple[str, ...]
    converter: str
    library: str

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
