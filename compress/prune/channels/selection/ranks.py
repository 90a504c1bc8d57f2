"""Ranks: the scores of different groups made comparable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compress.plan import ChannelOptions
from compress.prune.channels.coupling.groups import Coupling, Mask
from compress.prune.channels.criteria import Scores
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.sensitivity import SensitivityMap


def by_score(coupling: Coupling, options: ChannelOptions, scores: Sequence[Scores]) -> list[Scores]:
    """Makes the scores of different groups comparable."""
    ranks = [part / _scale(part, options.normalize) for part in scores]
    if options.cost_aware:
        ranks = [part / cost for part, cost in zip(ranks, _unit_costs(coupling), strict=True)]
    return ranks


def _scale(scores: Scores, normalize: str) -> float:
    if normalize == "none":
        return 1.0
    size = np.abs(scores)
    return max(float(size.max() if normalize == "max" else size.mean()), 1e-12)


def _unit_costs(coupling: Coupling) -> Scores:
    """MACs that one unit of each group costs in the whole model, relative to their mean."""
    full = coupling.whole
    cost = CostModel.of(coupling).macs
    saved = cost(full) - cost(full[None] - np.eye(len(full), dtype=np.int64))
    return np.asarray(np.maximum(saved, 1.0) / max(float(saved.mean()), 1.0))


def by_loss(
    coupling: Coupling, sensitivity: SensitivityMap, scores: Sequence[Scores]
) -> list[Scores]:
    """Ranks units by the loss of quality that their removal adds, per MAC saved."""
    ranks = []
    for group, part, cost in zip(coupling.groups, scores, _unit_costs(coupling), strict=True):
        losses = sensitivity.losses(group.index, group.name, len(part))
        rank = np.empty(len(part))
        rank[np.argsort(part, kind="stable")] = losses
        ranks.append(rank / cost)
    return ranks


def keep_best(coupling: Coupling, scores: Sequence[Scores], kept: npt.NDArray[np.int64]) -> Mask:
    """Returns the mask that keeps so many removable units of each group, those of highest score.

    Args:
        coupling: Of the model.
        scores: One array a group, higher = keep.
        kept: Removable units to keep, (groups,).
    """
    mask = np.ones(coupling.units, bool)
    for group, part, count in zip(coupling.groups, scores, kept, strict=True):
        order = np.argsort(-part, kind="stable")  # of equal scores the first is kept
        mask[group.units[order[count:]]] = False
    return mask
