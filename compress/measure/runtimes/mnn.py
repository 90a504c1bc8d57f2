"""MNN: the one ordinary CPU runtime whose kernels skip zeros (in 1x1 convolutions, mostly)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency
from compress.core.native_output import silenced_stdout
from compress.measure.runtimes import TensorInfo, timed_here

INSTALL = "MNN must be installed to run .mnn files: pip install 'paretune[mnn]'"


class MNN:
    """Runs `.mnn` files, as `compress.exporting.mnn` makes them."""

    name = "mnn"
    suffixes: tuple[str, ...] = (".mnn",)
    formats: tuple[str, ...] = ("float32",)
    maker = "compress.exporting.mnn:file_for"
    exported: tuple[str, ...] = ("float32",)
    converter = "compress.exporting.mnn:export_mnn"
    library = "MNN"

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
        path: A `.mnn` file, of real numbers.
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
        self._taken = sorted(self._interpreter.getSessionInputAll(self._session).items())
        self._given = sorted(self._interpreter.getSessionOutputAll(self._session).items())

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What it takes."""
        return tuple(_info(name, tensor) for name, tensor in self._taken)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What it gives."""
        return tuple(_info(name, tensor) for name, tensor in self._given)

    def set_inputs(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Copies a batch in."""
        for (_, tensor), value in zip(self._taken, values, strict=True):
            tensor.copyFrom(self._host(np.ascontiguousarray(value, np.float32)))

    def invoke(self) -> None:
        """Runs one inference."""
        self._interpreter.runSession(self._session)

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        return timed_here(self.invoke, count)

    def results(self) -> list[npt.NDArray[np.float32]]:
        """Returns the outputs."""
        found = []
        for info, (_, tensor) in zip(self.outputs, self._given, strict=True):
            host = self._host(np.zeros(info.shape, np.float32))
            tensor.copyToHostTensor(host)
            found.append(np.array(host.getNumpyData(), np.float32).reshape(info.shape))
        return found

    def _host(self, array: npt.NDArray[np.float32]) -> Any:
        library = self._library
        return library.Tensor(
            array.shape,
            library.Halide_Type_Float,
            array,
            library.Tensor_DimensionType_Tensorflow,
        )


def _info(name: str, tensor: Any) -> TensorInfo:
    return TensorInfo(name, tuple(int(size) for size in tensor.getShape()))
