"""LiteRT (formerly TensorFlow Lite) with its XNNPACK delegate, from ai-edge-litert."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency
from compress.core.native_output import captured_stderr
from compress.measure.runtimes._base import timed_here


class LiteRT:
    """Runs `.tflite` files."""

    name = "litert"
    suffixes: tuple[str, ...] = (".tflite",)
    formats: tuple[str, ...] = ("float32", "float16", "dynamic", "int8")
    maker = "compress.exporting.litert:file_for"
    exported: tuple[str, ...] = ("float32", "float16", "dynamic", "int8", "sparse")
    converter = ""

    def describe(self) -> str:
        """Returns name and version."""
        return f"LiteRT {metadata.version('ai-edge-litert')} (XNNPACK)"

    def prepare(self, path: Path, threads: int) -> LiteRTSession:
        """Loads a `.tflite` file; see `Runtime.prepare`."""
        return LiteRTSession(path, threads)


RUNTIME = LiteRT()


class LiteRTSession:
    """One interpreter with allocated tensors.

    Args:
        path: A `.tflite` file with one output; inputs behind the first are zeros.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be read or run.
        MissingDependency: ai-edge-litert is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingDependency(
                "LiteRT must be installed to run .tflite files: pip install ai-edge-litert"
            ) from None
        with captured_stderr() as written:
            try:
                self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                reason = str(error) or written().strip()
                raise InputError(f"LiteRT must be able to run '{path}' ({reason}).") from None
        self._input, *others = self._interpreter.get_input_details()
        for detail in others:  # memory that nobody has written to may hold slow numbers
            self._interpreter.set_tensor(
                detail["index"], np.zeros(detail["shape"], detail["dtype"])
            )
        self._output = self._interpreter.get_output_details()[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The input's shape, batch axis included."""
        return tuple(int(size) for size in self._input["shape"])

    @property
    def input_quantization(self) -> dict[str, Any]:
        """Type of the input, and scale and zero point where it is an integer."""
        return _quantization(self._input)

    @property
    def output_quantization(self) -> dict[str, Any]:
        """Type of the output, and scale and zero point where it is an integer."""
        return _quantization(self._output)

    def set_input(self, x: npt.NDArray[np.float32]) -> None:
        """Copies a batch in; integers are round(x / scale) + zero point, clipped."""
        dtype, (scale, zero) = self._input["dtype"], self._input["quantization"]
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            levels = np.clip(np.round(x / scale) + zero, limits.min, limits.max)
            self._interpreter.set_tensor(self._input["index"], levels.astype(dtype))
        else:
            self._interpreter.set_tensor(self._input["index"], x.astype(dtype))

    def invoke(self) -> None:
        """Runs one inference."""
        self._interpreter.invoke()

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        return timed_here(self.invoke, count)

    def output(self) -> npt.NDArray[np.float32]:
        """Returns the output, dequantized where it is an integer."""
        raw = self._interpreter.get_tensor(self._output["index"])
        if not np.issubdtype(raw.dtype, np.integer):
            return np.asarray(raw, np.float32)
        scale, zero = self._output["quantization"]
        return np.asarray((raw.astype(np.float32) - zero) * scale, np.float32)


def _quantization(detail: dict[str, Any]) -> dict[str, Any]:
    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return {"dtype": str(dtype)}
    scale, zero = detail["quantization"]
    return {"dtype": str(dtype), "scale": float(scale), "zero_point": int(zero)}
