"""Table of rules, and helper functions for several families of rules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import keras
from compress.model.layers import RuleTable
from compress.prune.channels.coupling.slots import Ids, Kept, LayerCall, Shape, Slots, count_entries

Rule = Callable[[LayerCall], "list[Slots] | Slots"]
TABLE: RuleTable[Any] = RuleTable()
"""Rules `rule(call) -> Slots` by layer or operation class; see `Rule`."""
CONSTANT = "a constant operand"
ADAPTED = "LoRA and quantized kernels have no rule"
layer_rule, operation_rule = TABLE.register_layer, TABLE.register_operation
find_rule, list_rules = TABLE.find_rule, TABLE.list_rules


# elementwise activations with f(0) = 0
_ZERO = frozenset(
    [
        "linear",
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "swish",
        "hard_silu",
        "hard_swish",
        "tanh",
        "hard_tanh",
        "hard_shrink",
        "soft_shrink",
        "tanh_shrink",
        "softsign",
        "mish",
    ]
)
# elementwise activations with f(0) != 0
_NONZERO = frozenset(
    [
        "sigmoid",
        "hard_sigmoid",
        "sparse_sigmoid",
        "softplus",
        "sparse_plus",
        "squareplus",
        "exponential",
        "log_sigmoid",
        "threshold",
    ]
)
_OVER_LAST_AXIS = frozenset(["softmax", "log_softmax", "sparsemax"])


def register_rule(layer_class: type, rule: Rule | None = None) -> Any:
    """Register a channel-pruning rule for a custom layer; can be used as a decorator.

    Args:
        layer_class: Class of the layer; the rule also applies to subclasses that inherit its
            `call`.
        rule: Function of a `LayerCall` that returns the slots of the output (a list if there are
            several).

    Returns:
        The rule; without one, a decorator that registers it.
    """
    return TABLE.register(layer_class, rule)


def has_rule(operation: Any) -> bool:
    """Return whether an operation has a rule."""
    return find_rule(operation) is not None


def apply_rule(call: LayerCall) -> list[Slots]:
    """Return the output slots of a call by its rule; a call without a rule is opaque."""
    rule = find_rule(call.layer)
    if rule is None:
        return call.report_unknown("no rule for this class")
    if is_adapted(call.layer) and rule in list_rules():  # a custom rule may support it
        return call.report_unknown(ADAPTED)
    result = rule(call)
    return result if isinstance(result, list) else [result]


def is_adapted(layer: Any) -> bool:
    """Return whether a layer's kernel is quantized or has LoRA weights, which have no rule."""
    return hasattr(layer, "lora_enabled") and bool(layer.lora_enabled or layer.quantization_mode)


def get_arguments(call: LayerCall) -> dict[str, Any]:
    """Return the arguments of a call by name, in the order of the layer's signature."""
    signature = inspect.signature(call.layer.call)
    return dict(signature.bind_partial(*call.args, **call.kwargs).arguments)


def list_operands(call: LayerCall, values: Any) -> list[Slots]:
    """Return the slots of tensors and constants; those of constants are untracked."""
    by_tensor = _map_slots(call)
    slots = []
    for value in values:
        fixed = Slots(tuple(np.shape(value)), (None,) * np.ndim(value), origin=CONSTANT)
        slots.append(by_tensor.get(id(value), fixed))
    return slots


def _map_slots(call: LayerCall) -> dict[int, Slots]:
    return dict(zip(map(id, call.node.inputs), call.inputs, strict=True))


def is_symbolic(value: Any) -> bool:
    """Return whether an argument is a tensor of the graph."""
    return isinstance(value, keras.KerasTensor)


def has_variable(call: LayerCall) -> bool:
    """Return whether the arguments include a variable outside of layers."""
    flat = keras.tree.flatten((call.args, call.kwargs))
    return any(isinstance(value, keras.Variable) for value in flat)


