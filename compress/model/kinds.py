"""Kinds of model files: Keras models, and graphs that can be measured but not pruned.

Only names and first bytes are looked at: nothing is loaded, and TensorFlow not imported, until a
`SavedModel` is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core.errors import InputError, one_line, unknown_name
from compress.core.lazy_modules import tf
from compress.core.native_output import captured_stderr, quiet_logger
from compress.model.ports import InputShape, require_known, sizes_of

SUFFIXES = (".keras", ".h5", ".hdf5")
"""Of files that hold a Keras model."""
TFLITE, SAVED_MODEL = "tflite", "saved_model"
_LITERT_MARK = b"TFL3"
_OTHERS = {
    ".tflite": "a LiteRT file",
    ".lite": "a LiteRT file",
    ".onnx": "an ONNX file",
    ".mnn": "an MNN file",
    ".pb": "a file of TensorFlow 1",
}
"""Files that hold a graph, by their suffixes."""
_PYTORCH = (".pt", ".pth")
_GRAPH = "a graph of operations in which no layers are left"
_ORIGINAL = "Give the Keras model that it was made of (model.save('model.keras'))."


@dataclass(frozen=True)
class Foreign:
    """A model that is no Keras model.

    Attributes:
        kind: TFLITE or SAVED_MODEL.
        text: What it is, in words: "a LiteRT file".
        remedy: How to come by a model that can be pruned.
    """

    kind: str
    text: str
    remedy: str

    @property
    def verdict(self) -> str:
        """Says what cannot be done with it."""
        return (
            f"This is {self.text}, {_GRAPH}: it can be measured, and neither pruned nor "
            f"fine-tuned. "
            f"{self.remedy}"
        )


def foreign(path: Path) -> Foreign | None:
    """Return the kind of a SavedModel's folder or a LiteRT file; None: the path is neither.

    Args:
        path: Of a file or folder; a `.tflite` file need not exist.
    """
    if path.is_dir():
        if not _is_saved_model(path):
            return None
        if (path / "keras_metadata.pb").is_file():
            return Foreign(
                SAVED_MODEL,
                "a SavedModel of Keras 2",
                f"Load it with tf_keras.models.load_model('{path}') and save it as .h5 "
                "(model.save('model.h5')), which Keras 3 reads.",
            )
        return Foreign(SAVED_MODEL, "a SavedModel", _ORIGINAL)
    if path.suffix == ".tflite":
        return Foreign(TFLITE, _OTHERS[".tflite"], _ORIGINAL)
    return None


def _is_saved_model(folder: Path) -> bool:
    return any((folder / f"saved_model.{ending}").is_file() for ending in ("pb", "pbtxt"))


def check_model_file(path: Path) -> None:
    """Check a Keras model's path by name and first bytes, without reading the file.

    Raises:
        InputError: No such file, or another suffix; see `refuse_graphs`.
    """
    refuse_graphs(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"A model file must end in {', '.join(SUFFIXES)}. Received: '{path}'.")
    if not path.is_file():
        raise InputError(f"A model file must exist. Received: '{path}'.")


def refuse_graphs(path: Path) -> None:
    """Refuse folders and files whose names say that they are no Keras models.

    Raises:
        InputError: It is a graph without layers (LiteRT, a SavedModel, ONNX, ...), or of PyTorch;
            the message says what to give instead.
    """
    if path.is_dir():
        raise InputError(_not_a_folder(path))
    if path.suffix.lower() in _PYTORCH:
        raise InputError(
            f"A model must be a Keras model ({', '.join(SUFFIXES)}). Received: '{path}', a PyTorch "
            "file. Build the model in Keras and put its weights there."
        )
    if path.suffix.lower() in _OTHERS:
        found = foreign(path)
        what, remedy = _OTHERS[path.suffix.lower()], found.remedy if found else _ORIGINAL
        raise InputError(_refusal(path, what, remedy))


def require_inspectable(path: Path, *, profile: bool = False) -> Foreign | None:
    """Check the path of a model to inspect, a Keras model or a graph, without reading it.

    Args:
        path: Of a file or folder.
        profile: Whether the time of each layer is asked for.

    Returns:
        What it is where it is no Keras model.

    Raises:
        InputError: It is neither, or does not exist; or a graph's layers are to be timed.
    """
    found = foreign(path)
    if found is None:
        other = None if path.is_dir() else _OTHERS.get(path.suffix.lower())
        if other is not None:
            raise InputError(
                f"A model that is inspected must be a Keras model ({', '.join(SUFFIXES)}), a "
                f".tflite file or a SavedModel's folder. Received: '{path}', {other}. "
                "`paretune bench` times .onnx and .mnn files."
            )
        check_model_file(path)
        return None
    check_graph_file(path)
    if profile:
        raise InputError(
            f"--profile must be of a Keras model. Received: '{path}', {found.text}: no profiler "
            "tells the time of its operators. `paretune bench` times the whole."
        )
    return found


def check_graph_file(path: Path) -> None:
    """Check the path of a LiteRT file or a SavedModel, without reading it.

    Raises:
        InputError: There is none, it is empty, or its first bytes are not a LiteRT file's.
    """
    if path.is_dir():
        if not _is_saved_model(path):
            raise InputError(_not_a_folder(path))
        return
    if not path.is_file():
        raise InputError(f"A model file must exist. Received: '{path}'.")
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:] != _LITERT_MARK:
        what = "an empty file" if not head else "another file, or a damaged one"
        raise InputError(f"'{path}' must be a LiteRT file. Received: {what}.")


def _refusal(path: Path, what: str, remedy: str) -> str:
    return (
        f"A model that is pruned, fine-tuned or converted must be a Keras model "
        f"({', '.join(SUFFIXES)}). Received: '{path}', {what}: {_GRAPH}. {remedy}"
    )


def _not_a_folder(path: Path) -> str:
    found = foreign(path)
    if found is not None:
        return _refusal(path, found.text, found.remedy)
    if (path / "config.json").is_file() and (path / "model.weights.h5").is_file():
        return (
            f"A model file must be a file. Received: folder '{path}', the inside of a .keras file. "
            "Put its files into a .zip and call that model.keras."
        )
    return (
        f"A model must be a file, or a folder that holds saved_model.pb. Received: folder '{path}' "
        "without it."
    )


DEFAULT = "serving_default"
Spec = tuple[str, tuple[int | None, ...] | None, str]
"""Name, shape with the batch axis (None: any rank) and type of an input or output."""


class SavedModel:
    """A loaded SavedModel and one of its signatures.

    A SavedModel is a program: loading it fills its tables, calling it runs its graph.

    Args:
        path: Its folder.
        signature: Name; default: "serving_default", or the only one.

    Attributes:
        signature: The name.
        signatures: All names.
        loaded: What TensorFlow made of it.
        function: The signature's concrete function; it takes its inputs by name.
        inputs, outputs: What it takes and gives, by name in alphabetical order.

    Raises:
        InputError: TensorFlow cannot load it, it has no such signature or several without a
            default, or an input takes texts.
    """

    def __init__(self, path: Path, signature: str = "") -> None:
        self.path = path
        with captured_stderr() as written, quiet_logger("tensorflow"):
            try:
                # held: its functions do not hold its variables
                self.loaded: Any = tf.saved_model.load(str(path))
            except Exception as error:  # damage, and operations that this TensorFlow lacks
                reason = str(error).strip() or written().strip() or repr(error)
                raise InputError(
                    f"TensorFlow must be able to load '{path}'. Received: "
                    f"{one_line(reason.splitlines()[0], 300)}."
                ) from None
        functions = dict(self.loaded.signatures)
        self.signatures = tuple(sorted(functions))
        self.signature = self._chosen(signature)
        self.function: Any = functions[self.signature]
        self.inputs = sorted(
            _spec(*item) for item in self.function.structured_input_signature[1].items()
        )
        self.outputs = sorted(_spec(*item) for item in self.function.structured_outputs.items())
        for name, _, kind in self.inputs:
            if kind in ("string", "resource", "variant"):
                raise InputError(
                    f"Inputs of '{path}' must be numbers. Received: '{name}', which takes "
                    f"{'texts' if kind == 'string' else kind}. Save the model behind its "
                    "preprocessing."
                )

    def _chosen(self, signature: str) -> str:
        if not self.signatures:
            raise InputError(
                f"'{self.path}' must have a signature. Received: none. Save it with "
                "tf.saved_model.save(model, folder, signatures=function)."
            )
        if signature:
            if signature not in self.signatures:
                raise unknown_name(f"signature of '{self.path}'", signature, self.signatures)
            return signature
        if DEFAULT in self.signatures or len(self.signatures) == 1:
            return DEFAULT if DEFAULT in self.signatures else self.signatures[0]
        raise InputError(
            f"One signature of '{self.path}' must be named. Received: none, of "
            f"{', '.join(self.signatures)}. Give --signature (in Python signature=)."
        )

    def sizes(self, given: InputShape | None, purpose: str) -> list[tuple[int, ...]]:
        """Return the sizes of one example of each input.

        Args:
            given: See `compress.model.ports`.
            purpose: What sizes are needed for, for errors: "to be timed".

        Raises:
            InputError: One is open and not given, or what is given does not fit.
        """
        what = f"'{self.path}'"
        own = [
            (name, (None,) * _rank(name, given) if shape is None else shape[1:])
            for name, shape, _ in self.inputs
        ]
        found = sizes_of(what, own, given)
        require_known(what, [name for name, _ in own], found, purpose)
        return [tuple(size for size in sizes if size is not None) for sizes in found]

    def shapes_at(self, sizes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
        """Return the shapes of the inputs with their batch axis: as it is fixed, else 1."""
        return [
            _batched(shape, size) for (_, shape, _), size in zip(self.inputs, sizes, strict=True)
        ]

    def at(self, sizes: Sequence[Sequence[int]]) -> Any:
        """Return the signature as a concrete function of known sizes at batch 1.

        A batch that the signature fixes stays what it is.

        Args:
            sizes: Of one example, an input each; see `sizes`.

        Raises:
            InputError: The graph cannot run at these sizes.
        """
        function = self.function
        specs = {
            name: tf.TensorSpec(shape, kind)
            for (name, _, kind), shape in zip(self.inputs, self.shapes_at(sizes), strict=True)
        }
        try:
            return tf.function(lambda **given: function(**given)).get_concrete_function(**specs)
        except (ValueError, TypeError, tf.errors.OpError) as error:
            raise InputError(
                f"'{self.path}' must run at the sizes {', '.join(map(str, sizes))}. Received: "
                f"{one_line(str(error).strip().splitlines()[-1].strip(), 300)}."
            ) from None


def _rank(name: str, given: InputShape | None) -> int:
    """Return the number of sizes given for an input of any rank; 1 where none is given."""
    sizes: Any = given.get(name) if isinstance(given, Mapping) else given
    return len(sizes) if sizes and not isinstance(sizes[0], (list, tuple)) else 1


def _batched(shape: tuple[int | None, ...] | None, size: Sequence[int]) -> tuple[int, ...]:
    """Return a shape with its batch axis, which is 1 unless the signature fixes it."""
    if shape == ():
        return ()
    return ((shape[0] if shape else None) or 1, *size)


def bytes_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(
        (Path(place) / name).stat().st_size for place, _, names in os.walk(path) for name in names
    )


def _spec(name: str, spec: Any) -> Spec:
    shape = None if spec.shape.rank is None else tuple(spec.shape)
    return name, shape, str(spec.dtype.base_dtype.name)
