"""The table of rules, and functions for several families of rules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import keras
from compress.model.layers import RuleTable
from compress.prune.channels.coupling.slots import Ids, Kept, LayerCall, Shape, Slots, sizes

Rule = Callable[[LayerCall], "list[Slots] | Slots"]
TABLE: RuleTable[Any] = RuleTable()
"""`rule(call) -> Slots`: see `Rule`."""
CONSTANT = "a constant operand"
ADAPTED = "LoRA and quantized kernels have no rule"
layer_rule, operation_rule = TABLE.layer, TABLE.operation
rule_for, names, all_rules = TABLE.of, TABLE.names, TABLE.rules


# activations with f(0) = 0, entry by entry
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
# entry by entry, f(0) is another number
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
    """Teach channel pruning a custom layer; usable as a decorator.

    Args:
        layer_class: The layer's class; subclasses that keep its `call` are meant too.
        rule: Takes a `LayerCall` and returns the slots of the output (a list for several).

    Returns:
        The rule.
    """
    return TABLE.register(layer_class, rule)


def known(operation: Any) -> bool:
    """Return whether there is a rule."""
    return rule_for(operation) is not None


def apply(call: LayerCall) -> list[Slots]:
    """Run the rule of a call; a call without one is opaque."""
    rule = rule_for(call.layer)
    if rule is None:
        return call.unknown("no rule for this class")
    if is_adapted(call.layer) and rule in all_rules():  # a rule of the user's may know it
        return call.unknown(ADAPTED)
    result = rule(call)
    return result if isinstance(result, list) else [result]


def is_adapted(layer: Any) -> bool:
    """Tell whether a layer's kernel is quantized or has a LoRA beside it: neither has a rule."""
    return hasattr(layer, "lora_enabled") and bool(layer.lora_enabled or layer.quantization_mode)


def arguments(call: LayerCall) -> dict[str, Any]:
    """Return the arguments of a call by name, in the order of the layer's signature."""
    signature = inspect.signature(call.layer.call)
    return dict(signature.bind_partial(*call.args, **call.kwargs).arguments)


def operands(call: LayerCall, values: Any) -> list[Slots]:
    """Return the slots of tensors and constants; those of constants are untracked."""
    by_tensor = _slots_by_tensor(call)
    found = []
    for value in values:
        fixed = Slots(tuple(np.shape(value)), (None,) * np.ndim(value), origin=CONSTANT)
        found.append(by_tensor.get(id(value), fixed))
    return found


def _slots_by_tensor(call: LayerCall) -> dict[int, Slots]:
    return dict(zip(map(id, call.node.inputs), call.inputs, strict=True))


def symbolic(value: Any) -> bool:
    """Return whether an argument is a tensor of the graph."""
    return isinstance(value, keras.KerasTensor)


def holds_variable(call: LayerCall) -> bool:
    """Return whether a variable that no layer owns is among the arguments."""
    flat = keras.tree.flatten((call.args, call.kwargs))
    return any(isinstance(value, keras.Variable) for value in flat)


