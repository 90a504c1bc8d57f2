"""Copies of models: layers are rebuilt from their configs, or copied object by object.

A user's layer may not be rebuildable because `get_config()` lacks an argument of the constructor,
or because an argument is no plain value. If the layer itself does not change, a copy of the object
with its weights and inner layers is sufficient.
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

from compress.core.errors import InputError, extract_reason, is_input_too_small
from compress.core.lazy_modules import keras, tf
from compress.model.keras_internals import (
    apply_fresh_state,
    copy_variable_state,
    create_empty_copy,
    find_producer,
    is_graph,
    is_tracked,
    list_layers,
    set_attributes,
    update_derived_state,
)
from compress.model.layers import is_keras
from compress.model.ports import pack_inputs
from compress.model.program import TensorReaders
from compress.model.rebuild import find_rebuild_failure, read_layer_config, rebuild_from_config
from compress.model.recording import record_program

SHARED_TYPES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    type,
    inspect.Signature,
)
"""Types whose values copies share with the original, as in `copy.deepcopy`."""
CONTAINER_TYPES = (list, dict, set, OrderedDict)


def convert_to_float32(model: keras.Model) -> keras.Model:
    """Return the model with all layers computing in float32.

    A model trained in mixed precision has float32 weights; exports and files should not keep the
    compute type of the training GPU. Constants are converted as well: Keras computes `x /
    np.sqrt(8)` in float64 because NumPy's scalar is float64, and converters reject that.

    Args:
        model: A functional or Sequential model.

    Returns:
        The model itself if it already computes in float32, otherwise a clone with equal weights.
    """
    is_float32 = all(layer.compute_dtype == "float32" for layer in list_layers(model))
    if is_float32 and not any(
        _is_float64(item)
        for node in record_program(model).walk()
        for item in keras.tree.flatten((node.args, node.kwargs))
    ):
        return model
    return _clone_or_copy(model, "float32")


def _is_float64(item: Any) -> bool:
    return isinstance(item, np.ndarray | np.generic) and item.dtype == np.float64


def _call_in_float32(operation: Any, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = keras.tree.map_structure(
        lambda item: np.float32(item) if _is_float64(item) else item, (args, kwargs)
    )
    return operation(*args, **kwargs)


def copy_model(model: keras.Model) -> keras.Model:
    """Return a copy of a model with the same layers and names and its own weights.

    Layers that cannot be rebuilt from their configs are copied as objects.

    Args:
        model: A functional or Sequential model.

    Raises:
        InputError: A layer can neither be rebuilt from its config nor copied.
    """
    return _clone_or_copy(model, None)


def fix_input_shapes(model: keras.Model, shapes: Sequence[Sequence[int]]) -> keras.Model:
    """Return a model with fixed input sizes.

    Args:
        model: Functional or Sequential.
        shapes: Shape of one example of each input, without the batch axis; it must fit the input.

    Returns:
        The model itself if all its input sizes are known, otherwise a model around it.

    Raises:
        InputError: A layer does not accept a size, for example because it is too small.
    """
    if all(None not in tuple(tensor.shape)[1:] for tensor in model.inputs):
        return model
    inputs = [
        keras.Input(tuple(shape), dtype=tensor.dtype, name=tensor.name)
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    model_inputs = pack_inputs(model, inputs)
    try:
        outputs = model(model_inputs)
    except ValueError as error:
        reason = extract_reason(error)
        sizes = ", ".join(str(tuple(shape)) for shape in shapes)
        hint = "Is the input too small for its layers? " if is_input_too_small(error) else ""
        raise InputError(
            f"Model '{model.name}' must take inputs of the size that it is given. Received: "
            f"{sizes}: {reason} {hint}Give another size."
        ) from None
    return keras.Model(model_inputs, outputs, name=model.name)


def convert_index_inputs(model: keras.Model) -> keras.Model:
    """Return a model with integer inputs where only embeddings read them.

    Keras inputs are floating-point by default, and an embedding converts them to indices. In an
    int8 file such an input would be quantized, which changes the indices.

    Args:
        model: A functional or Sequential model; it is not changed.

    Returns:
        The model itself if it has no such input, otherwise a copy.
    """
    indices = {
        index for index in find_index_inputs(model) if "float" in str(model.inputs[index].dtype)
    }
    return clone_model(model, Copier(), integer_inputs=indices) if indices else model


def find_index_inputs(model: keras.Model) -> set[int]:
    """Return the positions of the inputs that only embeddings read."""
    program = record_program(model)
    readers = TensorReaders(program.nodes)
    indices = set()
    for index, tensor in enumerate(program.inputs):
        calls = readers.list_readers(tensor)
        if calls and all(isinstance(call.operation, keras.layers.Embedding) for call in calls):
            indices.add(index)
    return indices


def _clone_or_copy(model: keras.Model, dtype: str | None) -> keras.Model:
    try:
        return clone_model(model, Copier(), dtype)
    except InputError:
        raise
    except Exception:  # a layer rebuilt from its config may still fail when it is called
        return clone_model(model, Copier(), dtype, by_config=False)


def clone_model(
    model: keras.Model,
    copier: Copier,
    dtype: str | None = None,
    *,
    by_config: bool = True,
    integer_inputs: Collection[int] = (),
) -> keras.Model:
    """Clone a model with its nested layers and the same weights.

    Args:
        model: A functional or Sequential model.
        copier: Records the copies, so that layers shared by several models stay shared.
        dtype: Compute dtype of all layers. Default: that of the original.
        by_config: Rebuild users' layers from their configs if these are complete.
        integer_inputs: Positions of the inputs that become int32.

    Raises:
        InputError: A layer can neither be rebuilt from its config nor copied.
    """

    def clone_layer(layer: Any) -> Any:
        if id(layer) not in copier.copies:
            copier.register(layer, build_layer(layer))
        return copier.copies[id(layer)]

    def build_layer(layer: Any) -> Any:
        if isinstance(layer, keras.Model) and is_graph(layer):
            return clone_model(layer, copier, dtype, by_config=by_config)
        can_rebuild = by_config or is_keras(layer)
        if can_rebuild and not find_rebuild_failure(layer):
            try:
                config = read_layer_config(layer)
                if dtype and isinstance(layer, keras.layers.Layer):
                    config["dtype"] = dtype
                return rebuild_from_config(layer, config)
            except Exception:  # fall back to a copy of the object
                pass
        copied = copier.copy_layer(layer)
        for part in copier.layers if dtype else ():
            part.dtype_policy = dtype
        return copied

    # explicit inputs keep the names of the input layers
    is_sequential = isinstance(model, keras.Sequential)
    integer_ids = {id(model.inputs[index]) for index in integer_inputs}
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(
            batch_shape=tensor.shape,
            dtype="int32" if id(tensor) in integer_ids else tensor.dtype,
            name=find_producer(tensor).name,
        ),
        model.inputs if is_sequential else model.input,
    )
    # Keras would compile the clone from a config, in which users' functions are only names
    with set_attributes([(model, "compiled", False)]):
        cloned = keras.models.clone_model(
            model,
            inputs,
            clone_function=clone_layer,
            call_function=_call_in_float32 if dtype == "float32" and not is_sequential else None,
        )
    cloned.set_weights(model.get_weights())
    update_derived_state(cloned)
    return cloned


class Copier:
    """Object-by-object copier of layers that keeps shared objects shared.

    Attributes:
        copies: Copies by id of the original. If a replacement of a layer is registered before the
            layers that hold it are copied, the copies hold the replacement.
        layers: Copied layers, including inner ones.
    """

    def __init__(self) -> None:
        self.copies: dict[int, Any] = {}
        self.layers: list[Any] = []
        self._alive: list[Any] = []  # originals, whose ids are keys of `copies`

    def copy_layer(self, layer: Any) -> Any:
        """Return a copy of a layer or raw operation with copies of its weights.

        The copy belongs to no graph, as if it had never been called.

        Raises:
            InputError: The layer holds something that cannot be copied.
        """
        try:
            copied = self._copy(layer)
        except InputError:
            raise
        except Exception as error:  # users' objects may raise anything when copied
            text = " ".join(str(error).split())[:200]
            raise InputError(
                f"Layer '{layer.name}' ({type(layer).__name__}) must be rebuildable from its "
                f"config, or hold only what can be copied. Received: {text}. Implement "
                "get_config() and from_config()."
            ) from None
        if isinstance(copied, keras.layers.Layer):
            update_derived_state(copied)
        return copied

    def register(self, original: Any, copied: Any) -> None:
        """Record `copied` as the copy of `original`."""
        self._alive.append(original)
        self.copies[id(original)] = copied

    def _copy(self, value: Any) -> Any:
        """Return the one copy of a value; constants, tensors and stateless functions are shared."""
        if id(value) in self.copies:
            return self.copies[id(value)]
        if isinstance(value, types.FunctionType):
            return self._copy_function(value)
        if isinstance(value, SHARED_TYPES) or value is None or isinstance(value, str | int | float):
            return value
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self._copy(value.__self__))
        if isinstance(value, functools.partial):
            args, named = self._copy(value.args), self._copy(value.keywords)
            return functools.partial(self._copy(value.func), *args, **named)
        if isinstance(value, keras.Variable):
            return self._copy_variable(value)
        if isinstance(value, keras.KerasTensor | tf.Tensor | keras.DTypePolicy):
            return value
        if isinstance(value, keras.Model) and is_graph(value):
            return clone_model(value, self)
        if isinstance(value, keras.Operation):
            return self._copy_operation(value)
        if isinstance(value, tuple):
            items = [self._copy(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if type(value) in CONTAINER_TYPES or is_tracked(value):
            return self._copy_container(value)
        if _is_plain_object(value):
            return self._copy_object(value, object.__new__(type(value)), ())
        self._alive.append(value)
        return copy.deepcopy(value, self.copies)

    def _copy_function(self, function: types.FunctionType) -> Any:
        """Copy a function that captures a layer or weight; return any other function itself."""
        cells = function.__closure__ or ()
        captured = [cell.cell_contents for cell in cells if _has_contents(cell)]
        stateful = keras.Operation | keras.Variable
        if not any(isinstance(value, stateful) or id(value) in self.copies for value in captured):
            return function
        copied = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            tuple(
                types.CellType(self._copy(cell.cell_contents)) if _has_contents(cell) else cell
                for cell in cells
            ),
        )
        copied.__kwdefaults__ = function.__kwdefaults__
        self.register(function, copied)
        return copied

    def _copy_operation(self, value: Any) -> Any:
        copied, fresh_state = create_empty_copy(value)
        if isinstance(value, keras.layers.Layer):
            self.layers.append(copied)
        self._copy_object(value, copied, fresh_state)
        apply_fresh_state(copied, fresh_state)
        return copied

    def _copy_variable(self, value: Any) -> Any:
        copied = object.__new__(type(value))
        fresh_state = copy_variable_state(value)
        self._copy_object(value, copied, fresh_state)
        vars(copied).update(fresh_state)
        return copied

    def _copy_container(self, value: Any) -> Any:
        """Return a copy of a list, dict or set, with items and attributes copied and type kept."""
        # a tracked container refers to the tracker of its layer: that attribute is set last
        copied = type(value)()
        self.register(value, copied)
        if isinstance(value, dict):
            kind = OrderedDict if isinstance(value, OrderedDict) else dict
            for key, item in value.items():
                kind.__setitem__(copied, self._copy(key), self._copy(item))
        elif isinstance(value, set):
            set.update(copied, {self._copy(item) for item in value})
        else:
            list.extend(copied, [self._copy(item) for item in value])
        for name, item in getattr(value, "__dict__", {}).items():
            vars(copied)[name] = self._copy(item)
        return copied

    def _copy_object(self, value: Any, copied: Any, skipped: Iterable[str]) -> Any:
        self.register(value, copied)
        for name, item in list(vars(value).items()):
            if name not in skipped:
                vars(copied)[name] = self._copy(item)
        return copied


def _has_contents(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _is_plain_object(value: Any) -> bool:
    """Return whether an object consists of its attributes and defines no copy hooks."""
    hooks = (
        "__reduce__", "__reduce_ex__", "__deepcopy__", "__getstate__", "__setstate__", "__slots__"
    )  # fmt: skip
    parents = type(value).__mro__[:-1]  # all but object
    has_hook = any(vars(parent).get(name) for parent in parents for name in hooks)
    return hasattr(value, "__dict__") and not has_hook
