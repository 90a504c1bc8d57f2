"""Files of Keras 2 (tf_keras): what stands between them and Keras 3, layer by layer.

Keras 3 reads most `.h5` files of Keras 2 but stumbles over arguments that it dropped, even at
their defaults, and over slashes in layer names. Those are taken out of a copy of the file. What
remains unreadable is named by layer.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# what zipfile, json and h5py raise over damaged files
_DAMAGED = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile,
    zlib.error, struct.error,
)  # fmt: skip

# arguments that Keras 3 dropped, by class, and the one value at which they change nothing
_ANY = object()
_GROUPS: dict[str, Any] = {"groups": 1}
_TIME: dict[str, Any] = {"time_major": False}
_SEPARABLE: dict[str, Any] = {
    **_GROUPS, "kernel_initializer": _ANY, "kernel_regularizer": None, "kernel_constraint": None,
}  # fmt: skip
_DROPPED: dict[str, dict[str, Any]] = {
    "DepthwiseConv1D": _GROUPS, "DepthwiseConv2D": _GROUPS,
    "SeparableConv1D": _SEPARABLE, "SeparableConv2D": _SEPARABLE,
    "Conv1DTranspose": _GROUPS, "Conv2DTranspose": _GROUPS, "Conv3DTranspose": _GROUPS,
    "LSTM": _TIME, "GRU": _TIME, "SimpleRNN": _TIME, "RNN": _TIME,
}  # fmt: skip


def keras_version(path: Path) -> str:
    """Returns the version of Keras that wrote a model file; empty where it does not say."""
    if path.suffix == ".keras":
        try:
            with zipfile.ZipFile(path) as archive:
                return str(json.loads(archive.read("metadata.json"))["keras_version"])
        except _DAMAGED:
            return ""
    return _attribute(path, "keras_version")


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Yields the file, or a copy of it whose config Keras 3 understands.

    Args:
        path: A model file.
    """
    config = _config(path)
    if config is None:
        yield path
        return
    before = json.dumps(config)
    for layer in _layers(config):
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


def why_unreadable(path: Path, reason: str) -> str:
    """Says which layer of a file Keras 3 cannot read, and why; else repeats `reason`."""
    version = keras_version(path)
    if path.suffix == ".keras" and version.startswith("2."):
        return (
            f"it was written by Keras {version}, whose .keras files Keras 3 does not read. Load "
            "it with tf_keras and save it as .h5"
        )
    config = _config(path)
    for layer in _layers(config) if config is not None else ():
        failure = _failure(layer)
        if failure:
            name, kind = layer["config"].get("name", "?"), layer["class_name"]
            return f"layer '{name}' ({kind}): {failure}"
    return reason


def _attribute(path: Path, name: str) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            value = file.attrs.get(name, "")
    except _DAMAGED:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _config(path: Path) -> dict[str, Any] | None:
    """Returns the config of an `.h5` file of Keras 2."""
    if path.suffix == ".keras" or not _attribute(path, "keras_version").startswith("2."):
        return None
    try:
        config = json.loads(_attribute(path, "model_config"))
    except (ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Yields the configs of all layers, those of nested models and wrapped layers too."""
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


def _modernize(layer: dict[str, Any]) -> None:
    config = layer["config"]
    for name, harmless in _DROPPED.get(layer["class_name"], {}).items():
        if name in config and (harmless is _ANY or config[name] == harmless):
            del config[name]


def _rename(config: Any) -> None:
    """Replaces slashes in layer names, in configs and where calls refer to them."""
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
    """Renames in a call's references: ["Conv/BatchNorm", 0, 0, {...}]."""
    if isinstance(value, dict):
        return {key: _referred(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    reference = len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int)
    if reference:
        return [value[0].replace("/", "_"), *(_referred(item) for item in value[1:])]
    return [_referred(item) for item in value]


def _failure(layer: dict[str, Any]) -> str:
    """Returns why Keras 3 cannot make a layer; empty where it can."""
    import keras
    from keras.src.legacy.saving import saving_utils

    kind = layer["class_name"]
    if kind in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
        function = layer["config"].get("function", "a TensorFlow operation")
        return f"Keras 3 has no such layer (a raw TensorFlow call: {function})"
    if kind != "Lambda" and not hasattr(keras.layers, kind):
        return ""  # an initializer, a policy, a custom object
    if kind == "Lambda":
        return "it holds Python code, which is not run. Replace it by a layer"
    copy = json.loads(json.dumps(layer))
    _modernize(copy)
    _rename(copy)
    try:
        saving_utils.model_from_config(copy)
    except Exception as error:  # Keras raises many kinds here
        return " ".join(str(error).split("Exception encountered:")[-1].split())[:200]
    return ""
