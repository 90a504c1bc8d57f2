"""MNN: the one ordinary CPU runtime whose kernels skip zeros (in 1x1 convolutions, mostly)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.native_output import silenced_stdout
from compress.measure.runtimes import Runtime, Session, TensorInfo


class MNNSession(Session):
    """One interpreter with a CPU session.

    Args:
        path: A `.mnn` file, of real numbers.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be read.
        MissingDependency: MNN is not installed.
    """

    def __init__(self, path: Path, threads: int) -> None:
        with silenced_stdout():
            self._library = RUNTIME.load_library()
        if not path.is_file():
            raise InputError(f"MNN must be able to run '{path}' (no such file).")
        self._interpreter = self._library.Interpreter(str(path))
        # "high": float32 everywhere, as in the file
        with silenced_stdout():
            self._session = self._interpreter.createSession(
                {"numThread": threads, "backend": "CPU", "precision": "high"}
            )
        self._taken = sorted(self._interpreter.getSessionInputAll(self._session).items())
        self._given = sorted(self._interpreter.getSessionOutputAll(self._session).items())
        self.inputs, self.outputs = (
            tuple(TensorInfo(name, tuple(map(int, tensor.getShape()))) for name, tensor in part)
            for part in (self._taken, self._given)
        )

    def invoke(self) -> None:
        """Run one inference."""
        self._interpreter.runSession(self._session)

    def _put(self, place: int, values: npt.NDArray[Any]) -> None:
        self._taken[place][1].copyFrom(self._host(values))

    def _get(self, place: int) -> npt.NDArray[Any]:
        shape = self.outputs[place].shape
        host = self._host(np.zeros(shape, np.float32))
        self._given[place][1].copyToHostTensor(host)
        return np.array(host.getNumpyData(), np.float32).reshape(shape)

    def _host(self, array: npt.NDArray[Any]) -> Any:
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
    maker="compress.exporting.mnn:file_for",
    exported=("float32",),
    converter="compress.exporting.mnn:export_mnn",
)
