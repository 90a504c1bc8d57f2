"""Reads what Keras 3 alone does not: `.h5` files of Keras 2 (tf_keras), through a converted copy.

Keras 3 reads most of them, but not arguments that it dropped, even at their defaults, older
spellings, and slashes in layer names. One table of such differences is applied to a copy of the
file. `explain_unreadable` names the layer and the reason where a file, of any version, remains
unreadable.
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

from compress.core.errors import InputError, reason_of
from compress.core.lazy_modules import keras
from compress.model.internals import make_from_legacy_config
from compress.model.layers import class_named

# what zipfile, json and h5py raise over damaged files
_DAMAGED = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile,
    zlib.error, struct.error,
)  # fmt: skip

# the known differences. Arguments that Keras 3 dropped, by the work of a class, and the one value
# at which they change nothing
_ANY = object()
_DROPPED: dict[str, dict[str, Any]] = {
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
"""Spellings of activations."""
_CALLS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
"""Layers that are raw calls of TensorFlow."""
_UNKNOWN_KEY = re.compile(
    r"unexpected keyword argument '(\w+)'|[Uu]nrecognized keyword arguments[^{]*\{'(\w+)'"
)
_OTHER_FUNCTIONS = {
    "hard_sigmoid": "Keras 2's is 0.2 x + 0.5 between 0 and 1, Keras 3's x / 6 + 0.5. Train the "
    "model with another one",
}  # fmt: skip
"""Activations that are another function in Keras 3: read, they would answer otherwise."""


def keras_version(path: Path) -> str:
    """Return the version of Keras that wrote a model file; empty where it does not say."""
    if path.suffix == ".keras":
        try:
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json"))["keras_version"])
        except _DAMAGED:
            return ""
    return _read_attribute(path, "keras_version")


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Yield the file, or a converted copy with a config of Keras 3.

    Args:
        path: A model file.
    """
    of_keras2 = path.suffix != ".keras" and keras_version(path).startswith("2.")
    config = _read_config(path) if of_keras2 else None
    if not isinstance(config, dict):
        yield path
        return
    before = json.dumps(config)
    _begin_with_inputs(config)
    for layer in _layers(config):
        if other := _other_function(layer["config"]):
            raise InputError(other)  # Keras would read it, and compute something else
        _modernize(layer)
    _rename(config)
    if json.dumps(config) == before:
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
    """Build the error of a file that Keras cannot read: which layer it is, and why.

    Args:
        path: A model file.
        error: Keras's own, whose reason is told where no layer is found.
    """
    config = _read_config(path)
    for layer in _listed_layers(config):
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
        f"{_explain_keras2(path, config) or reason_of(error)}."
    )


def _explain_keras2(path: Path, config: Any) -> str:
    """Return which layer of a file of Keras 2 cannot be read, and why; empty: none is known."""
    version = keras_version(path)
    if not version.startswith("2."):
        return ""
    if path.suffix == ".keras":
        return (
            f"it was written by Keras {version}, whose .keras files Keras 3 does not read. Load "
            "it with tf_keras and save it as .h5"
        )
    for layer in _layers(config):
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
    except _DAMAGED:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _read_config(path: Path) -> Any:
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        return json.loads(_read_attribute(path, "model_config"))
    except (*_DAMAGED, RecursionError):
        return None


def _listed_layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the configs of the layers that models list, those of nested models too."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        known = isinstance(layer, dict) and isinstance(layer.get("config"), dict)
        if known and isinstance(layer.get("class_name"), str):
            yield from _listed_layers(layer) if "layers" in layer["config"] else (layer,)


