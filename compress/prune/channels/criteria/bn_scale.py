"""Normalization scale: channels whose scale training drove to zero leave first."""

from __future__ import annotations

import numpy as np

from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores
from compress.prune.channels.criteria.magnitude import l2


def bn_scale(group: Group, context: Context) -> Scores:
    """Scores units by |gamma| of the normalization layers they pass, (units,).

    A group that passes none is scored by l2; the report says so.

    Reference:
        Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming".
    """
    parts = context.scales(group)
    if not parts:
        context.notes.append(f"group '{group.name}' passes no normalization scale: scored by l2")
        return l2(group, context)
    return context.combined([np.asarray(context.power_sums(part, 1.0)) for part in parts])
