"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from compress.core.errors import InputError, extract_reason
from compress.measure.runtimes import Runtime, Session, TensorInfo


class OnnxSession(Session):
    """One session with all graph optimizations.

    Args:
        path: An `.onnx` file with fixed input sizes.
        threads: Number of CPU threads.

    Raises:
        InputError: The file cannot be read or run.
        MissingDependency: onnxruntime is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        library = RUNTIME.load_library()
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = library.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # exception classes of its C++ extension
            raise InputError(
                f"ONNX Runtime must be able to run '{path}' ({extract_reason(error)})."
            ) from None
        self.inputs = tuple(_build_info(item, path) for item in self._session.get_inputs())
        self.outputs = tuple(_build_info(item, path) for item in self._session.get_outputs())
        self._feeds: dict[str, Any] = {}

    def invoke(self) -> None:
        """Run one inference."""
        self._results = self._session.run([info.name for info in self.outputs], self._feeds)

    def _put(self, index: int, values: npt.NDArray[Any]) -> None:
        self._feeds[self.inputs[index].name] = values

    def _get(self, index: int) -> Any:
        return self._results[index]


def _build_info(item: Any, path: Path) -> TensorInfo:
    """Return a port at batch 1 with its NumPy dtype; raise InputError if another axis is open."""
    shape = tuple(item.shape)
    if any(not isinstance(size, int) for size in shape[1:]):
        raise InputError(
            f"'{path}' must have known sizes. Received: {shape} of '{item.name}'. Export it with a "
            "fixed shape."
        )
    kinds = {"tensor(float)": "float32", "tensor(double)": "float64"}
    dtype = kinds.get(item.type, item.type.removeprefix("tensor(").removesuffix(")"))
    return TensorInfo(item.name, (1, *map(int, shape[1:])), dtype)


RUNTIME = Runtime(
    "onnx",
    text="ONNX Runtime {} (CPU)",
    package="onnxruntime",
    install="ONNX Runtime must be installed to run .onnx files: pip install 'paretune[onnx]'",
    library="onnxruntime",
    prepare=OnnxSession,
    suffixes=(".onnx",),
    formats=("float32", "int8"),
    maker="compress.exporting.onnx:write_for_runtime",
    exported=("onnx", "onnx_int8", "onnx_int8-qat"),
)
