"""What units are on examples, where layers read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.activations import examples_at_once
from compress.model.ports import listed
from compress.model.program import Node

if TYPE_CHECKING:
    from compress.prune.channels.criteria._base import Context

Scores = npt.NDArray[np.float64]
BATCH = 128
"""Examples at a time, where the memory budget allows."""


def magnitudes(context: Context) -> tuple[Scores, Scores]:
    """Returns mean magnitudes by unit, summed over all read tensors, and how often each is read.

    Tensors that layers with weights read are looked at, normalizations apart: there a unit may be
    alive that an activation behind them silences.
    """
    data, coupling = context.data, context.coupling
    assert data is not None
    sums, seen = np.zeros(coupling.units), np.zeros(coupling.units)
    rng = np.random.default_rng(context.seed)
    order = rng.permutation(len(data.train))[: context.examples]

    def watch(node: Node, arguments: list[Any]) -> None:
        operation, tensors = node.operation, node.inputs
        if not getattr(operation, "weights", None) or "Normalization" in type(operation).__name__:
            return
        for tensor, value in zip(tensors, arguments, strict=True):
            slots = coupling.graph.tensors[id(tensor)]
            array = np.abs(np.asarray(value))
            for axis in slots.tracked:
                others = tuple(other for other in range(array.ndim) if other != axis)
                units = coupling.unit[slots.axes[axis]]
                sums[:] += np.bincount(units, array.mean(others), minlength=coupling.units)
                seen[:] += np.bincount(units, minlength=coupling.units)

    # the values that a layer reads are looked at in a copy
    size = examples_at_once(coupling.program, BATCH, copies=1.5)
    for start in range(0, len(order), size):
        part = data.train.take(order[start : start + size])
        given = listed(coupling.program.model, data.preprocess(part.x))
        coupling.program.run(given, watch)
    return sums, seen
