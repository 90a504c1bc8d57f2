"""Rebuilding of layers from their configs, and of subclassed models as functional graphs."""

from __future__ import annotations

import inspect
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.model.keras_internals import is_graph, list_direct_variables, list_layers
from compress.model.layers import is_keras
from compress.model.program import Node
from compress.model.recording import record_program

_KERAS_ATTRIBUTES = ("name", "built", "autocast", "supports_jit", "call_signature_parameters")
"""Public attributes that Keras sets on every layer."""
_COMMON_ARGUMENTS = ("name", "trainable", "dtype", "activity_regularizer", "autocast")
"""Arguments that the constructor of every layer accepts."""


def find_rebuild_failure(layer: Any, *, attributes: bool = True) -> str:
    """Return the reason why a layer cannot be rebuilt from its config, or "" if it can.

    Keras's own layers are trusted. For other layers the config is tried: it must produce a layer
    whose plain attributes equal those of the original.

    Args:
        layer: A layer or raw operation. A nested model counts as the layers inside it.
        attributes: Also compare plain attributes.
    """
    if not isinstance(layer, keras.layers.Layer):
        return ""
    if all(map(is_keras, list_layers(layer))):
        return ""
    try:
        rebuilt = rebuild_from_config(layer, read_layer_config(layer))
    except Exception as error:  # user layers may raise anything here
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not attributes:
        return ""
    parts = list_layers(layer), list_layers(rebuilt)
    if [type(part) for part in parts[0]] != [type(part) for part in parts[1]]:
        parts = [layer], [rebuilt]  # inner layers are created when it is built
    for old, new in zip(*parts, strict=True):
        lost_attribute = _find_lost_attribute(vars(old), vars(new))
        if lost_attribute:
            before, after = vars(old)[lost_attribute], vars(new)[lost_attribute]
            return f"get_config() loses '{lost_attribute}': {before!r} becomes {after!r}"
    return ""


def _find_lost_attribute(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    plain = (str, int, float, bool, type(None))
    for name, value in old.items():
        if name.startswith("_") or name in _KERAS_ATTRIBUTES or name not in new:
            continue
        if isinstance(value, plain) and isinstance(new[name], plain) and value != new[name]:
            return name
    return ""


def read_layer_config(operation: Any) -> dict[str, Any]:
    """Return the config of a layer or raw operation.

    The config of a raw operation may hold values that cannot be serialized. Keras builds no config
    for a layer that defines none and received an object as an argument, such as KerasHub's
    `Identity` layers, whose dtype is a policy. Their config is read from their attributes.

    Raises:
        NotImplementedError: The layer has no config, and its attributes do not hold the arguments
            of its constructor.
    """
    try:
        return dict(operation.get_config())
    except NotImplementedError:
        parameters = inspect.signature(type(operation)).parameters.values()
        names = [item.name for item in parameters if item.kind is not inspect.Parameter.VAR_KEYWORD]
        is_layer = isinstance(operation, keras.layers.Layer)
        is_known = is_keras(operation) or not is_layer
        if not is_known or not all(hasattr(operation, name) for name in names):
            raise
        config = {name: getattr(operation, name) for name in names}
        if is_layer:
            policy = operation.dtype_policy
            # the name of a plain policy can be serialized
            dtype = policy.name if type(policy) is keras.DTypePolicy else policy
            config |= {"name": operation.name, "trainable": operation.trainable, "dtype": dtype}
        return config


def rebuild_from_config(operation: Any, config: dict[str, Any]) -> Any:
    """Build a layer of the class of `operation`, with its custom functions and classes in scope.

    Args:
        operation: The original layer or raw operation.
        config: The config to build from.
    """
    with keras.saving.custom_object_scope(_collect_custom_objects(operation)):
        return build_from_config(type(operation), config)


def needs_lenient_config(layer: Any) -> bool:
    """Return whether a layer can be rebuilt only if unknown entries of its config are left out.

    Keras itself cannot load such a layer from a file; `compress.model.io.load_model` can.

    Args:
        layer: A layer for which `find_rebuild_failure` is empty.
    """
    config = read_layer_config(layer)
    try:
        type(layer).from_config(dict(config))
    except Exception:  # user layers may raise anything here
        return True
    return False


def build_from_config(layer_class: Any, config: dict[str, Any]) -> Any:
    """Build a layer from a config that may hold more entries than its constructor takes.

    Some users' classes also put computed values into their configs. These are left out if the
    constructor rejects them. The caller has to check that the layer equals the original.

    Args:
        layer_class: The class of the layer.
        config: The config to build from.

    Raises:
        Exception: Whatever the constructor raises.
    """
    try:
        return layer_class.from_config(dict(config))
    except (TypeError, ValueError) as first:
        accepted_names = {*inspect.signature(layer_class.__init__).parameters, *_COMMON_ARGUMENTS}
        accepted_config = {name: value for name, value in config.items() if name in accepted_names}
        if len(accepted_config) == len(config):
            raise
        try:
            return layer_class.from_config(accepted_config)
        except Exception:  # report the first error
            raise first from None


def _collect_custom_objects(operation: Any) -> dict[str, Any]:
    """Return the user's functions and classes that the config of a layer refers to, by name."""
    custom_objects: dict[str, Any] = {}
    parts = list_layers(operation) if isinstance(operation, keras.layers.Layer) else []
    for part in parts:
        candidates = [type(part), *(value for value in vars(part).values() if callable(value))]
        for value in candidates:
            owner = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
            if not (owner.__module__ or "").startswith(("keras.", "tensorflow.")):
                custom_objects[owner.__name__] = owner
    return custom_objects


def build_lenient_classes(path: Path) -> dict[str, Any]:
    """Return a lenient replacement for each user's class in a file, by registered name.

    Within a custom object scope of these classes, Keras loads layers whose configs hold more
    entries than their constructors take.

    Args:
        path: A model file. Only `.keras` files have such classes; for others the result is empty.
    """
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    lenient_classes = {}
    for name, module, class_name in sorted(_list_custom_classes(config)):
        # Keras has tried to load the file before: the classes that it may import are imported
        layer_class = keras.saving.get_registered_object(name)
        layer_class = layer_class or getattr(sys.modules.get(module), class_name, None)
        if isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer):
            # its from_config builds layers of the user's class
            make = staticmethod(partial(build_from_config, layer_class))
            lenient_classes[name] = type(layer_class.__name__, (), {"from_config": make})
    return lenient_classes


