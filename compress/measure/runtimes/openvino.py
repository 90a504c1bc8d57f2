"""OpenVINO on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, extract_reason
from compress.measure.runtimes import Session, TensorInfo, onnx


class OpenVinoSession(Session):
    """One compiled model with one stream.

    Args:
        path: An `.onnx` file with fixed input sizes. Quantization nodes in it run in int8.
        threads: Number of CPU threads.

    Raises:
        InputError: The file cannot be read or compiled.
        MissingDependency: openvino is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        library = RUNTIME.load_library()
        # OpenVINO picks bfloat16 on newer CPUs, which gives other outputs than float32
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            compiled = library.Core().compile_model(str(path), "CPU", settings)
        except Exception as error:  # RuntimeError and exception classes of OpenVINO
            raise InputError(
                f"OpenVINO must be able to run '{path}' ({extract_reason(error)})."
            ) from None
        self._request = compiled.create_infer_request()
        self.inputs, self.outputs = (
            tuple(map(_build_info, part)) for part in (compiled.inputs, compiled.outputs)
        )

    def invoke(self) -> None:
        """Run one inference."""
        self._request.infer()

    def _put(self, index: int, values: npt.NDArray[Any]) -> None:
        self._request.get_input_tensor(index).data[:] = values

    def _get(self, index: int) -> npt.NDArray[Any]:
        return np.array(self._request.get_output_tensor(index).data)


def _build_info(item: Any) -> TensorInfo:
    dtype = str(np.dtype(item.get_element_type().to_dtype()))
    return TensorInfo(item.get_any_name(), tuple(int(size) for size in item.shape), dtype)


# OpenVINO runs the same .onnx files as ONNX Runtime
RUNTIME = replace(
    onnx.RUNTIME,
    name="openvino",
    text="OpenVINO {} (CPU, float32)",
    package="openvino",
    install="OpenVINO must be installed to be timed: pip install 'paretune[openvino]'",
    library="openvino",
    prepare=OpenVinoSession,
)
