"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

import numpy as np

from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores


def random(group: Group, context: Context) -> Scores:
    """Draws scores from [0.5, 1.5), by the context's seed and the group's place, (units,)."""
    generator = np.random.default_rng((context.seed, group.index))
    return 0.5 + generator.random(len(group.units))