def _list_custom_classes(config: Any) -> set[tuple[str, str, str]]:
    """Return registered name, module and class name of the custom classes in a config."""
    if isinstance(config, list):
        return {item for part in config for item in _list_custom_classes(part)}
    if not isinstance(config, dict):
        return set()
    name, module, class_name = (
        str(config.get(key) or "") for key in ("registered_name", "module", "class_name")
    )
    inner_classes = {item for part in config.values() for item in _list_custom_classes(part)}
    is_custom = name and class_name and not module.startswith("keras.")
    return inner_classes | ({(name, module, class_name)} if is_custom else set())


def as_graph(model: keras.Model) -> keras.Model:
    """Return a model as a functional or Sequential model of Keras's own classes.

    Layers and weights are shared with the given model, not copied. Other parts of the user's class,
    such as its `train_step`, are dropped.

    Args:
        model: Any model. One with its own `call` is traced, see `compress.model.recording`.

    Raises:
        InputError: The model cannot be traced, or two of its layers have the same name.
    """
    if isinstance(model, keras.Sequential) and not is_graph(model):
        return model
    if is_graph(model) and not _has_lossy_parts(model):
        return model if is_keras(model) else keras.Model(model.input, model.output, name=model.name)
    # layers that cannot be saved in a file are opened where possible
    program = record_program(model, find_rebuild_failure)
    called: dict[int, Any] = {}

    def call(node: Node, values: list[Any]) -> Sequence[Any]:
        called[id(node.operation)] = node.operation
        results: Sequence[Any] = keras.tree.flatten(node.call(values, training=None))
        return results

    def enter_nested(node: Node, values: list[Any]) -> Sequence[Any]:
        nested = node.operation
        if is_graph(nested) and is_keras(nested) and not _has_lossy_parts(nested):
            return call(node, values)
        assert node.body is not None
        return node.body.interpret(call, values, enter_nested)

    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(program.inputs, program.input_names, strict=True)
    ]
    outputs = program.interpret(call, inputs, enter_nested)
    counts = Counter(operation.name for operation in called.values())
    repeated_name = next((name for name, count in counts.items() if count > 1), "")
    if repeated_name and is_graph(model):  # layers of different nested models may share a name
        return keras.Model(model.input, model.output, name=model.name)
    if repeated_name:
        raise InputError(
            f"Layers of model '{model.name}' ({type(model).__name__}) must have unique names. "
            f"Received: two layers '{repeated_name}'. Give them names of their own (name=)."
        )
    return keras.Model(
        keras.tree.pack_sequence_as(program.input_structure, inputs),
        keras.tree.pack_sequence_as(program.output_structure, outputs),
        name=model.name,
    )


def _has_lossy_parts(model: keras.Model) -> bool:
    """Return whether a graph has users' models, or layers that a file cannot hold."""
    parts = list_layers(model, include_self=False)
    return any(
        # a layer without weights of its own can be opened
        not is_keras(part)
        and (
            isinstance(part, keras.Model)
            or (find_rebuild_failure(part) and not list_direct_variables(part))
        )
        for part in parts
    )
