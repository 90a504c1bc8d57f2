"""Runtimes of model files: base classes, and those registered in `compress.plugins`."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency
from compress.plugins import RUNTIMES

__all__ = [
    "RUNTIMES",
    "Runtime",
    "Session",
    "TensorInfo",
    "runtimes",
    "session_for",
    "suffixes",
]


def runtimes() -> tuple[Runtime, ...]:
    """Return all runtimes, those that are not installed too."""
    return tuple(RUNTIMES[name] for name in RUNTIMES)


def suffixes() -> tuple[str, ...]:
    """Return the suffixes of all files that some runtime runs."""
    return tuple(dict.fromkeys(suffix for runtime in runtimes() for suffix in runtime.suffixes))


def session_for(path: Path, threads: int = 1) -> Session:
    """Prepare a file with the first runtime that runs files of its suffix.

    Raises:
        InputError: There is none, or it cannot run the file.
        MissingDependency: It is not installed.
    """
    for runtime in runtimes():
        if path.suffix in runtime.suffixes:
            return runtime.prepare(path, threads)
    raise InputError(f"A model file must end in {', '.join(suffixes())}. Received: '{path}'.")


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
        """Return real numbers as the file takes them: round(x / scale) + zero_point, clipped."""
        if not self.scale:
            return np.ascontiguousarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        levels = np.round(values / self.scale) + self.zero_point
        return np.ascontiguousarray(np.clip(levels, limits.min, limits.max), self.dtype)

    def real(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return an output of a file as real numbers."""
        if not self.scale:
            return np.asarray(stored, np.float32)
        return np.asarray((stored.astype(np.float32) - self.zero_point) * self.scale, np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the type, scale and zero point, as a file's reader needs them."""
        if not self.scale:
            return {"dtype": self.dtype}
        return {"dtype": self.dtype, "scale": self.scale, "zero_point": self.zero_point}


class Session:
    """One prepared instance of a model file.

    A subclass sets `inputs` and `outputs`, puts one array in and gets one out (`_put`, `_get`), and
    runs (`invoke`).

    Attributes:
        inputs: What it takes, in the order of the model's inputs.
        outputs: What it gives, in the order of the model's outputs.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def set_inputs(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Copy a batch in, one array of real numbers an input; see `TensorInfo.stored`."""
        for place, (info, value) in enumerate(zip(self.inputs, values, strict=True)):
            self._put(place, info.stored(value))

    def invoke(self) -> None:
        """Run one inference; this alone is timed."""
        raise NotImplementedError

    def timed(self, count: int) -> list[float]:
        """Run `count` inferences and return the seconds of each."""
        clock = time.perf_counter
        seconds = []
        for _ in range(count):
            began = clock()
            self.invoke()
            seconds.append(clock() - began)
        return seconds

    def results(self) -> list[npt.NDArray[np.float32]]:
        """Return one array of real numbers an output; see `TensorInfo.real`."""
        return [info.real(self._get(place)) for place, info in enumerate(self.outputs)]

    def _put(self, place: int, values: npt.NDArray[Any]) -> None:
        raise NotImplementedError

    def _get(self, place: int) -> Any:
        raise NotImplementedError


@dataclass(eq=False)
class Runtime:
    """A way to run model files; timing stays in measure/latency.py.

    Attributes:
        name: As users type it.
        text: Name as reports show it, with "{}" for the version.
        package: The distribution whose version that is.
        install: What users read where it is missing.
        library: The module that it imports to run files.
        prepare: Loads a file anew for a number of CPU threads; where it cannot be run or the
            runtime is not installed, it says so by `InputError` or `MissingDependency`.
        suffixes: Of the files that it runs; its own kind first.
        formats: Formats in which `bench` gives it a Keras model.
        maker: Place of `make(traced, format, stem, inputs) -> path`, which writes such a file.
        exported: Formats of exported files that a run times with it; (): none.
        converter: Place of `convert(source, path)`, which turns an exported file into its own
            kind; empty: it runs the file as it is.
    """

    name: str
    text: str
    package: str
    install: str
    library: str
    prepare: Callable[[Path, int], Session]
    suffixes: tuple[str, ...]
    formats: tuple[str, ...]
    maker: str
    exported: tuple[str, ...] = ()
    converter: str = ""

    def describe(self) -> str:
        """Return name and version, as reports show it.

        Raises:
            MissingDependency: The runtime is not installed.
        """
        try:
            return self.text.format(metadata.version(self.package))
        except metadata.PackageNotFoundError:
            raise MissingDependency(self.install) from None

    def load_library(self) -> Any:
        """Import the runtime's library.

        Raises:
            MissingDependency: It is not installed.
        """
        try:
            return importlib.import_module(self.library)
        except ImportError:
            raise MissingDependency(self.install) from None
