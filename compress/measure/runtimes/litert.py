"""LiteRT (formerly TensorFlow Lite) with its XNNPACK delegate, from ai-edge-litert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.native_output import captured_stderr
from compress.measure.runtimes import Runtime, Session, TensorInfo


def allocated(path: str | Path, **how: Any) -> Any:
    """Return an interpreter with allocated tensors.

    Args:
        path: For errors.
        **how: What LiteRT's `Interpreter` takes.

    Raises:
        InputError: The file cannot be read or run.
        MissingDependency: ai-edge-litert is not installed.
    """
    library = RUNTIME.load_library()
    with captured_stderr() as written:
        try:
            interpreter = library.Interpreter(**how)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error) or written().strip()
            raise InputError(f"LiteRT must be able to run '{path}' ({reason}).") from None
    return interpreter


class LiteRTSession(Session):
    """One interpreter with allocated tensors.

    Args:
        path: A `.tflite` file.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be read or run.
        MissingDependency: ai-edge-litert is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreter = allocated(path, model_path=str(path), num_threads=threads)
        inputs, outputs = self._named()
        for name, detail in inputs:
            if any(size < 0 for size in detail["shape_signature"][1:]):
                sizes = tuple(None if s < 0 else int(s) for s in detail["shape_signature"])
                raise InputError(
                    f"'{path}' must have known input sizes. Received: {name} {sizes}. Give "
                    "--input-shape to `paretune bench`."
                )
        self._taken, self._given = (
            [detail["index"] for _, detail in part] for part in (inputs, outputs)
        )
        self.inputs, self.outputs = (
            tuple(_info(*item) for item in part) for part in (inputs, outputs)
        )

    def _named(self) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """Return inputs and outputs with their names; a signature's, in alphabetical order."""
        signatures = self._interpreter.get_signature_list()
        if len(signatures) == 1:
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            found = runner.get_input_details(), runner.get_output_details()
            return sorted(found[0].items()), sorted(found[1].items())
        lists = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        inputs, outputs = ([(detail["name"], detail) for detail in part] for part in lists)
        return inputs, outputs

    def invoke(self) -> None:
        """Run one inference."""
        self._interpreter.invoke()

    def _put(self, place: int, values: npt.NDArray[Any]) -> None:
        self._interpreter.set_tensor(self._taken[place], values)

    def _get(self, place: int) -> Any:
        return self._interpreter.get_tensor(self._given[place])


def _info(name: str, detail: dict[str, Any]) -> TensorInfo:
    dtype, (scale, zero) = np.dtype(detail["dtype"]), detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    quantized = float(scale) if dtype.kind in "iu" else 0.0
    return TensorInfo(name, shape, str(dtype), quantized, int(zero) if quantized else 0)


RUNTIME = Runtime(
    "litert",
    text="LiteRT {} (XNNPACK)",
    package="ai-edge-litert",
    install="LiteRT must be installed to run .tflite files: pip install ai-edge-litert",
    library="ai_edge_litert.interpreter",
    prepare=LiteRTSession,
    suffixes=(".tflite",),
    formats=("float32", "float16", "dynamic", "int8"),
    maker="compress.exporting.litert:file_for",
    exported=(
        "float32", "float16", "dynamic", "int8", "int8-qat", "int8-mixed", "int16x8",
        "int4-weights", "sparse",
    ),
)  # fmt: skip