def edit_argument(call: LayerCall, name: str, change: Callable[[Any, Kept], Any]) -> None:
    """Change one argument of this call; one that was left out is None before."""
    place = list(inspect.signature(call.layer.call).parameters).index(name)

    def edit(
        args: tuple[Any, ...], kwargs: dict[str, Any], kept: Kept
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if place < len(args):
            return (*args[:place], change(args[place], kept), *args[place + 1 :]), kwargs
        return args, {**kwargs, name: change(kwargs.get(name), kept)}

    call.edit_call(edit)


def axes_of(axis: Any, rank: int) -> tuple[int, ...]:
    """Return the axes that an `axis` argument means, counted from the front; None: all."""
    if axis is None:
        return tuple(range(rank))
    each = axis if isinstance(axis, (list, tuple)) else (axis,)
    return tuple(int(one) % rank for one in each)


def arranged(call: LayerCall, x: Slots, sources: list[int | None]) -> Slots:
    """Return an output whose axis i is axis `sources[i]` of x; None: a new one."""
    axes: list[Ids | None] = [None if source is None else x.axes[source] for source in sources]
    return replace(x, shape=call.shapes[0], axes=tuple(axes))


def tensors(call: LayerCall, first: str, rest: str = "") -> dict[str, list[Slots]]:
    """Return the slots of the tensors in each argument, and freezes those that are masks.

    Args:
        call: The call. Inside another layer it has no arguments, only inputs.
        first: The argument that the first input is then taken for.
        rest: The argument that all further inputs are then taken for.
    """
    if not call.args and not call.kwargs:
        return {first: call.inputs[:1], rest: call.inputs[1:]}
    by_tensor = _slots_by_tensor(call)
    found = {
        name: [by_tensor[id(part)] for part in keras.tree.flatten(value) if id(part) in by_tensor]
        for name, value in arguments(call).items()
    }
    for name, masks in found.items():
        for slots in masks if name.endswith("mask") else ():
            call.barrier(slots, "it is a mask")
    return found


def tied(call: LayerCall, inputs: Sequence[Slots]) -> dict[int, Ids | None]:
    """Tie the axes of tensors that are broadcast to the first output; returns its axes."""
    return {axis: _tie_axis(call, inputs, axis) for axis in range(len(call.shapes[0]))}


def _tie_axis(call: LayerCall, inputs: Sequence[Slots], axis: int) -> Ids | None:
    ids: Ids | None = None
    fixed, shape = "", call.shapes[0]
    for slots in inputs:
        place = axis - (len(shape) - len(slots.shape))
        if place < 0:
            continue
        own = slots.axes[place]
        if slots.shape[place] == 1 and shape[axis] != 1:
            call.freeze(own, "its only entry is broadcast")
        elif own is None and slots.shape[place] != 1:
            fixed = fixed or slots.origin or "it meets a fixed axis"
        elif own is not None:
            ids = own if ids is None else call.link(ids, own)
    if fixed:
        call.freeze(ids, fixed)
    return ids


def spans(call: LayerCall, slots: Slots, axis: int) -> bool:
    """Return whether a tensor has slots of its own on an axis of the first output."""
    shape = call.shapes[0]
    place = axis - (len(shape) - len(slots.shape))
    return place >= 0 and slots.shape[place] == shape[axis] and slots.axes[place] is not None


def vanishes(call: LayerCall, inputs: Sequence[Slots], tracked: Sequence[int]) -> bool:
    """Return whether a product is zero at all removed entries of the tracked axes."""
    zeros = [slots for slots in inputs if slots.zero]
    return all(any(spans(call, slots, axis) for slots in zeros) for axis in tracked)


def slice_constants(call: LayerCall, axes: dict[int, Sequence[Ids | None]]) -> None:
    """Let surgery slice constants among the arguments.

    Args:
        call: Takes them.
        axes: id of an array, list or tensor -> ids of the axes that it is broadcast to.
    """

    def sliced(value: Any, kept: Kept) -> Any:
        return sliced_constant(value, axes[id(value)], kept) if id(value) in axes else value

    if axes:
        call.edit_call(
            lambda args, kwargs, kept: (
                tuple(sliced(value, kept) for value in args),
                {name: sliced(value, kept) for name, value in kwargs.items()},
            )
        )


def sliced_constant(value: Any, axes: Sequence[Ids | None], kept: Kept) -> Any:
    """Return a constant without the removed entries of the axes that it is broadcast to."""
    array = np.asarray(value)
    for place in range(-array.ndim, 0):
        ids = axes[place] if place >= -len(axes) else None
        if ids is not None and array.shape[place] == len(ids) > 1:
            array = np.take(array, kept(ids), axis=place)
    return alike(value, array)


def alike(value: Any, array: npt.NDArray[Any]) -> Any:
    """Return an array in the form (number, list, array, tensor) that a constant had."""
    if array.shape == np.shape(value):
        return value
    if isinstance(value, (list, tuple)):  # numbers in lists take the dtype of the tensor
        return array.tolist()
    if isinstance(value, np.ndarray):
        return array
    return keras.ops.convert_to_tensor(array)


def channel_axis(layer: Any, rank: int) -> int:
    """Return the axis of the channels in the layer's data format."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def spatial_positions(shape: Shape, axis: int) -> int:
    """Return the number of positions: every size but the batch and `axis`."""
    return sizes(tuple(size for index, size in enumerate(shape) if index not in (0, axis)))


def channels_only(call: LayerCall, slots: Slots, axis: int, what: str) -> Slots:
    """Freeze what is tracked beside the channel axis and the batch."""
    others = [other for other in slots.tracked if other != axis]
    if not others:
        return slots
    call.barrier(slots, f"{what} runs along it", others)
    kept = tuple(ids if index == axis else None for index, ids in enumerate(slots.axes))
    return Slots(slots.shape, kept, slots.zero, slots.origin)


def activated(call: LayerCall, slots: Slots, function: Any) -> Slots:
    """Return the slots behind an activation function."""
    if function is None:
        return slots
    name = getattr(function, "__name__", type(function).__name__)
    if not getattr(function, "__module__", "").startswith("keras."):
        name = ""
    if name in _ZERO:
        return slots
    if name in _NONZERO:
        return Slots(slots.shape, slots.axes, False, slots.origin)
    if name in _OVER_LAST_AXIS:
        return over_axes(call, slots, (len(slots.shape) - 1,), exact=name == "softmax")
    pointwise, zero = probe(function)
    if pointwise:
        return Slots(slots.shape, slots.axes, slots.zero and zero, slots.origin)
    text = f"activation {name or function!r} mixes channels"
    call.barrier(slots, text)
    return Slots(slots.shape, (None,) * len(slots.shape), origin=f"layer '{call.name}': {text}")


def over_axes(call: LayerCall, slots: Slots, axes: Sequence[int], *, exact: bool = True) -> Slots:
    """Slots behind a layer whose statistics are those of the kept entries on `axes`.

    Args:
        call: The call.
        slots: Its input.
        axes: Reduced axes.
        exact: Removed entries of its output are zero.
    """
    for axis in axes:
        call.statistics(slots.axes[axis])
    return Slots(slots.shape, slots.axes, exact, slots.origin)


def probe(function: Any) -> tuple[bool, bool]:
    """Find by trial whether a function acts entry by entry and maps 0 to 0."""
    x = np.linspace(-2.0, 2.0, 10, dtype=np.float32).reshape(2, 5)
    try:
        whole = np.asarray(keras.ops.convert_to_numpy(function(keras.ops.array(x))))
        part = keras.ops.convert_to_numpy(function(keras.ops.array(x[:1, 1:3])))
        zero = keras.ops.convert_to_numpy(function(keras.ops.array(x * 0)))
    except Exception:  # user code: then nothing is known about it
        return False, False
    same = whole.shape == x.shape and np.allclose(whole[:1, 1:3], part, atol=1e-6)
    return bool(same), bool(np.all(zero == 0))
