"""Layers anew from their configs, and models of users' classes as plain graphs."""

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
from compress.model.internals import is_graph, layers_inside, own_variables
from compress.model.layers import is_keras
from compress.model.program import Node
from compress.model.recording import record

_OWN = ("name", "built", "autocast", "supports_jit", "call_signature_parameters")
"""Public attributes that Keras sets itself."""
_OF_ANY = ("name", "trainable", "dtype", "activity_regularizer", "autocast")
"""What every layer's constructor takes."""


def why_not_rebuildable(layer: Any, *, attributes: bool = True) -> str:
    """Return the reason that a layer cannot be rebuilt from its config; empty: it can.

    Keras's own layers are taken at their word. Of others the config is tried: whether a layer
    comes of it at all, and whether its plain attributes are those of the original.

    Args:
        layer: A layer or raw operation; nested models count as what they hold.
        attributes: Compare plain attributes too.
    """
    if not isinstance(layer, keras.layers.Layer):
        return ""
    if all(map(is_keras, layers_inside(layer))):
        return ""
    try:
        again = from_config(layer, config_of(layer))
    except Exception as error:  # user layers may raise anything here
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not attributes:
        return ""
    parts = layers_inside(layer), layers_inside(again)
    if [type(part) for part in parts[0]] != [type(part) for part in parts[1]]:
        parts = [layer], [again]  # the others are made when it is built
    for old, new in zip(*parts, strict=True):
        lost = _differing(vars(old), vars(new))
        if lost:
            before, after = vars(old)[lost], vars(new)[lost]
            return f"get_config() loses '{lost}': {before!r} becomes {after!r}"
    return ""


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    plain = (str, int, float, bool, type(None))
    for name, value in old.items():
        if name.startswith("_") or name in _OWN or name not in new:
            continue
        if isinstance(value, plain) and isinstance(new[name], plain) and value != new[name]:
            return name
    return ""


def config_of(operation: Any) -> dict[str, Any]:
    """Return a config; a raw operation's may hold values that cannot be serialized.

    Keras makes none for a layer that defines none and was given an object, as KerasHub gives its
    `Identity` layers a policy as their dtype.

    Raises:
        NotImplementedError: It has none, and attributes do not tell what it was made with.
    """
    try:
        return dict(operation.get_config())
    except NotImplementedError:
        taken = inspect.signature(type(operation)).parameters.values()
        names = [item.name for item in taken if item.kind is not inspect.Parameter.VAR_KEYWORD]
        layer = isinstance(operation, keras.layers.Layer)
        known = is_keras(operation) or not layer
        if not known or not all(hasattr(operation, name) for name in names):
            raise
        config = {name: getattr(operation, name) for name in names}
        if layer:
            policy = operation.dtype_policy
            # a plain one by its name, of which Keras makes a config from here on
            dtype = policy.name if type(policy) is keras.DTypePolicy else policy
            config |= {"name": operation.name, "trainable": operation.trainable, "dtype": dtype}
        return config


def from_config(operation: Any, config: dict[str, Any]) -> Any:
    """Make a layer of the class of `operation`; functions and classes in it need no registry."""
    with keras.saving.custom_object_scope(_own_objects(operation)):
        return of_class(type(operation), config)


def needs_leave(layer: Any) -> bool:
    """Return whether a layer comes of its config only where a part of that is left out.

    Keras itself does not read it from a file then; `compress.model.io.load_model` does.
    """
    config = config_of(layer)
    try:
        type(layer).from_config(dict(config))
    except Exception:  # user layers may raise anything here
        return True
    return False


def of_class(kind: Any, config: dict[str, Any]) -> Any:
    """Make a layer of a class, of a config that may tell more than its constructor takes.

    Some classes of others put what they have computed into their configs. It is left out where
    the constructor refuses it; that the layer is the same is for who asks to find out.

    Raises:
        Exception: Whatever the constructor raises.
    """
    try:
        return kind.from_config(dict(config))
    except (TypeError, ValueError) as first:
        taken = {*inspect.signature(kind.__init__).parameters, *_OF_ANY}
        less = {name: value for name, value in config.items() if name in taken}
        if len(less) == len(config):
            raise
        try:
            return kind.from_config(less)
        except Exception:  # what was wrong at first is told
            raise first from None


