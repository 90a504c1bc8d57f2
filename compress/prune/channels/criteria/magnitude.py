"""Criteria by magnitude of weights, normalization scales or activations; random scores."""

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


def score_bn_scale(group: Group, context: Context) -> Scores:
    """Score units by |gamma| of the normalization layers that they pass through, (units,).

    A group that passes through none is scored by l2, which is noted in the report.

    Reference:
        Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming".
    """
    parts = context.scales(group)
    if not parts:
        context.notes.append(f"group '{group.name}' passes no normalization scale: scored by l2")
        return score_l2(group, context)
    return context.combined([context.power_sums(part, 1.0) for part in parts])


def score_fpgm(group: Group, context: Context) -> Scores:
    """Score units by the sum of distances of their kernel slices to all others', (units,).

    A group without kernels is scored by l2, which is noted in the report.

    Reference:
        He et al. 2019, "Filter Pruning via Geometric Median", eq. 4; over all kernels of a unit
        instead of its filter alone.
    """
    parts = context.kernels(group)
    if not parts:
        context.notes.append(f"group '{group.name}' owns no kernel: scored by l2")
        return score_l2(group, context)
    size = len(group.units)
    squares = np.zeros((size, size))
    for part in parts:
        value = np.moveaxis(context.value(part.variable), part.axis, 0)
        rows = value[part.entries].reshape(size, -1).astype(np.float64)
        squared_norms = np.einsum("ij,ij->i", rows, rows)
        squares += squared_norms[:, None] + squared_norms[None, :] - 2 * (rows @ rows.T)
    return np.asarray(np.sqrt(np.maximum(squares, 0)).sum(1))


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
