"""Detection of model files: Keras models, and graphs that can be measured but not pruned.

Only names and first bytes are checked. Nothing is loaded and TensorFlow is not imported, except for
a `SavedModel`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core.errors import (
    InputError,
    build_unknown_name_error,
    extract_reason,
    to_one_line,
)
from compress.core.lazy_modules import tf
from compress.core.native_output import capture_stderr, silence_logger
from compress.model.ports import InputShape, fill_input_shapes, require_fixed_sizes

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
"""Suffixes of Keras model files."""
TFLITE, SAVED_MODEL = "tflite", "saved_model"
_LITERT_MAGIC = b"TFL3"
_GRAPH_SUFFIXES = {
    ".tflite": "a LiteRT file",
    ".lite": "a LiteRT file",
    ".onnx": "an ONNX file",
    ".mnn": "an MNN file",
    ".pb": "a file of TensorFlow 1",
}
"""Descriptions of graph files, by suffix."""
_PYTORCH_SUFFIXES = (".pt", ".pth")
_GRAPH_DESCRIPTION = "a graph of operations in which no layers are left"
_ORIGINAL_REMEDY = "Give the Keras model that it was made of (model.save('model.keras'))."


@dataclass(frozen=True)
class ForeignModel:
    """Model file of another format than Keras.

    Attributes:
        kind: `TFLITE` or `SAVED_MODEL`.
        description: Description of the format: "a LiteRT file".
        remedy: Hint on how to get a model that can be pruned.
    """

    kind: str
    description: str
    remedy: str

    @property
    def limitation(self) -> str:
        """Explanation of the operations that this format does not support."""
        return (
            f"This is {self.description}, {_GRAPH_DESCRIPTION}: it can be measured, and neither "
            f"pruned nor fine-tuned. {self.remedy}"
        )


def detect_foreign_model(path: Path) -> ForeignModel | None:
    """Return the format of a SavedModel folder or a LiteRT file, or None for other paths.

    Args:
        path: A file or folder; a `.tflite` file need not exist.
    """
    if path.is_dir():
        if not _is_saved_model(path):
            return None
        if (path / "keras_metadata.pb").is_file():
            return ForeignModel(
                SAVED_MODEL,
                "a SavedModel of Keras 2",
                f"Load it with tf_keras.models.load_model('{path}') and save it as .h5 "
                "(model.save('model.h5')), which Keras 3 reads.",
            )
        return ForeignModel(SAVED_MODEL, "a SavedModel", _ORIGINAL_REMEDY)
    if path.suffix == ".tflite":
        return ForeignModel(TFLITE, _GRAPH_SUFFIXES[".tflite"], _ORIGINAL_REMEDY)
    return None


def _is_saved_model(folder: Path) -> bool:
    return any((folder / f"saved_model.{ending}").is_file() for ending in ("pb", "pbtxt"))


def check_model_file(path: Path) -> None:
    """Check the path of a Keras model by its suffix, without reading the file.

    Raises:
        InputError: The file does not exist or has another suffix; see `refuse_graphs`.
    """
    refuse_graphs(path)
    if path.suffix not in KERAS_SUFFIXES:
        raise InputError(
            f"A model file must end in {', '.join(KERAS_SUFFIXES)}. Received: '{path}'."
        )
    if not path.is_file():
        raise InputError(f"A model file must exist. Received: '{path}'.")


def refuse_graphs(path: Path) -> None:
    """Raise an error for folders and files of formats other than Keras.

    Raises:
        InputError: The path is a graph without layers (LiteRT, SavedModel, ONNX, ...), or a PyTorch
            file; the message says what to use instead.
    """
    if path.is_dir():
        raise InputError(_explain_folder(path))
    if path.suffix.lower() in _PYTORCH_SUFFIXES:
        raise InputError(
            f"A model must be a Keras model ({', '.join(KERAS_SUFFIXES)}). Received: '{path}', a "
            "PyTorch file. Build the model in Keras and put its weights there."
        )
    if path.suffix.lower() in _GRAPH_SUFFIXES:
        foreign_model = detect_foreign_model(path)
        description, remedy = (
            _GRAPH_SUFFIXES[path.suffix.lower()],
            foreign_model.remedy if foreign_model else _ORIGINAL_REMEDY,
        )
        raise InputError(_format_refusal(path, description, remedy))


def require_inspectable(path: Path, *, profile: bool = False) -> ForeignModel | None:
    """Check the path of a model to inspect, a Keras model or a graph, without reading it.

    Args:
        path: A file or folder.
        profile: Whether the time of each layer is requested.

    Returns:
        The format if it is not a Keras model, otherwise None.

    Raises:
        InputError: The path does not exist or has another format, or `profile` is requested for a
            graph.
    """
    foreign_model = detect_foreign_model(path)
    if foreign_model is None:
        description = None if path.is_dir() else _GRAPH_SUFFIXES.get(path.suffix.lower())
        if description is not None:
            raise InputError(
                f"A model that is inspected must be a Keras model ({', '.join(KERAS_SUFFIXES)}), a "
                f".tflite file or a SavedModel's folder. Received: '{path}', {description}. "
                "`paretune bench` times .onnx and .mnn files."
            )
        check_model_file(path)
        return None
    check_graph_file(path)
    if profile:
        raise InputError(
            f"--profile must be of a Keras model. Received: '{path}', {foreign_model.description}: "
            "no profiler tells the time of its operators. `paretune bench` times the whole."
        )
    return foreign_model


def check_graph_file(path: Path) -> None:
    """Check the path of a LiteRT file or a SavedModel, without loading it.

    Raises:
        InputError: The path does not exist, or is neither a SavedModel's folder nor a file that
            begins like a LiteRT file.
    """
    if path.is_dir():
        if not _is_saved_model(path):
            raise InputError(_explain_folder(path))
        return
    if not path.is_file():
        raise InputError(f"A model file must exist. Received: '{path}'.")
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:] != _LITERT_MAGIC:
        received = "an empty file" if not head else "another file, or a corrupt one"
        raise InputError(
            f"'{path}' must be a LiteRT file. Received: {received}. Export or copy it again."
        )


def _format_refusal(path: Path, description: str, remedy: str) -> str:
    return (
        f"A model that is pruned, fine-tuned or converted must be a Keras model "
        f"({', '.join(KERAS_SUFFIXES)}). Received: '{path}', {description}: {_GRAPH_DESCRIPTION}. "
        f"{remedy}"
    )


def _explain_folder(path: Path) -> str:
    """Return the error text for a folder that is no Keras model, with the remedy if it is known."""
    foreign_model = detect_foreign_model(path)
    if foreign_model is not None:
        return _format_refusal(path, foreign_model.description, foreign_model.remedy)
    if (path / "config.json").is_file() and (path / "model.weights.h5").is_file():
        return (
            f"A model file must be a file. Received: folder '{path}', the inside of a .keras file. "
            "Put its files into a .zip and call that model.keras."
        )
    return (
        f"A model must be a file, or a folder that holds saved_model.pb. Received: folder '{path}' "
        "without it."
    )


DEFAULT_SIGNATURE = "serving_default"
PortSpec = tuple[str, tuple[int | None, ...] | None, str]
"""Name, shape with the batch axis (None for any rank) and type of an input or output."""


class SavedModel:
    """Loaded SavedModel with one of its signatures.

    A SavedModel is a program: loading it initializes its tables, calling it runs its graph.

    Args:
        path: The folder.
        signature: Name of the signature. Default: "serving_default", or the only one.

    Attributes:
        signature: Name of the signature.
        signatures: Names of all signatures.
        loaded_model: The object returned by TensorFlow.
        function: The concrete function of the signature; it takes its inputs by name.
        inputs, outputs: Specifications of the inputs and outputs, in alphabetical order.

    Raises:
        InputError: TensorFlow cannot load it; the signature does not exist, or there are several
            and no default; or an input takes strings.
    """

    def __init__(self, path: Path, signature: str = "") -> None:
        self.path = path
        with capture_stderr() as written, silence_logger("tensorflow"):
            try:
                # keep a reference: its functions do not keep its variables alive
                self.loaded_model: Any = tf.saved_model.load(str(path))
            except Exception as error:  # corrupt files, and operations unknown to this TensorFlow
                reason = str(error).strip() or written().strip() or repr(error)
                raise InputError(
                    f"TensorFlow must be able to load '{path}'. Received: "
                    f"{to_one_line(reason.splitlines()[0], 300)}."
                ) from None
        functions = dict(self.loaded_model.signatures)
        self.signatures = tuple(sorted(functions))
        self.signature = self._select_signature(signature)
        self.function: Any = functions[self.signature]
        self.inputs = sorted(
            _build_spec(*item) for item in self.function.structured_input_signature[1].items()
        )
        self.outputs = sorted(
            _build_spec(*item) for item in self.function.structured_outputs.items()
        )
        for name, _, kind in self.inputs:
            if kind in ("string", "resource", "variant"):
                raise InputError(
                    f"Inputs of '{path}' must be numbers. Received: '{name}', which takes "
                    f"{'texts' if kind == 'string' else kind}. Save the model behind its "
                    "preprocessing."
                )

    def _select_signature(self, signature: str) -> str:
        """Return the named signature; for "" the default or only one, else raise InputError."""
        if not self.signatures:
            raise InputError(
                f"'{self.path}' must have a signature. Received: none. Save it with "
                "tf.saved_model.save(model, folder, signatures=function)."
            )
        if signature:
            if signature not in self.signatures:
                raise build_unknown_name_error(
                    f"signature of '{self.path}'", signature, self.signatures
                )
            return signature
        if DEFAULT_SIGNATURE in self.signatures or len(self.signatures) == 1:
            return DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in self.signatures else self.signatures[0]
        raise InputError(
            f"One signature of '{self.path}' must be named. Received: none, of "
            f"{', '.join(self.signatures)}. Give --signature (in Python signature=)."
        )

    def fill_input_shapes(
        self, input_shape: InputShape | None, purpose: str
    ) -> list[tuple[int, ...]]:
        """Return the sizes of one example of each input.

        Args:
            input_shape: See `compress.model.ports.fill_input_shapes`.
            purpose: The purpose of the sizes, for error messages: "to be timed".

        Raises:
            InputError: An open size is not given, or a given size does not fit.
        """
        owner = f"'{self.path}'"
        declared = [
            (name, (None,) * _count_sizes(name, input_shape) if shape is None else shape[1:])
            for name, shape, _ in self.inputs
        ]
        shapes = fill_input_shapes(owner, declared, input_shape)
        require_fixed_sizes(owner, [name for name, _ in declared], shapes, purpose)
        return [tuple(size for size in sizes if size is not None) for sizes in shapes]

    def add_batch_axes(self, input_shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """Return the shapes of the inputs with a batch axis: the fixed batch size, or else 1.

        Args:
            input_shapes: Shape of one example of each input.
        """
        return [
            _add_batch_axis(shape, size)
            for (_, shape, _), size in zip(self.inputs, input_shapes, strict=True)
        ]

    def build_function(self, input_shapes: Sequence[Sequence[int]]) -> Any:
        """Return the signature as a concrete function with fixed sizes at batch size 1.

        A batch size that the signature fixes is kept.

        Args:
            input_shapes: Shape of one example of each input; see `fill_input_shapes`.

        Raises:
            InputError: The graph cannot run at these sizes.
        """
        function = self.function
        specs = {
            name: tf.TensorSpec(shape, kind)
            for (name, _, kind), shape in zip(
                self.inputs, self.add_batch_axes(input_shapes), strict=True
            )
        }
        try:
            return tf.function(lambda **given: function(**given)).get_concrete_function(**specs)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise InputError(
                f"'{self.path}' must run at the sizes {', '.join(map(str, input_shapes))}. "
                "Received: "
                f"{extract_reason(error)}."
            ) from None


def _count_sizes(name: str, input_shape: InputShape | None) -> int:
    """Return the number of sizes given for an input of any rank, or 1 if none is given."""
    sizes: Any = input_shape.get(name) if isinstance(input_shape, Mapping) else input_shape
    return len(sizes) if sizes and not isinstance(sizes[0], (list, tuple)) else 1


def _add_batch_axis(shape: tuple[int | None, ...] | None, size: Sequence[int]) -> tuple[int, ...]:
    """Return a shape with its batch axis, which is 1 unless the signature fixes it."""
    if shape == ():
        return ()
    return ((shape[0] if shape else None) or 1, *size)


def count_file_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(
        (Path(folder) / name).stat().st_size for folder, _, names in os.walk(path) for name in names
    )


def _build_spec(name: str, spec: Any) -> PortSpec:
    shape = None if spec.shape.rank is None else tuple(spec.shape)
    return name, shape, str(spec.dtype.base_dtype.name)
