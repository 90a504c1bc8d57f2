"""Copies of layers: anew from their configs, or object by object where a config does not tell all.

A user's layer may not be rebuildable: `get_config()` lacks an argument of the constructor, or an
argument is no plain value. As long as nothing about such a layer changes, a copy of the object
itself, its weights and the layers in it serves as well.
"""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from compress import graph
from compress.errors import InputError

SHARED = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type, inspect.Signature)
"""Kinds of values that copies share with the original, as `copy.deepcopy` does."""
CONTAINERS = (list, dict, set, OrderedDict)
_OWN = ("name", "built", "autocast", "supports_jit", "call_signature_parameters")
"""Public attributes that Keras sets itself."""


def why_not_rebuildable(layer: Any, *, attributes: bool = True) -> str:
    """Says why a layer's config does not make it again; empty: it does.

    Keras's own layers are taken at their word. Of others the config is tried: whether a layer
    comes of it at all, and whether its plain attributes are those of the original.

    Args:
        layer: A layer or raw operation; nested models count as what they hold.
        attributes: Compare plain attributes too.
    """
    import keras

    if not isinstance(layer, keras.layers.Layer):
        return ""
    if all(type(part).__module__.startswith("keras.") for part in layer._flatten_layers()):
        return ""
    try:
        again = from_config(layer, config_of(layer))
    except Exception as error:  # user layers may raise anything here
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if not attributes:
        return ""
    parts = list(layer._flatten_layers()), list(again._flatten_layers())
    if [type(part) for part in parts[0]] != [type(part) for part in parts[1]]:
        parts = [layer], [again]  # the others are made when it is built
    for old, new in zip(*parts, strict=True):
        lost = _differing(vars(old), vars(new))
        if lost:
            before, after = vars(old)[lost], vars(new)[lost]
            return f"get_config() loses '{lost}': {before!r} becomes {after!r}"
    return ""


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Returns the first plain public attribute that differs, or nothing."""
    plain = (str, int, float, bool, type(None))
    for name, value in old.items():
        if name.startswith("_") or name in _OWN or name not in new:
            continue
        if isinstance(value, plain) and isinstance(new[name], plain) and value != new[name]:
            return name
    return ""


def config_of(operation: Any) -> dict[str, Any]:
    """Returns a config; that of a raw operation may hold what cannot be serialized."""
    import keras

    try:
        return dict(operation.get_config())
    except NotImplementedError:
        names = list(inspect.signature(type(operation)).parameters)
        layer = isinstance(operation, keras.layers.Layer)
        if layer or not all(hasattr(operation, name) for name in names):
            raise
        return {name: getattr(operation, name) for name in names}


def from_config(operation: Any, config: dict[str, Any]) -> Any:
    """Makes a layer of the class of `operation`; functions and classes in it need no registry."""
    import keras

    with keras.saving.custom_object_scope(_own_objects(operation)):
        return type(operation).from_config(config)


def _own_objects(operation: Any) -> dict[str, Any]:
    """Returns a user's functions and classes that a layer's config names, by name."""
    import keras

    found: dict[str, Any] = {}
    parts = operation._flatten_layers() if isinstance(operation, keras.layers.Layer) else ()
    for part in parts:
        candidates = [type(part), *(value for value in vars(part).values() if callable(value))]
        for value in candidates:
            owner = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
            if not (owner.__module__ or "").startswith(("keras.", "tensorflow.")):
                found[owner.__name__] = owner
    return found


class Copier:
    """Copies layers object by object; what two of them share is shared by their copies too.

    Attributes:
        made: id(original) -> copy. Put a layer's successor here before others that hold it
            are copied, and they hold the successor.
        layers: Copies of layers, those inside of others too.
    """

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        self.layers: list[Any] = []
        self._alive: list[Any] = []  # originals, whose ids stand in `made`

    def layer(self, layer: Any) -> Any:
        """Returns a copy of a layer or raw operation with copies of its weights.

        It was never called: it belongs to no graph.

        Raises:
            InputError: It holds something that cannot be copied.
        """
        try:
            made = self._copied(layer)
        except InputError:
            raise
        except Exception as error:  # a user's objects may raise anything when they are copied
            text = " ".join(str(error).split())[:200]
            raise InputError(
                f"Layer '{layer.name}' ({type(layer).__name__}) must be rebuildable from its "
                f"config, or hold only what can be copied. Received: {text}. Implement "
                "get_config() and from_config()."
            ) from None
        if hasattr(made, "_flatten_layers"):
            graph.weights_changed(made)
        return made

    def keep(self, original: Any, made: Any) -> None:
        """Says that `made` stands for `original` from now on."""
        self._alive.append(original)
        self.made[id(original)] = made

    def _copied(self, value: Any) -> Any:
        import keras
        import tensorflow as tf

        if id(value) in self.made:
            return self.made[id(value)]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, SHARED) or value is None or isinstance(value, str | int | float):
            return value
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self._copied(value.__self__))
        if isinstance(value, functools.partial):
            args, named = self._copied(value.args), self._copied(value.keywords)
            return functools.partial(self._copied(value.func), *args, **named)
        if isinstance(value, keras.Variable):
            return self._variable(value)
        if isinstance(value, keras.KerasTensor | tf.Tensor | keras.DTypePolicy):
            return value
        if isinstance(value, keras.Model) and graph.is_graph(value):
            from compress.io import clone

            return clone(value, self)
        if isinstance(value, keras.Operation):
            return self._operation(value)
        if isinstance(value, tuple):
            items = [self._copied(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        tracked = type(value).__module__ == "keras.src.utils.tracking"
        if type(value) in CONTAINERS or (tracked and isinstance(value, list | set | dict)):
            return self._container(value)
        if _plain_object(value):
            return self._object(value, object.__new__(type(value)), ())
        self._alive.append(value)
        return copy.deepcopy(value, self.made)

    def _function(self, function: types.FunctionType) -> Any:
        """Copies a function where it holds a layer or weight, else shares it."""
        import keras

        cells = function.__closure__ or ()
        held = [cell.cell_contents for cell in cells if _filled(cell)]
        live = keras.Operation | keras.Variable
        if not any(isinstance(value, live) or id(value) in self.made for value in held):
            return function
        made = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            tuple(
                types.CellType(self._copied(cell.cell_contents)) if _filled(cell) else cell
                for cell in cells
            ),
        )
        made.__kwdefaults__ = function.__kwdefaults__
        self.keep(function, made)
        return made

    def _operation(self, value: Any) -> Any:
        import keras

        # Keras wraps `build` and `quantize` of each object: the new one has its own
        if isinstance(value, keras.layers.Layer):
            made = keras.layers.Layer.__new__(type(value))
            self.layers.append(made)
        else:
            made = object.__new__(type(value))
        fresh = {name: vars(made)[name] for name in ("build", "quantize") if name in vars(made)} | {
            "_inbound_nodes": [],
            "_outbound_nodes": [],
            "_losses": [],
            "_loss_ids": set(),
        }
        if isinstance(value, keras.Model):
            functions = ("train_function", "test_function", "predict_function", "optimizer")
            fresh |= dict.fromkeys(functions) | {"compiled": False}
        fresh = {name: item for name, item in fresh.items() if name in vars(value)}
        self._object(value, made, fresh)
        vars(made).update(fresh)
        tracker = vars(made).get("_tracker")
        if tracker is not None:
            for name, (_, stored) in tracker.config.items():
                tracker.stored_ids[name] = {id(item) for item in stored}
        return made

    def _variable(self, value: Any) -> Any:
        made = object.__new__(type(value))
        shared = ("_initializer", "_regularizer", "_constraint")
        self._object(value, made, (*shared, "_value"))
        vars(made).update({name: vars(value)[name] for name in shared if name in vars(value)})
        vars(made)["_value"] = copy.deepcopy(value._value)
        return made

    def _container(self, value: Any) -> Any:
        # Keras's tracked containers know their layer's tracker: an attribute, set last
        made = type(value)()
        self.keep(value, made)
        if isinstance(value, dict):
            kind = OrderedDict if isinstance(value, OrderedDict) else dict
            for key, item in value.items():
                kind.__setitem__(made, self._copied(key), self._copied(item))
        elif isinstance(value, set):
            set.update(made, {self._copied(item) for item in value})
        else:
            list.extend(made, [self._copied(item) for item in value])
        for name, item in getattr(value, "__dict__", {}).items():
            vars(made)[name] = self._copied(item)
        return made

    def _object(self, value: Any, made: Any, skipped: Iterable[str]) -> Any:
        self.keep(value, made)
        for name, item in list(vars(value).items()):
            if name not in skipped:
                vars(made)[name] = self._copied(item)
        return made


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _plain_object(value: Any) -> bool:
    """Tells whether an object is all in its attributes: nothing says how to copy it otherwise."""
    hooks = (
        "__reduce__", "__reduce_ex__", "__deepcopy__", "__getstate__", "__setstate__", "__slots__"
    )  # fmt: skip
    parents = type(value).__mro__[:-1]  # but for object itself
    said = any(vars(parent).get(name) for parent in parents for name in hooks)
    return hasattr(value, "__dict__") and not said
