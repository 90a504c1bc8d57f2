"""Activation: units that are hardly ever active on data leave first."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.model.ports import listed
from compress.model.program import Node
from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores
from compress.prune.channels.criteria.magnitude import l2

BATCH = 128


def activation(group: Group, context: Context) -> Scores:
    """Scores units by the mean |activation| of their channels on training examples, (units,).

    Meant are the tensors that layers with weights read (behind the activation function); a
    group without such a tensor (heads inside an attention layer) is scored by l2, and the
    report says so.
    """
    sums, seen = context.of_all(_all_units)
    if not seen[group.units].all():
        context.notes.append(f"group '{group.name}' shows in no tensor: scored by l2")
        return l2(group, context)
    return np.asarray(sums[group.units] / seen[group.units])


def _all_units(context: Context) -> tuple[Scores, Scores]:
    """Sums mean magnitudes by unit over all read tensors, and counts their entries."""
    data, coupling = context.data, context.coupling
    if data is None:
        raise InputError("Criterion 'activation' must have data to look at. Give data=.")
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

    for start in range(0, len(order), BATCH):
        part = data.train.take(order[start : start + BATCH])
        given = listed(coupling.program.model, data.preprocess(part.x))
        coupling.program.run(given, watch)
    return sums, seen
