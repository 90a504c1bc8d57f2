"""LiteRT (formerly TensorFlow Lite) with its XNNPACK delegate, from ai-edge-litert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.native_output import capture_stderr
from compress.measure.runtimes import Runtime, Session, TensorInfo


def allocate_interpreter(path: str | Path, **options: Any) -> Any:
    """Return an interpreter with allocated tensors.

    Args:
        path: The file's path, for error messages.
        **options: Keyword arguments of LiteRT's `Interpreter`.

    Raises:
        InputError: The file cannot be read or run.
        MissingDependency: ai-edge-litert is not installed.
    """
    library = RUNTIME.load_library()
    with capture_stderr() as written:
        try:
            interpreter = library.Interpreter(**options)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error) or written().strip()
            raise InputError(f"LiteRT must be able to run '{path}' ({reason}).") from None
    return interpreter


class LiteRTSession(Session):
    """One interpreter with allocated tensors.

    Args:
        path: A `.tflite` file.
        threads: Number of CPU threads.

    Raises:
        InputError: The file cannot be read or run.
        MissingDependency: ai-edge-litert is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreter = allocate_interpreter(path, model_path=str(path), num_threads=threads)
        inputs, outputs = self._list_tensors()
        for name, detail in inputs:
            if any(size < 0 for size in detail["shape_signature"][1:]):
                sizes = tuple(None if s < 0 else int(s) for s in detail["shape_signature"])
                raise InputError(
                    f"'{path}' must have known input sizes. Received: {name} {sizes}. Give "
                    "--input-shape to `paretune bench`."
                )
        self._input_indices, self._output_indices = (
            [detail["index"] for _, detail in part] for part in (inputs, outputs)
        )
        self.inputs, self.outputs = (
            tuple(_build_info(*item) for item in part) for part in (inputs, outputs)
        )

    def _list_tensors(self) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """Return the named inputs and outputs; those of a signature are sorted by name."""
        signatures = self._interpreter.get_signature_list()
        if len(signatures) == 1:
            runner = self._interpreter.get_signature_runner(next(iter(signatures)))
            details = runner.get_input_details(), runner.get_output_details()
            return sorted(details[0].items()), sorted(details[1].items())
        lists = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        inputs, outputs = ([(detail["name"], detail) for detail in part] for part in lists)
        return inputs, outputs

    def invoke(self) -> None:
        """Run one inference."""
        self._interpreter.invoke()

    def _put(self, index: int, values: npt.NDArray[Any]) -> None:
        self._interpreter.set_tensor(self._input_indices[index], values)

    def _get(self, index: int) -> Any:
        return self._interpreter.get_tensor(self._output_indices[index])


def _build_info(name: str, detail: dict[str, Any]) -> TensorInfo:
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
    maker="compress.exporting.litert:write_for_runtime",
    exported=(
        "float32", "float16", "dynamic", "int8", "int8-qat", "int8-mixed", "int16x8",
        "int4-weights", "sparse",
    ),
)  # fmt: skip
