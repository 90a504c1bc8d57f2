"""What lies at a path: a Keras model, or a graph that can be measured and not pruned.

Only names and first bytes are looked at: nothing is loaded, and TensorFlow not imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.core.errors import InputError

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
    """Returns what a path is if it is a SavedModel's folder or a LiteRT file, else None.

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
    """Checks what shows of a Keras model without reading its file.

    Raises:
        InputError: No such file, or another suffix; see `refuse_graphs`.
    """
    refuse_graphs(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"A model file must end in {', '.join(SUFFIXES)}. Received: '{path}'.")
    if not path.is_file():
        raise InputError(f"A model file must exist. Received: '{path}'.")


def refuse_graphs(path: Path) -> None:
    """Refuses what is no Keras model, as far as its name says or it is a folder.

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
    """Checks what shows of a model that is looked at: a Keras model, or a graph.

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
    """Checks what shows of a LiteRT file or a SavedModel's folder without reading it.

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
