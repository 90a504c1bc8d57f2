"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, MissingDependency
from compress.measure.runtimes import TensorInfo, timed_here

INSTALL = "OpenVINO must be installed to be timed: pip install 'paretune[openvino]'"


class OpenVino:
    """Runs `.onnx` files in float32, or in int8 where they hold quantization nodes."""

    name = "openvino"
    suffixes: tuple[str, ...] = (".onnx",)
    formats: tuple[str, ...] = ("float32", "int8")
    maker = "compress.exporting.onnx:file_for"
    exported: tuple[str, ...] = ("onnx", "onnx_int8", "onnx_int8-qat")
    converter = ""
    library = "openvino"

    def describe(self) -> str:
        """Returns name and version."""
        try:
            return f"OpenVINO {metadata.version('openvino')} (CPU, float32)"
        except metadata.PackageNotFoundError:
            raise MissingDependency(INSTALL) from None

    def prepare(self, path: Path, threads: int) -> OpenVinoSession:
        """Compiles an `.onnx` file; see `Runtime.prepare`."""
        return OpenVinoSession(path, threads)


RUNTIME = OpenVino()


class OpenVinoSession:
    """One compiled model with one stream.

    Args:
        path: An `.onnx` file of known sizes.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be read or compiled.
        MissingDependency: openvino is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        try:
            import openvino
        except ImportError:
            raise MissingDependency(INSTALL) from None
        # bfloat16, which newer CPUs would choose by themselves, is another computation
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            compiled: Any = openvino.Core().compile_model(str(path), "CPU", settings)
        except Exception as error:  # openvino raises RuntimeError and kinds of its own
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"OpenVINO must be able to run '{path}' ({reason}).") from None
        self._request: Any = compiled.create_infer_request()
        self.inputs = tuple(_info(item) for item in compiled.inputs)
        self.outputs = tuple(_info(item) for item in compiled.outputs)

    def set_inputs(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Copies a batch in."""
        for place, (info, value) in enumerate(zip(self.inputs, values, strict=True)):
            self._request.get_input_tensor(place).data[:] = info.stored(value)

    def invoke(self) -> None:
        """Runs one inference."""
        self._request.infer()

    def timed(self, count: int) -> list[float]:
        """Runs `count` inferences and returns the seconds of each."""
        return timed_here(self.invoke, count)

    def results(self) -> list[npt.NDArray[np.float32]]:
        """Returns the outputs."""
        return [
            info.real(np.array(self._request.get_output_tensor(place).data))
            for place, info in enumerate(self.outputs)
        ]


def _info(item: Any) -> TensorInfo:
    dtype = str(np.dtype(item.get_element_type().to_dtype()))
    return TensorInfo(item.get_any_name(), tuple(int(size) for size in item.shape), dtype)
