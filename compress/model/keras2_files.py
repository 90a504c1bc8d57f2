"""Conversion of `.h5` files written by Keras 2 (tf_keras), and errors for unreadable files.

Keras 3 reads most of these files. It rejects arguments that it dropped (even at their defaults),
older spellings, and slashes in layer names. A table of these differences is applied to a copy of
the file. If a file of any version remains unreadable, `explain_unreadable` names the layer and the
reason.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.core.errors import InputError, extract_reason
from compress.core.lazy_modules import keras
from compress.model.keras_internals import build_from_legacy_config
from compress.model.layers import find_named_class

# errors of zipfile, json and h5py on corrupt files
_DAMAGED_FILE_ERRORS = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile,
    zlib.error, struct.error,
)  # fmt: skip

_ANY = object()
# arguments that Keras 3 dropped, by the work of a class, with the value that has no effect
_DROPPED_ARGUMENTS: dict[str, dict[str, Any]] = {
    "depthwise": {"groups": 1},
    "transposed": {"groups": 1},
    "separable": {
        "groups": 1,
        "kernel_initializer": _ANY,
        "kernel_regularizer": None,
        "kernel_constraint": None,
    },
    "recurrent": {"time_major": False},
}
_RENAMED_KEYS = {"LeakyReLU": {"alpha": "negative_slope"}}
_RENAMED_VALUES = {"softmax_v2": "softmax", "leaky-relu": "leaky_relu", "lrelu": "leaky_relu"}
"""Older names of activations, with their names in Keras 3."""
_RAW_CALL_CLASSES = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
"""Layers that wrap a raw TensorFlow call."""
_UNKNOWN_KEY_PATTERN = re.compile(
    r"unexpected keyword argument '(\w+)'|[Uu]nrecognized keyword arguments[^{]*\{'(\w+)'"
)
_CHANGED_ACTIVATIONS = {
    "hard_sigmoid": "Keras 2's is 0.2 x + 0.5 between 0 and 1, Keras 3's x / 6 + 0.5. Train the "
    "model with another one",
}  # fmt: skip
"""Activations that Keras 3 computes differently, so that a model's outputs would change."""


def read_keras_version(path: Path) -> str:
    """Return the version of Keras that wrote a model file, or "" if it is not recorded."""
    if path.suffix == ".keras":
        try:
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json"))["keras_version"])
        except _DAMAGED_FILE_ERRORS:
            return ""
    return _read_attribute(path, "keras_version")


@contextmanager
def open_as_keras3(path: Path) -> Iterator[Path]:
    """Yield the path of the file, or of a converted copy with a Keras 3 config.

    Args:
        path: A model file.

    Raises:
        InputError: An activation is a different function in Keras 3.
    """
    is_keras2 = path.suffix != ".keras" and read_keras_version(path).startswith("2.")
    config = _read_config(path) if is_keras2 else None
    if not isinstance(config, dict):
        yield path
        return
    original = json.dumps(config)
    _insert_input_layer(config)
    for layer in _walk_layers(config):
        if change := _explain_changed_activation(layer["config"]):
            raise InputError(change)  # Keras would load it and compute another function
        _convert_layer(layer)
    _rename_layers(config)
    if json.dumps(config) == original:
        yield path
        return
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        yield copy


def explain_unreadable(path: Path, error: Exception) -> InputError:
    """Build the error for a file that Keras cannot read, with the layer and the reason.

    Args:
        path: A model file.
        error: Keras's error; its reason is used if no layer can be named.
    """
    config = _read_config(path)
    for layer in _walk_listed_layers(config):
        kind, name = layer["class_name"], layer["config"].get("name", "?")
        if kind == "Lambda" and path.suffix == ".keras":
            return InputError(
                f"Layer '{name}' of '{path}' must not hold Python code, which is not run from a "
                "file. Received: a Lambda. For the command line make it a class, registered with "
                "keras.saving.register_keras_serializable() in a module that --plugins names; in "
                "Python hand over the model of keras.saving.load_model(path, safe_mode=False)."
            )
        if re.fullmatch(r"[\w>]+", kind) and not _is_registered(layer):
            return InputError(
                f"Class {kind.rpartition('>')[2]} of layer '{name}' must be registered with Keras: "
                "name the module that registers it with --plugins (in Python import it). Received: "
                f"'{path}', which needs it."
            )
    return InputError(
        f"Keras 3 must be able to read '{path}'. Received: "
        f"{_explain_keras2_failure(path, config) or extract_reason(error)}."
    )


def _explain_keras2_failure(path: Path, config: Any) -> str:
    """Return the unreadable layer of a Keras 2 file and the reason, or "" if none is known."""
    version = read_keras_version(path)
    if not version.startswith("2."):
        return ""
    if path.suffix == ".keras":
        return (
            f"it was written by Keras {version}, whose .keras files Keras 3 does not read. Load "
            "it with tf_keras and save it as .h5"
        )
    for layer in _walk_layers(config):
        failure = _find_failure(layer)
        if failure:
            name, kind = layer["config"].get("name", "?"), layer["class_name"]
            return f"layer '{name}' ({kind}): {failure}"
    return ""


def _read_attribute(path: Path, name: str) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            value = file.attrs.get(name, "")
    except _DAMAGED_FILE_ERRORS:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _read_config(path: Path) -> Any:
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        return json.loads(_read_attribute(path, "model_config"))
    except (*_DAMAGED_FILE_ERRORS, RecursionError):
        return None