def replace_argument(call: LayerCall, name: str, change: Callable[[Any, Kept], Any]) -> None:
    """Add an edit of one argument of this call.

    Args:
        call: The call.
        name: Name of the argument.
        change: Function (value, kept) -> new value; the value is None if the argument was omitted.
    """
    position = list(inspect.signature(call.layer.call).parameters).index(name)

    def replace_in_call(
        args: tuple[Any, ...], kwargs: dict[str, Any], kept: Kept
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if position < len(args):
            return (*args[:position], change(args[position], kept), *args[position + 1 :]), kwargs
        return args, {**kwargs, name: change(kwargs.get(name), kept)}

    call.add_call_edit(replace_in_call)


def normalize_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """Return the axes of an `axis` argument, counted from the front; None: all axes."""
    if axis is None:
        return tuple(range(rank))
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    return tuple(int(entry) % rank for entry in axes)


def map_axes(call: LayerCall, x: Slots, sources: list[int | None]) -> Slots:
    """Return an output whose axis i is axis `sources[i]` of x; None: a new axis."""
    axes: list[Ids | None] = [None if source is None else x.axes[source] for source in sources]
    return replace(x, shape=call.shapes[0], axes=tuple(axes))


def collect_tensors(call: LayerCall, first: str, rest: str = "") -> dict[str, list[Slots]]:
    """Return the slots of the tensors in each argument, and freeze those of masks.

    Args:
        call: The call. Inside another layer it has no arguments, only inputs.
        first: Argument that the first input then belongs to.
        rest: Argument that all further inputs then belong to.
    """
    if not call.args and not call.kwargs:
        return {first: call.inputs[:1], rest: call.inputs[1:]}
    by_tensor = _map_slots(call)
    slots_by_argument = {
        name: [by_tensor[id(part)] for part in keras.tree.flatten(value) if id(part) in by_tensor]
        for name, value in get_arguments(call).items()
    }
    for name, masks in slots_by_argument.items():
        for slots in masks if name.endswith("mask") else ():
            call.freeze_axes(slots, "it is a mask")
    return slots_by_argument


def link_broadcast_axes(call: LayerCall, inputs: Sequence[Slots]) -> dict[int, Ids | None]:
    """Link the axes of tensors that are broadcast to the first output, and return its axes."""
    rank = len(call.shapes[0])
    return {
        axis: link_axes(
            call,
            [(slots, axis - rank) for slots in inputs if len(slots.shape) >= rank - axis],
            size,
        )
        for axis, size in enumerate(call.shapes[0])
    }


def link_axes(call: LayerCall, places: Sequence[tuple[Slots, int]], size: int | None) -> Ids | None:
    """Link axes that are broadcast to one axis, and return its ids; None if all are untracked.

    They are frozen if one of them is fixed; an axis of a constant is not, because it can be sliced.

    Args:
        call: The call.
        places: Slots of each tensor, with the index of its axis.
        size: Size of the common axis.
    """
    linked: Ids | None = None
    fixed = ""
    for slots, axis in places:
        ids = slots.axes[axis]
        if slots.shape[axis] == 1 and size != 1:
            call.freeze(ids, "its only entry is broadcast")
        elif ids is not None:
            linked = ids if linked is None else call.link(linked, ids)
        elif slots.shape[axis] != 1 and slots.origin != CONSTANT:
            fixed = fixed or slots.origin or "it meets a fixed axis"
    if fixed:
        call.freeze(linked, fixed)
    return linked


def has_slots(call: LayerCall, slots: Slots, axis: int) -> bool:
    """Return whether a tensor has slots of its own on an axis of the first output."""
    shape = call.shapes[0]
    position = axis - (len(shape) - len(slots.shape))
    return (
        position >= 0 and slots.shape[position] == shape[axis] and slots.axes[position] is not None
    )


def is_product_zero(call: LayerCall, inputs: Sequence[Slots], tracked: Sequence[int]) -> bool:
    """Return whether a product is zero at all removed entries of the tracked axes."""
    zeros = [slots for slots in inputs if slots.zero]
    return all(any(has_slots(call, slots, axis) for slots in zeros) for axis in tracked)


def slice_constants(call: LayerCall, axes: dict[int, Sequence[Ids | None]]) -> None:
    """Add a call edit that slices constants among the arguments.

    Args:
        call: The call with the constants.
        axes: id of an array, list or tensor -> ids of the axes that it is broadcast to.
    """

    def slice_value(value: Any, kept: Kept) -> Any:
        return slice_constant(value, axes[id(value)], kept) if id(value) in axes else value

    if axes:
        call.add_call_edit(
            lambda args, kwargs, kept: (
                tuple(slice_value(value, kept) for value in args),
                {name: slice_value(value, kept) for name, value in kwargs.items()},
            )
        )


def slice_constant(value: Any, axes: Sequence[Ids | None], kept: Kept) -> Any:
    """Return a constant without the removed entries of the axes that it is broadcast to."""
    array = np.asarray(value)
    for axis in range(-array.ndim, 0):
        ids = axes[axis] if axis >= -len(axes) else None
        if ids is not None and array.shape[axis] == len(ids) > 1:
            array = np.take(array, kept(ids), axis=axis)
    return convert_like(value, array)


def convert_like(value: Any, array: npt.NDArray[Any]) -> Any:
    """Convert an array to the form (number, list, array or tensor) of a constant."""
    if array.shape == np.shape(value):
        return value
    if isinstance(value, (list, tuple)):  # numbers in lists take the dtype of the tensor operand
        return array.tolist()
    return array if isinstance(value, np.ndarray) else keras.ops.convert_to_tensor(array)


def find_channel_axis(layer: Any, rank: int) -> int:
    """Return the channel axis in the layer's data format."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def count_positions(shape: Shape, axis: int) -> int:
    """Return the number of positions: the product of all sizes except the batch and `axis`."""
    return count_entries(tuple(size for index, size in enumerate(shape) if index not in (0, axis)))


def freeze_other_axes(call: LayerCall, slots: Slots, axis: int, description: str) -> Slots:
    """Freeze all tracked axes except the channel axis.

    Args:
        call: The call.
        slots: Slots of a tensor.
        axis: The channel axis.
        description: Subject of the reason: "a window".

    Returns:
        The slots with the channel axis tracked only.
    """
    others = [other for other in slots.tracked if other != axis]
    if not others:
        return slots
    call.freeze_axes(slots, f"{description} runs along it", others)
    axes = tuple(ids if index == axis else None for index, ids in enumerate(slots.axes))
    return Slots(slots.shape, axes, slots.zero, slots.origin)


def apply_activation(call: LayerCall, slots: Slots, function: Any) -> Slots:
    """Return the slots after an activation function."""
    if function is None:
        return slots
    name = getattr(function, "__name__", type(function).__name__)
    if not getattr(function, "__module__", "").startswith("keras."):
        name = ""
    if name in _ZERO:
        return slots
    if name in _NONZERO | _OVER_LAST_AXIS:
        exact = name == "softmax" and set(slots.tracked) <= {len(slots.shape) - 1}
        return Slots(slots.shape, slots.axes, exact, slots.origin)
    pointwise, zero = analyze_activation(function)
    if pointwise:
        return Slots(slots.shape, slots.axes, slots.zero and zero, slots.origin)
    text = f"activation {name or function!r} mixes channels"
    call.freeze_axes(slots, text)
    return Slots(slots.shape, (None,) * len(slots.shape), origin=f"layer '{call.name}': {text}")


def analyze_activation(function: Any) -> tuple[bool, bool]:
    """Test whether a function is elementwise and whether it maps 0 to 0; if it fails: neither."""
    x = np.linspace(-2.0, 2.0, 10, dtype=np.float32).reshape(2, 5)
    try:
        full_output = np.asarray(keras.ops.convert_to_numpy(function(keras.ops.array(x))))
        partial_output = keras.ops.convert_to_numpy(function(keras.ops.array(x[:1, 1:3])))
        zero = keras.ops.convert_to_numpy(function(keras.ops.array(x * 0)))
    except Exception:  # user code that fails: treated as unknown
        return False, False
    same = full_output.shape == x.shape and np.allclose(
        full_output[:1, 1:3], partial_output, atol=1e-6
    )
    return bool(same), bool(np.all(zero == 0))
