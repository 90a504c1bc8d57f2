"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency
from compress.measure.runtimes import TensorInfo, timed_here

INSTALL = "ONNX Runtime must be installed to run .onnx files: pip install 'paretune[onnx]'"


class OnnxRuntime:
    """Runs `.onnx` files."""

    name = "onnx"
    suffixes: tuple[str, ...] = (".onnx",)
    formats: tuple[str, ...] = ("float32", "int8")
    maker = "compress.exporting.onnx:file_for"
    exported: tuple[str, ...] = ("onnx", "onnx_int8", "onnx_int8-qat")
    converter = ""
    library = "onnxruntime"

    def describe(self) -> str:
        """Returns name and version."""
        try:
            return f"ONNX Runtime {metadata.version('onnxruntime')} (CPU)"
        except metadata.PackageNotFoundError:
            raise MissingDependency(INSTALL) from None

    def prepare(self, path: Path, threads: int) -> OnnxSession:
        """Loads an `.onnx` file; see `Runtime.prepare`."""
        return OnnxSession(path, threads)


RUNTIME = OnnxRuntime()


class OnnxSession:
    """One session with all graph optimizations.

    Args:
        path: An `.onnx` file of known sizes.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be read or run.
        MissingDependency: onnxruntime is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependency(INSTALL) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises kinds of its own from C++
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"ONNX Runtime must be able to run '{path}' ({reason}).") from None
        self.inputs = tuple(_info(item, path) for item in self._session.get_inputs())
        self.outputs = tuple(_info(item, path) for item in self._session.get_outputs())
        self._fed: dict[str, Any] = {}
        self._results: list[Any] = []

    def set_inputs(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Keeps a batch for the next inference."""
        self._fed = {
            info.name: info.stored(value) for info, value in zip(self.inputs, values, strict=True)
        }

    def invoke(self) -> None:
        """Runs one inference."""
        self._results = self._session.run([info.name for info in self.outputs], self._fed)

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        return timed_here(self.invoke, count)

    def results(self) -> list[npt.NDArray[np.float32]]:
        """Returns the outputs."""
        return [info.real(made) for info, made in zip(self.outputs, self._results, strict=True)]


def _info(item: Any, path: Path) -> TensorInfo:
    shape = tuple(item.shape)
    if any(not isinstance(size, int) for size in shape[1:]):
        raise InputError(
            f"'{path}' must have known sizes. Received: {shape} of '{item.name}'. Export it with a "
            "fixed shape."
        )
    kinds = {"tensor(float)": "float32", "tensor(double)": "float64"}
    dtype = kinds.get(item.type, item.type.removeprefix("tensor(").removesuffix(")"))
    return TensorInfo(item.name, (1, *map(int, shape[1:])), dtype)
