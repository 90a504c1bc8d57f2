"""A model's inference at batch size 1, traced to disk: what every converter starts from.

TensorFlow names a graph's nodes by layers: which layer a node stands for is told here too.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, RunFailed
from compress.core.native_output import captured_stderr, quiet_logger
from compress.exporting.recurrent import LOOPS, fused_lstms, has_lstms, recurrent_as
from compress.model.copies import float32_model, with_indices
from compress.model.inference import inference_alone, reduce_range
from compress.model.internals import layers_inside
from compress.model.ports import packed

if TYPE_CHECKING:
    import keras

Port = tuple[str, tuple[int, ...], str]
Examples: TypeAlias = npt.NDArray[Any] | Sequence[npt.NDArray[Any]]
"""Inputs of a model (n, ...), one array an input in its order; of one input the array itself."""
UNNAMED = "(no layer)"
"""Nodes that a runtime or a converter put in, such as changes of layout."""
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_NUMBERED = re.compile(r"_\d+$")


class Convertible:
    """SavedModels of one model, each made when it is first asked for, gone when the context ends.

    What converters start from, whatever the model is.

    Attributes:
        model: A Keras model; of another its name.
        ports: Name, shape (1, ...) and type of each input of the SavedModels. Names are numbered,
            so that files, which sort them, keep their order.
    """

    model: keras.Model | str
    ports: list[Port]

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._made: dict[str, Path] = {}

    def __enter__(self) -> Self:
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

    def saved(self) -> Path:
        """Returns the folder of the SavedModel, whose function is `serve`.

        Raises:
            RunFailed: The model cannot be traced.
        """
        raise NotImplementedError

    def saved_plain(self) -> Path:
        """Returns the folder of a SavedModel of plain operations, which tf2onnx knows.

        Raises:
            RunFailed: The model cannot be traced.
        """
        raise NotImplementedError

    def saved_reduced(self) -> Path:
        """Returns the folder of such a SavedModel whose kernels lie on the grids of ONNX files.

        Raises:
            RunFailed: The model cannot be traced.
        """
        return self.saved_plain()

    def saved_fused(self) -> Path:
        """Returns the folder of a SavedModel whose LSTMs are those of LiteRT.

        Raises:
            RunFailed: The model cannot be traced.
        """
        return self.saved()

    def given(self, examples: Examples) -> Path:
        """Returns the file of examples for a converter: an array an input, by its name."""
        path = self.place / "examples.npz"
        write_examples(path, examples, self.ports)
        return path


class Traced(Convertible):
    """A Keras model's.

    Layers that work in training alone are left out.

    Tracing is ordinary Python and happens in this process: a model may hold classes that no
    other process knows.

    Args:
        model: A functional model or a built Sequential with inputs of known sizes.

    Attributes:
        shapes: Of the inputs, the batch axis (1) included.

    Raises:
        InputError: An input size is unknown.
    """

    model: keras.Model

    def __init__(self, model: keras.Model) -> None:
        self.shapes = [(1, *tensor.shape[1:]) for tensor in model.inputs]
        unknown = next((shape for shape in self.shapes if None in shape), None)
        if unknown is not None:
            raise InputError(
                f"Model '{model.name}' must have a known input size to be exported. "
                f"Received: {unknown[1:]}."
            )
        super().__init__()
        self.model = model

    @cached_property
    def _float32(self) -> keras.Model:
        return with_indices(float32_model(self.model))

    @cached_property
    def ports(self) -> list[Port]:  # type: ignore[override]
        """Name, shape and type of each input of the traced model, in the order of its inputs."""
        names = numbered("input", len(self.shapes))
        inputs = self._float32.inputs
        kinds = ["float32" if "float" in str(t.dtype) else str(t.dtype) for t in inputs]
        return list(zip(names, self.shapes, kinds, strict=True))

    def saved(self) -> Path:
        """Returns the folder of the SavedModel; see `Convertible`."""
        if "saved" not in self._made:
            self._made["saved"] = self._export("saved")
        return self._made["saved"]

    def saved_plain(self) -> Path:
        """Returns the folder of a SavedModel of plain operations; see `Convertible`."""
        return self._plain("plain")

    def saved_reduced(self) -> Path:
        """Returns the folder of one with kernels of 7 bits; see `Convertible`."""
        with reduce_range(self._float32):
            return self._plain("reduced")

    def _plain(self, name: str) -> Path:
        if name not in self._made:
            with _plain_operations(self._float32), recurrent_as(self._float32, LOOPS):
                self._made[name] = self._export(name)
        return self._made[name]

    def saved_fused(self) -> Path:
        """Returns the folder of a SavedModel for LiteRT's converter; see `Convertible`."""
        if not has_lstms(self._float32):
            return self.saved()
        if "fused" not in self._made:
            with fused_lstms(self._float32):
                self._made["fused"] = self._export("fused")
        return self._made["fused"]

    def _export(self, name: str) -> Path:
        import keras

        folder = self.place / name
        model = self._float32
        signature = [
            keras.InputSpec(shape=shape, dtype=kind, name=name) for name, shape, kind in self.ports
        ]
        made = numbered("output", len(model.outputs))
        # not Model.export: it leaves `training` open, and a layer whose own default is training
        # (a random one's is) then puts itself and what is behind it into training mode
        archive = keras.export.ExportArchive()
        archive.track(model)
        with captured_stderr() as written, quiet_logger("tensorflow"), inference_alone(model):
            try:
                archive.add_endpoint("serve", _serving(model, made), signature)
                archive.write_out(str(folder), verbose=False)
            except Exception as error:  # a model's own code raises what it likes
                lines = (str(error).strip() or written().strip() or repr(error)).splitlines()
                raise RunFailed(
                    f"Model '{self.model.name}' could not be traced for export: {lines[0]}"
                ) from error
        return folder


