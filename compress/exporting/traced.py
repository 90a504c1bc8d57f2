"""Inference of a model at batch size 1, traced to disk: every converter starts from it.

TensorFlow names a graph's nodes by layers: which layer a node stands for is told here too.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, RunFailed
from compress.core.native_output import captured_stderr, quiet_logger
from compress.exporting.recurrent import FUSED_LSTMS, LOOPS, has_lstms, recurrent_as
from compress.model.copies import float32_model, with_indices
from compress.model.inference import inference_alone, reduce_range
from compress.model.internals import layers_inside
from compress.model.io import save_model
from compress.model.kinds import SavedModel
from compress.model.ports import packed

if TYPE_CHECKING:
    import keras

Port = tuple[str, tuple[int, ...], str]
Examples: TypeAlias = npt.NDArray[Any] | Sequence[npt.NDArray[Any]]
"""Inputs of a model (n, ...), one array an input in its order; of one input the array itself."""
SERVED, WITH_LSTMS, PLAIN, REDUCED = "served", "lstms", "plain", "reduced"
"""Forms of a SavedModel: as it is; LSTMs as those of LiteRT; of plain operations, which tf2onnx
knows; and of these with kernels on the grids of ONNX files (7 bits)."""
UNNAMED = "(no layer)"
"""Nodes that a runtime or a converter put in, such as changes of layout."""
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_NUMBERED = re.compile(r"_\d+$")


class Convertible:
    """SavedModels of one model, each made when first asked for and deleted with the context.

    What converters start from, whatever the model is.

    Attributes:
        model: A Keras model; of another its name.
        ports: Name, shape (1, ...) and type of each input of the SavedModels. Names are numbered,
            so that files, which sort them, keep their order.
        place: A folder for what goes to a converter and comes from it.
    """

    model: keras.Model | str
    ports: list[Port]

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.place = Path(self._folder.name)
        self._made = set[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._folder.cleanup()

    def saved(self, form: str = SERVED) -> Path:
        """Return the folder of a SavedModel, whose function is `serve`.

        Args:
            form: `SERVED`, `WITH_LSTMS`, `PLAIN` or `REDUCED`.

        Raises:
            RunFailed: The model cannot be traced.
        """
        folder = self.place / form
        if form not in self._made:
            self._write(form, folder)
            self._made.add(form)
        return folder

    def _write(self, form: str, folder: Path) -> None:
        raise NotImplementedError

    def given(self, examples: Examples) -> Path:
        """Return the file of examples for a converter: an array an input, by its name."""
        path = self.place / "examples.npz"
        write_examples(path, examples, self.ports)
        return path


class Traced(Convertible):
    """SavedModels of a Keras model.

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

    def saved(self, form: str = SERVED) -> Path:
        """Return the folder of a SavedModel; see `Convertible`."""
        if form == WITH_LSTMS and not has_lstms(self._float32):
            form = SERVED
        return super().saved(form)

    def _write(self, form: str, folder: Path) -> None:
        import keras

        model = self._float32
        signature = [
            keras.InputSpec(shape=shape, dtype=kind, name=name) for name, shape, kind in self.ports
        ]
        made = numbered("output", len(model.outputs))

        def serve(*given: Any) -> Any:
            outputs = keras.tree.flatten(model(packed(model, list(given)), training=False))
            # one output keeps the name that files had when there could be no other
            return outputs[0] if len(outputs) == 1 else dict(zip(made, outputs, strict=True))

        # not Model.export: it leaves `training` open, and a layer whose own default is training
        # (a random one's is) then puts itself and what is behind it into training mode
        archive = keras.export.ExportArchive()
        archive.track(model)
        with ExitStack() as stack:
            if form == REDUCED:
                stack.enter_context(reduce_range(model))
            if form in (PLAIN, REDUCED):
                stack.enter_context(_plain_operations(model))
                stack.enter_context(recurrent_as(model, LOOPS))
            if form == WITH_LSTMS:
                stack.enter_context(recurrent_as(model, FUSED_LSTMS))
            with trace_quietly(f"Model '{self.model.name}'", [model]):
                archive.add_endpoint("serve", serve, signature)
                archive.write_out(str(folder), verbose=False)


