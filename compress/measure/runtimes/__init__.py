"""Base classes of the runtimes that run model files; `compress.plugins` registers runtimes."""

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
    "list_runtimes",
    "prepare_session",
    "list_suffixes",
]


def list_runtimes() -> tuple[Runtime, ...]:
    """Return all runtimes, including those that are not installed."""
    return tuple(RUNTIMES[name] for name in RUNTIMES)


def list_suffixes() -> tuple[str, ...]:
    """Return the file suffixes of all runtimes."""
    return tuple(
        dict.fromkeys(suffix for runtime in list_runtimes() for suffix in runtime.suffixes)
    )


def prepare_session(path: Path, threads: int = 1) -> Session:
    """Prepare a file with the first runtime that supports its suffix.

    Args:
        path: A model file.
        threads: Number of CPU threads.

    Raises:
        InputError: No runtime supports the suffix, or the file cannot be run.
        MissingDependency: The runtime is not installed.
    """
    for runtime in list_runtimes():
        if path.suffix in runtime.suffixes:
            return runtime.prepare(path, threads)
    raise InputError(f"A model file must end in {', '.join(list_suffixes())}. Received: '{path}'.")


@dataclass(frozen=True)
class TensorInfo:
    """Description of one input or output of a model file.

    Attributes:
        name: Name in the file.
        shape: Shape with the batch axis.
        dtype: NumPy dtype name.
        scale: Scale of quantized numbers: real = scale * (integer - zero_point). 0: not quantized.
        zero_point: See `scale`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    scale: float = 0.0
    zero_point: int = 0

    @property
    def has_indices(self) -> bool:
        """Whether the tensor holds plain integers (indices), not quantized numbers."""
        return np.dtype(self.dtype).kind in "iub" and not self.scale

    def quantize(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return real numbers in the dtype of the file: round(x / scale) + zero_point, clipped."""
        if not self.scale:
            return np.ascontiguousarray(values, self.dtype)
        limits = np.iinfo(self.dtype)
        levels = np.round(values / self.scale) + self.zero_point
        return np.ascontiguousarray(np.clip(levels, limits.min, limits.max), self.dtype)

    def dequantize(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return an output of the file as real numbers."""
        if not self.scale:
            return np.asarray(stored, np.float32)
        return np.asarray((stored.astype(np.float32) - self.zero_point) * self.scale, np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the dtype, scale and zero point, for users of the file."""
        if not self.scale:
            return {"dtype": self.dtype}
        return {"dtype": self.dtype, "scale": self.scale, "zero_point": self.zero_point}


class Session:
    """One prepared instance of a model file.

    A subclass sets `inputs` and `outputs` and implements `_put` (copy one array in), `_get` (copy
    one array out) and `invoke` (run).

    Attributes:
        inputs: Inputs of the file, in the model's order.
        outputs: Outputs of the file, in the model's order.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def set_inputs(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Copy a batch in: one array of real numbers per input, see `TensorInfo.quantize`."""
        for index, (info, value) in enumerate(zip(self.inputs, values, strict=True)):
            self._put(index, info.quantize(value))

    def invoke(self) -> None:
        """Run one inference; only this method is timed."""
        raise NotImplementedError

    def time_runs(self, count: int) -> list[float]:
        """Run `count` inferences and return the seconds of each."""
        clock = time.perf_counter
        seconds = []
        for _ in range(count):
            start = clock()
            self.invoke()
            seconds.append(clock() - start)
        return seconds

    def results(self) -> list[npt.NDArray[np.float32]]:
        """Return one array of real numbers per output, see `TensorInfo.dequantize`."""
        return [info.dequantize(self._get(index)) for index, info in enumerate(self.outputs)]

    def _put(self, index: int, values: npt.NDArray[Any]) -> None:
        raise NotImplementedError

    def _get(self, index: int) -> Any:
        raise NotImplementedError


@dataclass(eq=False)
class Runtime:
    """A runtime for model files; `compress.measure.latency` does the timing.

    Attributes:
        name: Name in options and plans.
        text: Display name in reports, with "{}" for the version.
        package: Distribution whose version is shown.
        install: Error message if the runtime is missing.
        library: Module that is imported to run files.
        prepare: Function (path, CPU threads) -> new session. Raises `InputError` if the file cannot
            be run and `MissingDependency` if the runtime is not installed.
        suffixes: Suffixes of the files that it runs, its native format first.
        formats: Formats into which `bench` converts a Keras model for this runtime.
        maker: Import path of `make(traced, format, stem, inputs) -> path`, which writes such a
            file.
        exported: Formats of exported files that a run times with this runtime; (): none.
        converter: Import path of `convert(source, path)`, which converts an exported file to the
            native format; empty: exported files run as they are.
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
        """Return name and version for reports.

        Raises:
            MissingDependency: The runtime is not installed.
        """
        try:
            return self.text.format(metadata.version(self.package))
        except metadata.PackageNotFoundError:
            raise MissingDependency(self.install) from None

    def load_library(self) -> Any:
        """Import and return the runtime's library.

        Raises:
            MissingDependency: The library is not installed.
        """
        try:
            return importlib.import_module(self.library)
        except ImportError:
            raise MissingDependency(self.install) from None
