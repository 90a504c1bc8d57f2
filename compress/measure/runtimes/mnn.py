"""MNN: the one ordinary CPU runtime whose kernels skip zeros (in 1x1 convolutions, mostly)."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency
from compress.core.native_output import silenced_stdout
from compress.measure.runtimes._base import timed_here

INSTALL = "MNN must be installed to run .mnn files: pip install 'paretune[mnn]'"


class MNN:
    """Runs `.mnn` files, as `compress.exporting.mnn` makes them."""

    name = "mnn"
    suffixes: tuple[str, ...] = (".mnn",)
    formats: tuple[str, ...] = ("float32",)
    maker = "compress.exporting.mnn:file_for"
    exported: tuple[str, ...] = ("float32",)
    converter = "compress.exporting.mnn:export_mnn"

    def describe(self) -> str:
        """Returns name and version."""
        try:
            return f"MNN {metadata.version('MNN')} (CPU, float32)"
        except metadata.PackageNotFoundError:
            raise MissingDependency(INSTALL) from None

    def prepare(self, path: Path, threads: int) -> MNNSession:
        """Loads a `.mnn` file; see `Runtime.prepare`."""
        return MNNSession(path, threads)


RUNTIME = MNN()


class MNNSession:
    """One interpreter with a CPU session.

    Args:
        path: A `.mnn` file with one input and one output.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be read.
        MissingDependency: MNN is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        try:
            with silenced_stdout():
                library = importlib.import_module("MNN")
        except ImportError:
            raise MissingDependency(INSTALL) from None
        if not path.is_file():
            raise InputError(f"MNN must be able to run '{path}' (no such file).")
        self._library: Any = library
        self._interpreter: Any = library.Interpreter(str(path))
        # "high": float32 everywhere, as in the file
        with silenced_stdout():
            self._session: Any = self._interpreter.createSession(
                {"numThread": threads, "backend": "CPU", "precision": "high"}
            )
        self._input: Any = self._interpreter.getSessionInput(self._session)
        self._output: Any = self._interpreter.getSessionOutput(self._session)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The input's shape, batch axis included."""
        return tuple(int(size) for size in self._input.getShape())

    def set_input(self, x: npt.NDArray[np.float32]) -> None:
        """Copies a batch in."""
        self._input.copyFrom(self._host(np.ascontiguousarray(x, np.float32)))

    def invoke(self) -> None:
        """Runs one inference."""
        self._interpreter.runSession(self._session)

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        return timed_here(self.invoke, count)

    def output(self) -> npt.NDArray[np.float32]:
        """Returns the output."""
        shape = tuple(int(size) for size in self._output.getShape())
        host = self._host(np.zeros(shape, np.float32))
        self._output.copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32).reshape(shape)

    def _host(self, array: npt.NDArray[np.float32]) -> Any:
        library = self._library
        return library.Tensor(
            array.shape,
            library.Halide_Type_Float,
            array,
            library.Tensor_DimensionType_Tensorflow,
        )