class TracedSavedModel(Convertible):
    """SavedModel of one signature of a SavedModel; its operations are what they are.

    Args:
        source: The loaded SavedModel.
        sizes: Of one example, an input each; see `SavedModel.sizes`.
    """

    def __init__(self, source: SavedModel, sizes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.model = source.path.name
        self._source, self._function = source, source.at(sizes)
        taken = source.shapes_at(sizes)
        names = numbered("input", len(taken))
        self.ports = [
            (name, shape, kind)
            for name, shape, (_, _, kind) in zip(names, taken, source.inputs, strict=True)
        ]

    def saved(self, form: str = SERVED) -> Path:
        """Return the folder of the SavedModel, the same for each form; see `Convertible`."""
        return super().saved()

    def _write(self, form: str, folder: Path) -> None:
        import tensorflow as tf

        names = [name for name, _, _ in self._source.inputs]
        outputs = [name for name, _, _ in self._source.outputs]
        numbers = numbered("output", len(outputs))

        def serve(*given: Any) -> Any:
            made = self._function(**dict(zip(names, given, strict=True)))
            return {new: made[name] for new, name in zip(numbers, outputs, strict=True)}

        module = tf.Module()
        module.source = self._source.loaded  # its variables and tables go along
        signature = [tf.TensorSpec(shape, kind, name) for name, shape, kind in self.ports]
        module.serve = tf.function(serve, input_signature=signature, autograph=False)
        with trace_quietly(f"SavedModel '{self.model}'", []):
            tf.saved_model.save(module, str(folder), signatures=module.serve)


def file_for(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Write the file of a model for TensorFlow; see `Runtime.maker`."""
    if isinstance(traced.model, str):
        path = Path(f"{stem}.saved_model")
        shutil.copytree(traced.saved(), path)
        return path
    path = Path(f"{stem}.keras")
    save_model(float32_model(traced.model), path)
    return path


@contextmanager
def trace_quietly(what: str, models: Sequence[keras.Model]) -> Iterator[None]:
    """Silence the tracing of models for files, and turn its errors into `RunFailed`.

    Args:
        what: Names them in the error: "Model 'mine'".
        models: What they compute in training alone is left out meanwhile.

    Raises:
        RunFailed: In place of any error.
    """
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(inference_alone(model))
        written = stack.enter_context(captured_stderr())
        stack.enter_context(quiet_logger("tensorflow"))
        try:
            yield
        except Exception as error:  # a model's own code raises what it likes
            lines = (str(error).strip() or written().strip() or repr(error)).splitlines()
            raise RunFailed(f"{what} could not be traced for export: {lines[0]}") from error


def numbered(word: str, count: int) -> list[str]:
    """Return numbered names in alphabetical order, or the word itself if there is one."""
    if count == 1:
        return [word]
    digits = len(str(count - 1))
    return [f"{word}_{place:0{digits}d}" for place in range(count)]


def write_examples(path: Path, examples: Examples, ports: Sequence[Port]) -> None:
    """Write an .npz file of one array an input, by the inputs' names."""
    given = [examples] if isinstance(examples, np.ndarray) else list(examples)
    arrays: dict[str, Any] = {
        name: np.asarray(array, kind) for (name, _, kind), array in zip(ports, given, strict=True)
    }
    np.savez(path, **arrays)


def read_examples(path: str) -> list[dict[str, npt.NDArray[Any]]]:
    """Return the examples of such a file, each as batches of one by the inputs' names."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in sorted(archive.files)}
    total = len(next(iter(arrays.values())))
    return [{name: values[at : at + 1] for name, values in arrays.items()} for at in range(total)]


@contextmanager
def _plain_operations(model: keras.Model) -> Iterator[None]:
    """Let a model use operations that tf2onnx knows, with the same results, while it is traced.

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
        layer.call = lambda inputs, layer=layer: _grouped_call(layer, inputs)
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


def _grouped_call(layer: Any, inputs: Any) -> Any:
    import tensorflow as tf

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


def without_calls(node: str) -> str:
    """Return a node's name without the calls that a SavedModel puts around its model."""
    return _CALLS.sub("", node)


def path_of(node: str, paths: Collection[str]) -> str:
    """Return the path of the innermost layer whose scope contains a node's name.

    TensorFlow writes "model_1/conv_1/convolution" for layer "conv" that is traced again, so a
    scope is looked up with its last number taken off first, then as it is.

    Args:
        node: The node's name.
        paths: Of `compress.model.internals.named_layers`; or names of layers that hold no others.
    """
    found = ""
    for scope in node.split("/")[1:]:  # the first is the model's
        for name in (_NUMBERED.sub("", scope), scope):
            path = f"{found}/{name}" if found else name
            if path in paths:
                found = path
                break
    return found or UNNAMED
