"""OpenVINO on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.runtimes import Session, TensorInfo, onnx


class OpenVinoSession(Session):
    """One compiled model with one stream.

    Args:
        path: An `.onnx` file of known sizes; with quantization nodes it runs in int8.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be read or compiled.
        MissingDependency: openvino is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        library = RUNTIME.load_library()
        # bfloat16, which newer CPUs would choose by themselves, is another computation
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            compiled = library.Core().compile_model(str(path), "CPU", settings)
        except Exception as error:  # openvino raises RuntimeError and kinds of its own
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"OpenVINO must be able to run '{path}' ({reason}).") from None
        self._request = compiled.create_infer_request()
        self.inputs, self.outputs = (
            tuple(map(_info, part)) for part in (compiled.inputs, compiled.outputs)
        )

    def invoke(self) -> None:
        """Run one inference."""
        self._request.infer()

    def _put(self, place: int, values: npt.NDArray[Any]) -> None:
        self._request.get_input_tensor(place).data[:] = values

    def _get(self, place: int) -> npt.NDArray[Any]:
        return np.array(self._request.get_output_tensor(place).data)


def _info(item: Any) -> TensorInfo:
    dtype = str(np.dtype(item.get_element_type().to_dtype()))
    return TensorInfo(item.get_any_name(), tuple(int(size) for size in item.shape), dtype)


# it runs the files of ONNX Runtime
RUNTIME = replace(
    onnx.RUNTIME,
    name="openvino",
    text="OpenVINO {} (CPU, float32)",
    package="openvino",
    install="OpenVINO must be installed to be timed: pip install 'paretune[openvino]'",
    library="openvino",
    prepare=OpenVinoSession,
)
