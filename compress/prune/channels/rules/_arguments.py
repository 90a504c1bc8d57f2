"""Which argument of a call a tensor was passed as."""

from __future__ import annotations

import inspect
from typing import Any

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Slots


def values(site: Site) -> dict[str, Any]:
    """Returns the arguments of a call by their names in the layer's `call`."""
    names = inspect.signature(site.layer.call).parameters
    return {**dict(zip(names, site.args, strict=False)), **site.kwargs}


def tensors(site: Site, first: str, rest: str = "") -> dict[str, list[Slots]]:
    """Returns the slots of the tensors in each argument; nested ones are made flat.

    Args:
        site: The call. Inside another layer it has no arguments, only inputs.
        first: The argument that the first input is then taken for.
        rest: The argument that all further inputs are then taken for.
    """
    import keras

    flat = _symbolic(keras, (site.args, site.kwargs))
    if not flat:
        return {first: site.inputs[:1], rest: site.inputs[1:]}
    slots = {id(tensor): own for tensor, own in zip(flat, site.inputs, strict=True)}
    return {
        name: [slots[id(tensor)] for tensor in _symbolic(keras, value)]
        for name, value in values(site).items()
    }


def masks_fixed(site: Site, given: dict[str, list[Slots]]) -> None:
    """Freezes what is tracked on tensors that were passed as masks."""
    for name, found in given.items():
        if name.endswith("mask"):
            for slots in found:
                site.barrier(slots, "it is a mask")


def _symbolic(keras: Any, structure: Any) -> list[Any]:
    flat = keras.tree.flatten(structure)
    return [value for value in flat if isinstance(value, keras.KerasTensor)]
