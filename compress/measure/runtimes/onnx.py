"""ONNX Runtime on the CPU."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency
from compress.measure.runtimes._base import timed_here

INSTALL = "ONNX Runtime must be installed to run .onnx files: pip install 'paretune[onnx]'"


class OnnxRuntime:
    """Runs `.onnx` files."""

    name = "onnx"
    suffixes: tuple[str, ...] = (".onnx",)
    formats: tuple[str, ...] = ("float32", "int8")
    maker = "compress.exporting.onnx:file_for"
    exported: tuple[str, ...] = ("onnx", "onnx_int8")
    converter = ""

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
        path: An `.onnx` file with one input, of known size, and one output.
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
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise InputError(
                f"'{path}' must have one input and one output. Received: {len(inputs)} and "
                f"{len(outputs)}."
            )
        self._names = [outputs[0].name]
        self._name, self._shape = inputs[0].name, tuple(inputs[0].shape)
        unknown = [size for size in self._shape[1:] if not isinstance(size, int)]
        if unknown:
            raise InputError(
                f"'{path}' must have a known input size. Received: {self._shape}. Export it with a "
                "fixed shape."
            )
        self._shape = (1, *self._shape[1:])
        self._fed: dict[str, Any] = {}
        self._results: list[Any] = []

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The input's shape, batch axis included."""
        return tuple(int(size) for size in self._shape)

    def set_input(self, x: npt.NDArray[np.float32]) -> None:
        """Keeps a batch for the next inference."""
        self._fed = {self._name: np.ascontiguousarray(x, np.float32)}

    def invoke(self) -> None:
        """Runs one inference."""
        self._results = self._session.run(self._names, self._fed)

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        return timed_here(self.invoke, count)

    def output(self) -> npt.NDArray[np.float32]:
        """Returns the output."""
        return np.asarray(self._results[0], np.float32)
