"""MNN: a general-purpose CPU runtime whose kernels skip zeros, mostly in 1x1 convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.native_output import silence_stdout
from compress.measure.runtimes import Runtime, Session, TensorInfo


class MNNSession(Session):
    """One interpreter with a CPU session.

    Args:
        path: A float32 `.mnn` file.
        threads: Number of CPU threads.

    Raises:
        InputError: The file cannot be read.
        MissingDependency: MNN is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        with silence_stdout():
            self._library = RUNTIME.load_library()
        if not path.is_file():
            raise InputError(f"MNN must be able to run '{path}' (no such file).")
        self._interpreter = self._library.Interpreter(str(path))
        # precision "high" computes in float32, as the file is stored
        with silence_stdout():
            self._session = self._interpreter.createSession(
                {"numThread": threads, "backend": "CPU", "precision": "high"}
            )
        self._input_tensors = sorted(self._interpreter.getSessionInputAll(self._session).items())
        self._output_tensors = sorted(self._interpreter.getSessionOutputAll(self._session).items())
        self.inputs, self.outputs = (
            tuple(TensorInfo(name, tuple(map(int, tensor.getShape()))) for name, tensor in part)
            for part in (self._input_tensors, self._output_tensors)
        )

    def invoke(self) -> None:
        """Run one inference."""
        self._interpreter.runSession(self._session)

    def _put(self, index: int, values: npt.NDArray[Any]) -> None:
        self._input_tensors[index][1].copyFrom(self._wrap_array(values))

    def _get(self, index: int) -> npt.NDArray[Any]:
        shape = self.outputs[index].shape
        host = self._wrap_array(np.zeros(shape, np.float32))
        self._output_tensors[index][1].copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32).reshape(shape)

    def _wrap_array(self, array: npt.NDArray[Any]) -> Any:
        library = self._library
        return library.Tensor(
            array.shape,
            library.Halide_Type_Float,
            array,
            library.Tensor_DimensionType_Tensorflow,
        )


RUNTIME = Runtime(
    "mnn",
    text="MNN {} (CPU, float32)",
    package="MNN",
    install="MNN must be installed to run .mnn files: pip install 'paretune[mnn]'",
    library="MNN",
    prepare=MNNSession,
    suffixes=(".mnn",),
    formats=("float32",),
    maker="compress.exporting.mnn:write_for_runtime",
    exported=("float32",),
    converter="compress.exporting.mnn:export_mnn",
)
