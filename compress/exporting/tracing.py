"""Inference of a model at batch size 1, traced to a SavedModel: the input of every converter.

TensorFlow names graph nodes after layers; `find_layer_path` maps a node back to its layer.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError, RunFailed
from compress.core.lazy_modules import keras, tf
from compress.core.native_output import capture_stderr, silence_logger
from compress.exporting.recurrent import FUSED_LSTMS, LOOPS, has_lstms, replace_recurrent
from compress.model.copies import convert_index_inputs, convert_to_float32
from compress.model.file_formats import SavedModel
from compress.model.io import save_model
from compress.model.keras_internals import list_layers, set_attributes
from compress.model.layer_patches import disable_training_layers, reduce_range
from compress.model.ports import pack_inputs

Port = tuple[str, tuple[int, ...], str]
Examples: TypeAlias = Sequence[npt.NDArray[Any]]
"""Inputs of a model (n, ...): one array per input, in order."""
SERVED, WITH_LSTMS, PLAIN, REDUCED = "served", "lstms", "plain", "reduced"
"""Forms of a SavedModel: unchanged; with LiteRT's fused LSTMs; with plain operations only, which
tf2onnx supports; and with plain operations and kernels on the 7-bit grids of ONNX files."""
UNNAMED = "(no layer)"
"""Label of nodes that a runtime or a converter added, such as layout changes."""
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_NUMBERED = re.compile(r"_\d+$")


class Convertible:
    """SavedModels of one model, written on first use and deleted when the context ends.

    Converters take this class, so that they need not know the kind of model.

    Attributes:
        model: A Keras model, or the name of any other model.
        ports: Name, shape (1, ...) and type of each input of the SavedModels. Names are numbered
            so that their alphabetical order, which files use, is the order of the inputs.
        directory: Temporary folder for files of converters.
    """

    model: keras.Model | str
    ports: list[Port]

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.directory = Path(self._folder.name)
        self._saved_forms = set[str]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._folder.cleanup()

    def ensure_saved(self, form: str = SERVED) -> Path:
        """Return the folder of a SavedModel, written on first use; its function is `serve`.

        Args:
            form: `SERVED`, `WITH_LSTMS`, `PLAIN` or `REDUCED`.

        Raises:
            RunFailed: The model cannot be traced.
        """
        folder = self.directory / form
        if form not in self._saved_forms:
            self._write(form, folder)
            self._saved_forms.add(form)
        return folder

    def _write(self, form: str, folder: Path) -> None:
        raise NotImplementedError

    def save_examples(self, examples: Examples) -> Path:
        """Write examples for a converter, one array per input name, and return the file.

        Args:
            examples: Inputs of the model (n, ...), one array per input.
        """
        path = self.directory / "examples.npz"
        arrays: dict[str, Any] = {
            name: np.asarray(array, kind)
            for (name, _, kind), array in zip(self.ports, examples, strict=True)
        }
        np.savez(path, **arrays)
        return path


class TracedModel(Convertible):
    """SavedModels of a Keras model.

    Layers that are active only in training are left out. The model is traced in this process,
    because it may have custom classes that are not defined in other processes.

    Args:
        model: A functional model or a built Sequential with inputs of known sizes.
        on_saved: Called after a SavedModel was written, which takes as long as a conversion.

    Attributes:
        shapes: Shapes of the inputs, batch axis (1) included.

    Raises:
        InputError: An input size is unknown.
    """

    model: keras.Model

    def __init__(self, model: keras.Model, on_saved: Callable[[], None] | None = None) -> None:
        self.shapes = [(1, *tensor.shape[1:]) for tensor in model.inputs]
        unknown = next((shape for shape in self.shapes if None in shape), None)
        if unknown is not None:
            raise InputError(
                f"Model '{model.name}' must have a known input size to be exported. "
                f"Received: {unknown[1:]}."
            )
        super().__init__()
        self.model = model
        self._on_saved = on_saved

    @cached_property
    def _float32(self) -> keras.Model:
        return convert_index_inputs(convert_to_float32(self.model))

    @cached_property
    def ports(self) -> list[Port]:  # type: ignore[override]
        """Name, shape and type of each input of the traced model, in the order of its inputs."""
        names = number_names("input", len(self.shapes))
        inputs = self._float32.inputs
        kinds = ["float32" if "float" in str(t.dtype) else str(t.dtype) for t in inputs]
        return list(zip(names, self.shapes, kinds, strict=True))

    def ensure_saved(self, form: str = SERVED) -> Path:
        """Return the folder of a SavedModel; see `Convertible.ensure_saved`."""
        if form == WITH_LSTMS and not has_lstms(self._float32):
            form = SERVED
        is_new = form not in self._saved_forms
        folder = super().ensure_saved(form)
        if is_new and self._on_saved is not None:
            self._on_saved()
        return folder

    def _write(self, form: str, folder: Path) -> None:
        """Write a SavedModel of float32 inference to a folder, with layers patched for the form."""
        model = self._float32
        signature = [
            keras.InputSpec(shape=shape, dtype=kind, name=name) for name, shape, kind in self.ports
        ]
        output_names = number_names("output", len(model.outputs))

        def serve(*inputs: Any) -> Any:
            outputs = keras.tree.flatten(model(pack_inputs(model, list(inputs)), training=False))
            # a single output keeps the name of earlier versions, so that files stay the same
            return (
                outputs[0] if len(outputs) == 1 else dict(zip(output_names, outputs, strict=True))
            )

        # not Model.export: it leaves `training` open, so a layer with training as its default (such
        # as a random layer) would switch itself and all following layers to training mode
        archive = keras.export.ExportArchive()
        archive.track(model)
        with ExitStack() as stack:
            if form == REDUCED:
                stack.enter_context(reduce_range(model))
            if form in (PLAIN, REDUCED):
                stack.enter_context(_use_plain_operations(model))
                stack.enter_context(replace_recurrent(model, LOOPS))
            if form == WITH_LSTMS:
                stack.enter_context(replace_recurrent(model, FUSED_LSTMS))
            with trace_quietly(f"Model '{self.model.name}'", [model]):
                archive.add_endpoint("serve", serve, signature)
                archive.write_out(str(folder), verbose=False)


class TracedSavedModel(Convertible):
    """SavedModel of one signature of another SavedModel, with unchanged operations.

    Args:
        source: The loaded SavedModel.
        sizes: Shape of one example for each input, from `SavedModel.fill_input_shapes`.
    """

    def __init__(self, source: SavedModel, sizes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.model = source.path.name
        self._source, self._function = source, source.build_function(sizes)
        shapes = source.add_batch_axes(sizes)
        names = number_names("input", len(shapes))
        self.ports = [
            (name, shape, kind)
            for name, shape, (_, _, kind) in zip(names, shapes, source.inputs, strict=True)
        ]

    def ensure_saved(self, form: str = SERVED) -> Path:
        """Return the folder of the SavedModel; all forms are the same. See `Convertible`."""
        return super().ensure_saved()

    def _write(self, form: str, folder: Path) -> None:
        """Write the signature as a SavedModel with numbered port names; the form has no effect."""
        names = [name for name, _, _ in self._source.inputs]
        outputs = [name for name, _, _ in self._source.outputs]
        numbers = number_names("output", len(outputs))

        def serve(*inputs: Any) -> Any:
            results = self._function(**dict(zip(names, inputs, strict=True)))
            return {new: results[name] for new, name in zip(numbers, outputs, strict=True)}

        module = tf.Module()
        module.source = self._source.loaded_model  # saves its variables and tables too
        signature = [tf.TensorSpec(shape, kind, name) for name, shape, kind in self.ports]
        module.serve = tf.function(serve, input_signature=signature, autograph=False)
        with trace_quietly(f"SavedModel '{self.model}'", []):
            tf.saved_model.save(module, str(folder), signatures=module.serve)


def write_for_runtime(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Write a `.keras` file or a SavedModel for TensorFlow; see `Runtime.maker`.

    Args:
        traced: The model.
        kind: Not used: the runtime has one format.
        stem: Path of the file without its suffix.
        inputs: Not used.
    """
    if isinstance(traced.model, str):
        path = Path(f"{stem}.saved_model")
        shutil.copytree(traced.ensure_saved(), path)
        return path
    path = Path(f"{stem}.keras")
    save_model(convert_to_float32(traced.model), path)
    return path


