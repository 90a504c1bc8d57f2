"""Criteria by magnitude of weights or activations; random scores."""

from __future__ import annotations

import numpy as np

from compress.core.errors import InputError
from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores, measure_magnitudes


def score_l1(group: Group, context: Context) -> Scores:
    """Score units by the l1 norms of their kernel slices and normalization scales, (units,).

    A group with neither is scored by all its weights.

    Reference:
        Li et al. 2017, "Pruning Filters for Efficient ConvNets"; over all coupled slices as in Fang
        et al. 2023, "DepGraph", eq. 5.
    """
    return _score_norms(group, context, 1.0)


def score_l2(group: Group, context: Context) -> Scores:
    """Score units by the l2 norms of their kernel slices and normalization scales, (units,).

    A group with neither is scored by all its weights.

    Reference:
        Fang et al. 2023, "DepGraph", eq. 5, with norms instead of their squares.
    """
    return _score_norms(group, context, 2.0)


def _score_norms(group: Group, context: Context, power: float) -> Scores:
    parts = [*context.kernels(group), *context.scales(group)] or context.slices(group)
    return context.combined([context.power_sums(part, power) ** (1 / power) for part in parts])


def score_random(group: Group, context: Context) -> Scores:
    """Draw scores from [0.5, 1.5), seeded by the context and the group index, (units,)."""
    return 0.5 + np.random.default_rng((context.seed, group.index)).random(len(group.units))


def score_activation(group: Group, context: Context) -> Scores:
    """Score units by the mean |activation| of their channels on training examples, (units,).

    The activations are the inputs of layers with weights (after the activation function). A group
    without such a tensor (heads inside an attention layer) is scored by l2, which is noted in the
    report.

    Raises:
        InputError: There is no data.
    """
    if context.data is None:
        raise InputError("Criterion 'activation' must have data to look at. Give data=.")
    sums, read_counts = context.compute_once(measure_magnitudes)
    if not read_counts[group.units].all():
        context.notes.append(f"group '{group.name}' shows in no tensor: scored by l2")
        return score_l2(group, context)
    return np.asarray(sums[group.units] / read_counts[group.units])
