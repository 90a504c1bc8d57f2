"""A model's inference at batch size 1, traced to disk: what every converter starts from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, RunFailed
from compress.core.native_output import captured_stderr, quiet_logger
from compress.model.copies import float32_model
from compress.model.inference import inference_alone
from compress.model.internals import layers_inside

if TYPE_CHECKING:
    import keras


class Traced:
    """SavedModels of one model, each made when it is first asked for, gone when the context ends.

    Layers that work in training alone are left out.

    Tracing is ordinary Python and happens in this process: a model may hold classes that no
    other process knows.

    Args:
        model: A functional model or a built Sequential with one input of known size.

    Raises:
        InputError: An input size is unknown.
    """

    def __init__(self, model: keras.Model) -> None:
        shape = tuple(model.inputs[0].shape[1:])
        if any(size is None for size in shape):
            raise InputError(
                f"Model '{model.name}' must have a known input size to be exported. "
                f"Received: {shape}."
            )
        self.model = model
        self.shape = (1, *shape)
        self._folder = tempfile.TemporaryDirectory()
        self._made: dict[str, Path] = {}

    def __enter__(self) -> Traced:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    @property
    def place(self) -> Path:
        """A folder for what goes to a converter and comes from it."""
        return Path(self._folder.name)

    @cached_property
    def _float32(self) -> keras.Model:
        return float32_model(self.model)

    def saved(self) -> Path:
        """Returns the folder of the SavedModel.

        Raises:
            RunFailed: The model cannot be traced.
        """
        if "saved" not in self._made:
            self._made["saved"] = self._export("saved")
        return self._made["saved"]

    def saved_plain(self) -> Path:
        """Returns the folder of a SavedModel of plain operations, which tf2onnx knows.

        Raises:
            RunFailed: The model cannot be traced.
        """
        if "plain" not in self._made:
            with _plain_operations(self._float32):
                self._made["plain"] = self._export("plain")
        return self._made["plain"]

    def given(self, examples: npt.NDArray[np.float32]) -> Path:
        """Returns the file of examples for a converter."""
        path = self.place / "examples.npy"
        np.save(path, examples)
        return path

    def _export(self, name: str) -> Path:
        import keras

        folder = self.place / name
        signature = [keras.InputSpec(shape=self.shape, dtype="float32", name="input")]
        model = self._float32
        # not Model.export: it leaves `training` open, and a layer whose own default is training
        # (a random one's is) then puts itself and what is behind it into training mode
        archive = keras.export.ExportArchive()
        archive.track(model)
        with captured_stderr() as written, quiet_logger("tensorflow"), inference_alone(model):
            try:
                archive.add_endpoint("serve", lambda x: model(x, training=False), signature)
                archive.write_out(str(folder), verbose=False)
            except Exception as error:  # a model's own code raises what it likes
                lines = (str(error).strip() or written().strip() or repr(error)).splitlines()
                raise RunFailed(
                    f"Model '{self.model.name}' could not be traced for export: {lines[0]}"
                ) from error
        return folder


@contextmanager
def _plain_operations(model: keras.Model) -> Iterator[None]:
    """Lets a model use operations that tf2onnx knows, with the same results, while it is traced.

    Keras wraps grouped convolutions in a function compiled by XLA, which has gradients on a CPU
    but which tf2onnx does not know; and TensorFlow writes the exact GELU with Erfc.
    """
    import keras
    import tensorflow as tf

    grouped = [
        layer
        for layer in layers_inside(model)
        if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D))
        and layer.groups > 1
        and layer.data_format == "channels_last"
        and layer.padding in ("same", "valid")
    ]
    for layer in grouped:
        layer.call = _grouped_call(layer)
    own = tf.nn.gelu

    def gelu(features: Any, approximate: bool = False, name: str | None = None) -> Any:
        if approximate:
            return own(features, approximate=True, name=name)
        return 0.5 * features * (1.0 + tf.math.erf(features / math.sqrt(2.0)))

    tf.nn.gelu = gelu
    try:
        yield
    finally:
        tf.nn.gelu = own
        for layer in grouped:
            del layer.call


def _grouped_call(layer: Any) -> Any:
    import tensorflow as tf

    def call(inputs: Any) -> Any:
        x = tf.nn.convolution(
            inputs,
            tf.convert_to_tensor(layer.kernel.value),
            strides=list(layer.strides),
            padding=layer.padding.upper(),
            dilations=list(layer.dilation_rate),
        )
        if layer.use_bias:
            x = x + tf.convert_to_tensor(layer.bias.value)
        return x if layer.activation is None else layer.activation(x)

    return call
