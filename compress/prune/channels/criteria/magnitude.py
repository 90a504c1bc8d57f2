"""Magnitude: the mean l1 or l2 norm of the weight slices that a unit owns."""

from __future__ import annotations

import numpy as np

from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores


def l1(group: Group, context: Context) -> Scores:
    """Scores units by l1 norms of their kernel slices and normalization scales, (units,).

    Reference:
        Li et al. 2017, "Pruning Filters for Efficient ConvNets"; over all coupled slices as
        in Fang et al. 2023, "DepGraph", eq. 5.
    """
    return _norms(group, context, 1.0)


def l2(group: Group, context: Context) -> Scores:
    """Scores units by l2 norms of their kernel slices and normalization scales, (units,).

    Reference:
        Fang et al. 2023, "DepGraph", eq. 5, with norms instead of their squares.
    """
    return _norms(group, context, 2.0)


def _norms(group: Group, context: Context, power: float) -> Scores:
    parts = [*context.kernels(group), *context.scales(group)] or context.slices(group)
    return context.combined(
        [np.asarray(context.power_sums(part, power) ** (1 / power)) for part in parts]
    )