def numbered(word: str, count: int) -> list[str]:
    """Returns names that stand in alphabetical order; of one thing the word itself."""
    if count == 1:
        return [word]
    digits = len(str(count - 1))
    return [f"{word}_{place:0{digits}d}" for place in range(count)]


def write_examples(path: Path, examples: Examples, ports: Sequence[Port]) -> None:
    """Writes an .npz file of one array an input, by the inputs' names."""
    given = [examples] if isinstance(examples, np.ndarray) else list(examples)
    arrays: dict[str, Any] = {
        name: np.asarray(array, kind) for (name, _, kind), array in zip(ports, given, strict=True)
    }
    np.savez(path, **arrays)


def read_examples(path: str) -> list[dict[str, npt.NDArray[Any]]]:
    """Returns the examples of such a file, each as batches of one by the inputs' names."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in sorted(archive.files)}
    total = len(next(iter(arrays.values())))
    return [{name: values[at : at + 1] for name, values in arrays.items()} for at in range(total)]


def _serving(model: keras.Model, made: list[str]) -> Any:
    """Returns a function of the inputs, in their order, to outputs by their numbered names."""
    import keras

    def serve(*given: Any) -> Any:
        outputs = keras.tree.flatten(model(packed(model, list(given)), training=False))
        # one output keeps the name that files had when there could be no other
        return outputs[0] if len(outputs) == 1 else dict(zip(made, outputs, strict=True))

    return serve


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


def without_calls(node: str) -> str:
    """Returns a node's name without the calls that a SavedModel puts around its model."""
    return _CALLS.sub("", node)


def layer_of(node: str, layers: Collection[str]) -> str:
    """Returns the layer whose scope a node's name lies in.

    TensorFlow writes "model_1/conv_1/convolution" for layer "conv" that is traced again, so a
    scope is looked up with its last number taken off first, then as it is.

    Args:
        node: The node's name.
        layers: Names of layers that hold no others.
    """
    for scope in _scopes(node):
        for name in scope:
            if name in layers:
                return name
    return UNNAMED


def path_of(node: str, paths: Collection[str]) -> str:
    """Returns the innermost layer whose scope a node's name lies in, behind what holds it.

    Args:
        node: The node's name.
        paths: Of `compress.model.internals.named_layers`.
    """
    found = ""
    for scope in _scopes(node):
        for name in scope:
            path = f"{found}/{name}" if found else name
            if path in paths:
                found = path
                break
    return found or UNNAMED


def _scopes(node: str) -> list[tuple[str, str]]:
    """Returns the scopes of a node behind the model's, each without and with its last number."""
    return [(_NUMBERED.sub("", scope), scope) for scope in node.split("/")[1:]]
