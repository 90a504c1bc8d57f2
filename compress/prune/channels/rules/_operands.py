"""Arguments of raw operations: tensors with slots and constants, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Kept, Slots


def arguments(call: LayerCall) -> dict[str, Any]:
    """Returns the arguments of the operation's call by name, in the order of its signature."""
    signature = inspect.signature(call.layer.call)
    return dict(signature.bind(*call.args, **call.kwargs).arguments)


def slots_by_tensor(call: LayerCall) -> dict[int, Slots]:
    """Returns the slots of the symbolic tensors among the arguments, by id."""
    import keras

    flat = keras.tree.flatten((call.args, call.kwargs))
    tensors = [value for value in flat if isinstance(value, keras.KerasTensor)]
    return {id(tensor): slots for tensor, slots in zip(tensors, call.inputs, strict=True)}


def operands(call: LayerCall, values: Any) -> list[Slots]:
    """Returns the slots of tensors and constants; those of constants are untracked."""
    known = slots_by_tensor(call)
    found = []
    for value in values:
        fixed = Slots(tuple(np.shape(value)), (None,) * np.ndim(value), origin="a constant operand")
        found.append(known.get(id(value), fixed))
    return found


def symbolic(value: Any) -> bool:
    """Tells whether an argument is a tensor of the graph."""
    import keras

    return isinstance(value, keras.KerasTensor)


def holds_variable(call: LayerCall) -> bool:
    """Tells whether a variable that no layer owns is among the arguments."""
    import keras

    flat = keras.tree.flatten((call.args, call.kwargs))
    return any(isinstance(value, keras.Variable) for value in flat)


def edit_argument(call: LayerCall, name: str, change: Callable[[Any, Kept], Any]) -> None:
    """Changes one argument of this call; one that was left out is None before."""
    names = list(inspect.signature(call.layer.call).parameters)
    place = names.index(name)

    def edit(
        args: tuple[Any, ...], kwargs: dict[str, Any], kept: Kept
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if place < len(args):
            changed = change(args[place], kept)
            return (*args[:place], changed, *args[place + 1 :]), kwargs
        return args, {**kwargs, name: change(kwargs.get(name), kept)}

    call.edit_call(edit)


def axes_of(axis: Any, rank: int) -> tuple[int, ...]:
    """Returns the axes that an `axis` argument means, counted from the front; None: all."""
    if axis is None:
        return tuple(range(rank))
    each = axis if isinstance(axis, (list, tuple)) else (axis,)
    return tuple(int(one) % rank for one in each)


def arranged(call: LayerCall, x: Slots, sources: list[int | None]) -> Slots:
    """Returns an output whose axis i is axis `sources[i]` of x; None: a new one."""
    axes: list[Ids | None] = [None if source is None else x.axes[source] for source in sources]
    return replace(x, shape=call.shapes[0], axes=tuple(axes))