def _is_registered(layer: dict[str, Any]) -> bool:
    """Tell whether Keras knows the class of a layer of a user's own."""
    module, kind = layer.get("module") or "", layer["class_name"]
    registered = layer.get("registered_name") or kind
    foreign = not module.startswith("keras")
    if not module:  # of an .h5 file
        foreign = not hasattr(keras.layers, kind) and kind not in _CALLS
    importable = getattr(sys.modules.get(module), kind, None)
    return (
        not foreign
        or importable is not None
        or keras.saving.get_registered_object(registered) is not None
    )


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the configs of all layers, those of nested models and wrapped layers too."""
    if isinstance(config, dict):
        own = config.get("config")
        named = isinstance(config.get("class_name"), str)
        if named and isinstance(own, dict) and "layers" not in own:
            yield config
        for value in config.values():
            yield from _layers(value)
    elif isinstance(config, list):
        for value in config:
            yield from _layers(value)


def _begin_with_inputs(config: dict[str, Any]) -> None:
    """Give a Sequential an input layer where only its first layer has the shape of the inputs."""
    inner = config.get("config")
    if config.get("class_name") != "Sequential":
        return
    layers = inner.get("layers") if isinstance(inner, dict) else inner  # in 2.2 a list alone
    if not isinstance(layers, list) or not layers or not isinstance(layers[0], dict):
        return
    own = layers[0].get("config")
    if isinstance(own, dict) and layers[0].get("class_name") != "InputLayer":
        shape = own.get("batch_input_shape")
        if shape is not None:
            values = {"batch_input_shape": shape, "dtype": own.get("dtype", "float32"),
                      "name": f"{own.get('name', 'first')}_input"}  # fmt: skip
            layers.insert(0, {"class_name": "InputLayer", "config": values})


def _modernize(layer: dict[str, Any]) -> None:
    """Apply the known differences to the config of a layer or an initializer."""
    config, kind = layer["config"], layer["class_name"]
    is_initializer = isinstance(kind, str) and hasattr(keras.initializers, kind)
    dropped = {"dtype": _ANY} if is_initializer else _DROPPED.get(class_named(kind).work, {})
    for name, harmless in dropped.items():
        if name in config and (harmless is _ANY or config[name] == harmless):
            del config[name]
    if kind != "InputLayer":
        config.pop("batch_input_shape", None)
    for old, new in _RENAMED_KEYS.get(kind, {}).items():
        if old in config:
            config[new] = config.pop(old)
    if is_initializer and config.get("distribution") == "normal":  # of VarianceScaling
        config["distribution"] = "truncated_normal"
    for key, value in config.items():
        if key.endswith("activation") and isinstance(value, str):
            config[key] = _RENAMED_VALUES.get(value, value)


def _rename(config: Any) -> None:
    """Replace slashes in layer names, in configs and where calls refer to them."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key == "name" and isinstance(value, str):
                config[key] = value.replace("/", "_")
            elif key in ("inbound_nodes", "input_layers", "output_layers"):
                config[key] = _referred(value)
            else:
                _rename(value)
    elif isinstance(config, list):
        for value in config:
            _rename(value)


def _referred(value: Any) -> Any:
    """Rename in a call's references: ["Conv/BatchNorm", 0, 0, {...}]."""
    if isinstance(value, dict):
        return {key: _referred(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    reference = len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int)
    if reference:
        return [value[0].replace("/", "_"), *(_referred(item) for item in value[1:])]
    return [_referred(item) for item in value]


def _other_function(config: dict[str, Any]) -> str:
    """Return which activation Keras 3 computes otherwise; empty: none."""
    for key, value in config.items():
        if key.endswith("activation") and isinstance(value, str) and value in _OTHER_FUNCTIONS:
            return f"{key} {value} is another function in Keras 3: {_OTHER_FUNCTIONS[value]}"
    return ""


def _find_failure(layer: dict[str, Any]) -> str:
    """Return why Keras 3 cannot make a layer; empty where it can."""
    kind = layer["class_name"]
    if kind in _CALLS:
        function = layer["config"].get("function", "a TensorFlow operation")
        return f"Keras 3 has no such layer (a raw TensorFlow call: {function})"
    if kind != "Lambda" and not hasattr(keras.layers, kind):
        return ""  # an initializer, a policy, a custom object
    if kind == "Lambda":
        return "it holds Python code, which is not run. Replace it by a layer"
    if other := _other_function(layer["config"]):
        return other
    copy = json.loads(json.dumps(layer))
    _modernize(copy)
    _rename(copy)
    try:
        make_from_legacy_config(copy)
    except Exception as error:  # Keras raises many kinds here
        key = _UNKNOWN_KEY.search(str(error))
        return f"Keras 3 does not know its key '{key[1] or key[2]}'" if key else reason_of(error)
    return ""
