"""Copies of models: layers anew from their configs, or object by object where these lack much.

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
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from compress.core.errors import InputError, is_too_small, reason_of
from compress.core.lazy_modules import keras, tf
from compress.model.internals import (
    is_graph,
    is_tracked,
    layers_inside,
    maker_of,
    new_operation,
    renew_state,
    uncompiled,
    variable_state,
    weights_changed,
)
from compress.model.layers import is_keras
from compress.model.ports import packed
from compress.model.program import Readers
from compress.model.rebuild import config_of, from_config, why_not_rebuildable
from compress.model.recording import record

SHARED = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type, inspect.Signature)
"""Kinds of values that copies share with the original, as `copy.deepcopy` does."""
CONTAINERS = (list, dict, set, OrderedDict)


def float32_model(model: keras.Model) -> keras.Model:
    """Return the model with every layer computing in float32.

    A model trained in mixed precision keeps float32 weights; exports and files should
    not carry the training card's compute type. Nor that of a constant: `x / np.sqrt(8)` is
    computed in float64 by Keras, because NumPy's scalar is, and converters refuse that.

    Args:
        model: A functional or Sequential model.

    Returns:
        The model itself where it computes in float32 already, else a clone with equal
        weights.
    """
    single = all(layer.compute_dtype == "float32" for layer in layers_inside(model))
    if single and not any(
        _is_double(item)
        for node in record(model).walk()
        for item in keras.tree.flatten((node.args, node.kwargs))
    ):
        return model
    return _cloned(model, "float32")


def _is_double(item: Any) -> bool:
    return isinstance(item, np.ndarray | np.generic) and item.dtype == np.float64


def _called_in_single(operation: Any, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = keras.tree.map_structure(
        lambda item: np.float32(item) if _is_double(item) else item, (args, kwargs)
    )
    return operation(*args, **kwargs)


def copy_model(model: keras.Model) -> keras.Model:
    """Return a model of the same layers and names with its own copies of the weights.

    Layers that their configs do not make again are copied as objects.

    Args:
        model: A functional or Sequential model.

    Raises:
        InputError: A layer can neither be rebuilt from its config nor copied.
    """
    return _cloned(model, None)


def sized_model(model: keras.Model, shapes: Sequence[Sequence[int]]) -> keras.Model:
    """Return a model for examples of known shapes.

    Args:
        model: Functional or Sequential.
        shapes: Of one example, one an input that fits it.

    Returns:
        The model itself where it says its sizes already, else one around it.

    Raises:
        InputError: A size is too small, or another one that a layer does not take.
    """
    if all(None not in tuple(tensor.shape)[1:] for tensor in model.inputs):
        return model
    inputs = [
        keras.Input(tuple(shape), dtype=tensor.dtype, name=tensor.name)
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    given = packed(model, inputs)
    try:
        outputs = model(given)
    except ValueError as error:
        reason = reason_of(error)
        sizes = ", ".join(str(tuple(shape)) for shape in shapes)
        small = "Is the input too small for its layers? " if is_too_small(error) else ""
        raise InputError(
            f"Model '{model.name}' must take inputs of the size that it is given. Received: "
            f"{sizes}: {reason} {small}Give another size."
        ) from None
    return keras.Model(given, outputs, name=model.name)


def with_indices(model: keras.Model) -> keras.Model:
    """Return a model with integer inputs in place of those that only embeddings read.

    Keras feeds real numbers unless it is told otherwise, and an embedding makes indices of them.
    In a file of integers such an input would be quantized, and other indices come of it.

    Args:
        model: A functional or Sequential model; not changed.

    Returns:
        The model itself where no input is such, else a copy.
    """
    indices = {
        place for place in read_by_embeddings(model) if "float" in str(model.inputs[place].dtype)
    }
    return clone(model, Copier(), indices=indices) if indices else model


def read_by_embeddings(model: keras.Model) -> set[int]:
    """Return the places of the inputs that embeddings read, and nothing else."""
    program = record(model)
    readers = Readers(program.nodes)
    found = set()
    for place, tensor in enumerate(program.inputs):
        calls = readers.users(tensor)
        if calls and all(isinstance(call.operation, keras.layers.Embedding) for call in calls):
            found.add(place)
    return found


def _cloned(model: keras.Model, dtype: str | None) -> keras.Model:
    try:
        return clone(model, Copier(), dtype)
    except InputError:
        raise
    except Exception:  # a layer that comes of its config may still fail where it is called
        return clone(model, Copier(), dtype, by_config=False)


def clone(
    model: keras.Model,
    copier: Copier,
    dtype: str | None = None,
    *,
    by_config: bool = True,
    indices: Collection[int] = (),
) -> keras.Model:
    """Make a model of the same layers, nested ones too, with equal weights.

    Args:
        model: A functional or Sequential model.
        copier: Holds what was made: layers that several models share stay shared.
        dtype: What all layers compute in; default: as they did.
        by_config: Rebuild users' layers from their configs where these tell all.
        indices: Places of inputs that become int32.

    Raises:
        InputError: A layer can neither be rebuilt from its config nor copied.
    """

    def again(layer: Any) -> Any:
        if id(layer) not in copier.made:
            copier.keep(layer, made(layer))
        return copier.made[id(layer)]

    def made(layer: Any) -> Any:
        if isinstance(layer, keras.Model) and is_graph(layer):
            return clone(layer, copier, dtype, by_config=by_config)
        own = by_config or is_keras(layer)
        if own and not why_not_rebuildable(layer):
            try:
                config = config_of(layer)
                if dtype and isinstance(layer, keras.layers.Layer):
                    config["dtype"] = dtype
                return from_config(layer, config)
            except Exception:  # the object itself is copied then
                pass
        copied = copier.layer(layer)
        for part in copier.layers if dtype else ():
            part.dtype_policy = dtype
        return copied

    # given inputs of their own, clones keep the names of the input layers too
    sequential = isinstance(model, keras.Sequential)
    whole = {id(model.inputs[place]) for place in indices}
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(
            batch_shape=tensor.shape,
            dtype="int32" if id(tensor) in whole else tensor.dtype,
            name=maker_of(tensor).name,
        ),
        model.inputs if sequential else model.input,
    )
    # Keras would compile the clone from a config, in which functions of the user's own are names
    with uncompiled(model):
        cloned = keras.models.clone_model(
            model,
            inputs,
            clone_function=again,
            call_function=_called_in_single if dtype == "float32" and not sequential else None,
        )
    cloned.set_weights(model.get_weights())
    weights_changed(cloned)
    return cloned


class Copier:
    """Copier of layers, object by object, that keeps shared objects shared.

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
        """Return a copy of a layer or raw operation with copies of its weights.

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
        if isinstance(made, keras.layers.Layer):
            weights_changed(made)
        return made

    def keep(self, original: Any, made: Any) -> None:
        """Record that `made` stands for `original` from now on."""
        self._alive.append(original)
        self.made[id(original)] = made

    def _copied(self, value: Any) -> Any:
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
        if isinstance(value, keras.Model) and is_graph(value):
            return clone(value, self)
        if isinstance(value, keras.Operation):
            return self._operation(value)
        if isinstance(value, tuple):
            items = [self._copied(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if type(value) in CONTAINERS or is_tracked(value):
            return self._container(value)
        if _plain_object(value):
            return self._object(value, object.__new__(type(value)), ())
        self._alive.append(value)
        return copy.deepcopy(value, self.made)

    def _function(self, function: types.FunctionType) -> Any:
        """Copy a function where it holds a layer or weight, else shares it."""
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
        made, fresh = new_operation(value)
        if isinstance(value, keras.layers.Layer):
            self.layers.append(made)
        self._object(value, made, fresh)
        renew_state(made, fresh)
        return made

    def _variable(self, value: Any) -> Any:
        made = object.__new__(type(value))
        fresh = variable_state(value)
        self._object(value, made, fresh)
        vars(made).update(fresh)
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
    """Return whether an object consists of its attributes and defines no way of copying."""
    hooks = (
        "__reduce__", "__reduce_ex__", "__deepcopy__", "__getstate__", "__setstate__", "__slots__"
    )  # fmt: skip
    parents = type(value).__mro__[:-1]  # but for object itself
    said = any(vars(parent).get(name) for parent in parents for name in hooks)
    return hasattr(value, "__dict__") and not said
