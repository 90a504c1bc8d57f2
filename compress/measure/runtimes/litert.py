"""LiteRT (formerly TensorFlow Lite) with its XNNPACK delegate, from ai-edge-litert."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency
from compress.core.native_output import captured_stderr
from compress.measure.runtimes import TensorInfo, timed_here


class LiteRT:
    """Runs `.tflite` files."""

    name = "litert"
    suffixes: tuple[str, ...] = (".tflite",)
    formats: tuple[str, ...] = ("float32", "float16", "dynamic", "int8")
    maker = "compress.exporting.litert:file_for"
    exported: tuple[str, ...] = (
        "float32", "float16", "dynamic", "int8", "int8-qat", "int8-mixed", "int16x8",
        "int4-weights", "sparse",
    )  # fmt: skip
    converter = ""
    library = "ai_edge_litert.interpreter"

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
        path: A `.tflite` file.
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
        inputs, outputs = self._named()
        for name, detail in inputs:
            if any(size < 0 for size in detail["shape_signature"][1:]):
                sizes = tuple(None if s < 0 else int(s) for s in detail["shape_signature"])
                raise InputError(
                    f"'{path}' must have known input sizes. Received: {name} {sizes}. Give "
                    "--input-shape to `paretune bench`."
                )
        self._taken = [(detail["index"], _info(name, detail)) for name, detail in inputs]
        self._given = [(detail["index"], _info(name, detail)) for name, detail in outputs]

    def _named(self) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """Returns inputs and outputs with their names; a signature's, in alphabetical order."""
        signatures = self._interpreter.get_signature_list()
        if len(signatures) == 1:
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            found = runner.get_input_details(), runner.get_output_details()
            return sorted(found[0].items()), sorted(found[1].items())
        lists = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        inputs, outputs = ([(detail["name"], detail) for detail in part] for part in lists)
        return inputs, outputs

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What it takes."""
        return tuple(info for _, info in self._taken)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What it gives."""
        return tuple(info for _, info in self._given)

    def set_inputs(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Copies a batch in."""
        for (index, info), value in zip(self._taken, values, strict=True):
            self._interpreter.set_tensor(index, info.stored(value))

    def invoke(self) -> None:
        """Runs one inference."""
        self._interpreter.invoke()

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        return timed_here(self.invoke, count)

    def results(self) -> list[npt.NDArray[np.float32]]:
        """Returns the outputs."""
        return [info.real(self._interpreter.get_tensor(index)) for index, info in self._given]


def _info(name: str, detail: dict[str, Any]) -> TensorInfo:
    dtype, (scale, zero) = np.dtype(detail["dtype"]), detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    quantized = float(scale) if dtype.kind in "iu" else 0.0
    return TensorInfo(name, shape, str(dtype), quantized, int(zero) if quantized else 0)
