"""Activation: units that are hardly ever active on data leave first."""

from __future__ import annotations

import numpy as np

from compress.core.errors import InputError
from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores
from compress.prune.channels.criteria._magnitudes import magnitudes
from compress.prune.channels.criteria.magnitude import l2


def activation(group: Group, context: Context) -> Scores:
    """Scores units by the mean |activation| of their channels on training examples, (units,).

    Meant are the tensors that layers with weights read (behind the activation function); a
    group without such a tensor (heads inside an attention layer) is scored by l2, and the
    report says so.
    """
    if context.data is None:
        raise InputError("Criterion 'activation' must have data to look at. Give data=.")
    sums, seen = context.of_all(magnitudes)
    if not seen[group.units].all():
        context.notes.append(f"group '{group.name}' shows in no tensor: scored by l2")
        return l2(group, context)
    return np.asarray(sums[group.units] / seen[group.units])