@contextmanager
def trace_quietly(label: str, models: Sequence[keras.Model]) -> Iterator[None]:
    """Silence the tracing of models and turn its errors into `RunFailed`.

    Args:
        label: Label of the models in the error: "Model 'mine'".
        models: Models whose training-only layers are disabled during tracing.

    Raises:
        RunFailed: Instead of any error.
    """
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(disable_training_layers(model))
        written = stack.enter_context(capture_stderr())
        stack.enter_context(silence_logger("tensorflow"))
        try:
            yield
        except Exception as error:  # custom layers may raise any type
            lines = (str(error).strip() or written().strip() or repr(error)).splitlines()
            raise RunFailed(f"{label} could not be traced for export: {lines[0]}") from error


def number_names(word: str, count: int) -> list[str]:
    """Return numbered names in alphabetical order; for a count of 1 the word itself.

    Args:
        word: Prefix of the names.
        count: Number of names, at least 1.
    """
    if count == 1:
        return [word]
    digits = len(str(count - 1))
    return [f"{word}_{index:0{digits}d}" for index in range(count)]


def read_examples(path: str) -> list[dict[str, npt.NDArray[Any]]]:
    """Return examples that were written to a file, each as batches of one by input name.

    Args:
        path: File written by `Convertible.save_examples`.
    """
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in sorted(archive.files)}
    total = len(next(iter(arrays.values())))
    return [{name: values[at : at + 1] for name, values in arrays.items()} for at in range(total)]