def _walk_listed_layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the configs of the layers listed by models, including nested models."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        has_config = isinstance(layer, dict) and isinstance(layer.get("config"), dict)
        if has_config and isinstance(layer.get("class_name"), str):
            yield from _walk_listed_layers(layer) if "layers" in layer["config"] else (layer,)


def _is_registered(layer: dict[str, Any]) -> bool:
    """Return whether Keras can find the class of a user's layer."""
    module, kind = layer.get("module") or "", layer["class_name"]
    registered = layer.get("registered_name") or kind
    foreign = (
        not module.startswith("keras")
        if module
        else not hasattr(keras.layers, kind) and kind not in _RAW_CALL_CLASSES  # an .h5 file
    )
    importable = getattr(sys.modules.get(module), kind, None)
    return (
        not foreign
        or importable is not None
        or keras.saving.get_registered_object(registered) is not None
    )


def _walk_layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the configs of all layers, including those in nested models and wrappers."""
    if isinstance(config, dict):
        layer_config = config.get("config")
        has_class_name = isinstance(config.get("class_name"), str)
        if has_class_name and isinstance(layer_config, dict) and "layers" not in layer_config:
            yield config
        for value in config.values():
            yield from _walk_layers(value)
    elif isinstance(config, list):
        for value in config:
            yield from _walk_layers(value)


def _insert_input_layer(config: dict[str, Any]) -> None:
    """Add an input layer to a Sequential whose input shape is stored in its first layer."""
    inner = config.get("config")
    if config.get("class_name") != "Sequential":
        return
    layers = inner.get("layers") if isinstance(inner, dict) else inner  # Keras 2.2: a list
    if not isinstance(layers, list) or not layers or not isinstance(layers[0], dict):
        return
    first_config = layers[0].get("config")
    if isinstance(first_config, dict) and layers[0].get("class_name") != "InputLayer":
        shape = first_config.get("batch_input_shape")
        if shape is not None:
            values = {"batch_input_shape": shape, "dtype": first_config.get("dtype", "float32"),
                      "name": f"{first_config.get('name', 'first')}_input"}  # fmt: skip
            layers.insert(0, {"class_name": "InputLayer", "config": values})


def _convert_layer(layer: dict[str, Any]) -> None:
    """Apply the known differences to the config of a layer or an initializer."""
    config, kind = layer["config"], layer["class_name"]
    is_initializer = isinstance(kind, str) and hasattr(keras.initializers, kind)
    dropped = (
        {"dtype": _ANY}
        if is_initializer
        else _DROPPED_ARGUMENTS.get(find_named_class(kind).work, {})
    )
    for name, harmless in dropped.items():
        if name in config and (harmless is _ANY or config[name] == harmless):
            del config[name]
    if kind != "InputLayer":
        config.pop("batch_input_shape", None)
    for old, new in _RENAMED_KEYS.get(kind, {}).items():
        if old in config:
            config[new] = config.pop(old)
    if is_initializer and config.get("distribution") == "normal":  # VarianceScaling
        config["distribution"] = "truncated_normal"
    for key, value in config.items():
        if key.endswith("activation") and isinstance(value, str):
            config[key] = _RENAMED_VALUES.get(value, value)


def _rename_layers(config: Any) -> None:
    """Replace slashes in layer names, both in configs and in references between layers."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "name" and isinstance(value, str):
                config[key] = value.replace("/", "_")
            elif key in ("inbound_nodes", "input_layers", "output_layers"):
                config[key] = _rename_references(value)
            else:
                _rename_layers(value)
    elif isinstance(config, list):
        for value in config:
            _rename_layers(value)


def _rename_references(value: Any) -> Any:
    """Replace slashes in the references of a call, like ["Conv/BatchNorm", 0, 0, {...}]."""
    if isinstance(value, dict):
        return {key: _rename_references(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    is_reference = len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int)
    if is_reference:
        return [value[0].replace("/", "_"), *(_rename_references(item) for item in value[1:])]
    return [_rename_references(item) for item in value]


def _explain_changed_activation(config: dict[str, Any]) -> str:
    """Return the activation that Keras 3 computes differently, or "" if there is none."""
    for key, value in config.items():
        if key.endswith("activation") and isinstance(value, str) and value in _CHANGED_ACTIVATIONS:
            return f"{key} {value} is another function in Keras 3: {_CHANGED_ACTIVATIONS[value]}"
    return ""


def _find_failure(layer: dict[str, Any]) -> str:
    """Return the reason why Keras 3 cannot build a layer, or "" if it can."""
    kind = layer["class_name"]
    if kind in _RAW_CALL_CLASSES:
        function = layer["config"].get("function", "a TensorFlow operation")
        return f"Keras 3 has no such layer (a raw TensorFlow call: {function})"
    if kind != "Lambda" and not hasattr(keras.layers, kind):
        return ""  # an initializer, a policy, a custom object
    if kind == "Lambda":
        return "it holds Python code, which is not run. Replace it by a layer"
    if change := _explain_changed_activation(layer["config"]):
        return change
    copy = json.loads(json.dumps(layer))
    _convert_layer(copy)
    _rename_layers(copy)
    try:
        build_from_legacy_config(copy)
    except Exception as error:  # Keras raises many types here
        key = _UNKNOWN_KEY_PATTERN.search(str(error))
        return (
            f"Keras 3 does not know its key '{key[1] or key[2]}'" if key else extract_reason(error)
        )
    return ""