def _own_objects(operation: Any) -> dict[str, Any]:
    """Return a user's functions and classes that a layer's config names, by name."""
    found: dict[str, Any] = {}
    parts = layers_inside(operation) if isinstance(operation, keras.layers.Layer) else []
    for part in parts:
        candidates = [type(part), *(value for value in vars(part).values() if callable(value))]
        for value in candidates:
            owner = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
            if not (owner.__module__ or "").startswith(("keras.", "tensorflow.")):
                found[owner.__name__] = owner
    return found


def stand_ins(path: Path) -> dict[str, Any]:
    """Return a lenient stand-in for each user's class in a file, by its registered name.

    Within a scope of these Keras makes layers of others of configs with more in them than their
    constructors take.

    Args:
        path: A `.keras` file; of another one there are none.
    """
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    found = {}
    for name, module, class_name in sorted(_classes(config)):
        # Keras has tried before: what it knows and may import is there
        kind = keras.saving.get_registered_object(name)
        kind = kind or getattr(sys.modules.get(module), class_name, None)
        if isinstance(kind, type) and issubclass(kind, keras.layers.Layer):
            # a class that makes layers of another one
            make = staticmethod(partial(of_class, kind))
            found[name] = type(kind.__name__, (), {"from_config": make})
    return found


def _classes(config: Any) -> set[tuple[str, str, str]]:
    """Return registered name, module and name of the classes in a config that are not Keras's."""
    if isinstance(config, list):
        return {item for part in config for item in _classes(part)}
    if not isinstance(config, dict):
        return set()
    name, module, kind = (
        str(config.get(key) or "") for key in ("registered_name", "module", "class_name")
    )
    inside = {item for part in config.values() for item in _classes(part)}
    foreign = name and kind and not module.startswith("keras.")
    return inside | ({(name, module, kind)} if foreign else set())


def as_graph(model: keras.Model) -> keras.Model:
    """Return a model as a functional or Sequential one of Keras's own classes.

    Layers and weights are shared with the given model, not copied. What the user's class does
    beside answering, its `train_step` say, is not part of it.

    Args:
        model: Any model. One with a `call` of its own is traced, see `compress.model.recording`.

    Raises:
        InputError: It cannot be traced, or two layers in it have one name.
    """
    if isinstance(model, keras.Sequential) and not is_graph(model):
        return model
    if is_graph(model) and not _opened(model):
        return model if is_keras(model) else keras.Model(model.input, model.output, name=model.name)
    # what a file could not hold is opened as far as that goes
    program = record(model, why_not_rebuildable)
    called: dict[int, Any] = {}

    def call(node: Node, given: list[Any]) -> Sequence[Any]:
        called[id(node.operation)] = node.operation
        made: Sequence[Any] = keras.tree.flatten(node.call(given, training=None))
        return made

    def enter(node: Node, given: list[Any]) -> Sequence[Any]:
        nested = node.operation
        if is_graph(nested) and is_keras(nested) and not _opened(nested):
            return call(node, given)
        assert node.body is not None
        return node.body.interpret(call, given, enter)

    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        for tensor, name in zip(program.inputs, program.input_names, strict=True)
    ]
    outputs = program.interpret(call, inputs, enter)
    counts = Counter(operation.name for operation in called.values())
    twice = next((name for name, count in counts.items() if count > 1), "")
    if twice and is_graph(model):  # inside models of their own two may have one name
        return keras.Model(model.input, model.output, name=model.name)
    if twice:
        raise InputError(
            f"Layers of model '{model.name}' ({type(model).__name__}) must have unique names. "
            f"Received: two layers '{twice}'. Give them names of their own (name=)."
        )
    return keras.Model(
        keras.tree.pack_sequence_as(program.input_structure, inputs),
        keras.tree.pack_sequence_as(program.output_structure, outputs),
        name=model.name,
    )


def _opened(model: keras.Model) -> bool:
    """Return whether a graph has parts that a file would lose: foreign models, lost configs."""
    parts = layers_inside(model, include_self=False)
    return any(
        # a layer that holds no weights itself: its call may be read
        not is_keras(part)
        and (
            isinstance(part, keras.Model) or (why_not_rebuildable(part) and not own_variables(part))
        )
        for part in parts
    )