@contextmanager
def _use_plain_operations(model: keras.Model) -> Iterator[None]:
    """Replace operations that tf2onnx does not support by equivalent ones while tracing a model.

    Keras wraps grouped convolutions in an XLA-compiled function, to have gradients on a CPU.
    TensorFlow computes the exact GELU with Erfc. tf2onnx supports neither.
    """
    grouped = [
        layer
        for layer in list_layers(model)
        if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D))
        and layer.groups > 1
        and layer.data_format == "channels_last"
        and layer.padding in ("same", "valid")
    ]
    calls = [(layer, "call", partial(_convolve_grouped, layer)) for layer in grouped]
    original_gelu = tf.nn.gelu

    def compute_gelu(features: Any, approximate: bool = False, name: str | None = None) -> Any:
        if approximate:
            return original_gelu(features, approximate=True, name=name)
        return 0.5 * features * (1.0 + tf.math.erf(features / math.sqrt(2.0)))

    with set_attributes([*calls, (tf.nn, "gelu", compute_gelu)]):
        yield


def _convolve_grouped(layer: Any, inputs: Any) -> Any:
    """Return a grouped convolution layer's outputs by one TensorFlow operation, without XLA."""
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


def strip_calls(node: str) -> str:
    """Return a node's name without the call prefixes that a SavedModel adds.

    Args:
        node: Name of the node.
    """
    return _CALLS.sub("", node)


def find_layer_path(node: str, paths: Collection[str]) -> str:
    """Return the path of the innermost layer whose scope contains a node's name.

    When layer "conv" is traced again, TensorFlow writes "model_1/conv_1/convolution". So a scope is
    looked up without its last number first, then unchanged.

    Args:
        node: Name of the node.
        paths: Paths from `compress.model.keras_internals.walk_named_layers`, or names of layers
            without nested layers.
    """
    layer_path = ""
    for scope in node.split("/")[1:]:  # without the model's own scope
        for name in (_NUMBERED.sub("", scope), scope):
            path = f"{layer_path}/{name}" if layer_path else name
            if path in paths:
                layer_path = path
                break
    return layer_path or UNNAMED
