"""Which argument of a call a tensor was passed as."""

from __future__ import annotations

import inspect
from typing import Any

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Slots


def values(call: LayerCall) -> dict[str, Any]:
    """Returns the arguments of a call by their names in the layer's `call`."""
    names = inspect.signature(call.layer.call).parameters
    return {**dict(zip(names, call.args, strict=False)), **call.kwargs}


def tensors(call: LayerCall, first: str, rest: str = "") -> dict[str, list[Slots]]:
    """Returns the slots of the tensors in each argument; nested ones are made flat.

    Args:
        call: The call. Inside another layer it has no arguments, only inputs.
        first: The argument that the first input is then taken for.
        rest: The argument that all further inputs are then taken for.
    """
    import keras

    flat = _symbolic(keras, (call.args, call.kwargs))
    if not flat:
        return {first: call.inputs[:1], rest: call.inputs[1:]}
    slots = {id(tensor): own for tensor, own in zip(flat, call.inputs, strict=True)}
    return {
        name: [slots[id(tensor)] for tensor in _symbolic(keras, value)]
        for name, value in values(call).items()
    }


def masks_fixed(call: LayerCall, given: dict[str, list[Slots]]) -> None:
    """Freezes what is tracked on tensors that were passed as masks."""
    for name, found in given.items():
        if name.endswith("mask"):
            for slots in found:
                call.barrier(slots, "it is a mask")


def _symbolic(keras: Any, structure: Any) -> list[Any]:
    flat = keras.tree.flatten(structure)
    return [value for value in flat if isinstance(value, keras.KerasTensor)]
