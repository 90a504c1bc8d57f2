"""Greedy search, which changes one choice of a member of the front and sometimes restarts."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from compress.core.pareto import compute_crowding_distance, compute_front_mask
from search.samplers._base import MutationSampler, compute_losses

STARTUP = 10
"""Number of complete trials before mutations begin; they are queued or random.

With fewer, the search would climb from an arbitrary point.
"""
RESTART = 0.1
"""Probability of a random trial after the start."""


class GreedySampler(MutationSampler):
    """Local search on the Pareto front: a hill climber with restarts.

    The parent is the less crowded of two random members of the current front (the crowded
    tournament of NSGA-II), so that sparse parts of the front are filled. Equal members count once.

    Reference:
        The archive-based (1+1) local search of Knowles & Corne 2000, "Approximating the
        Nondominated Front Using the Pareto Archived Evolution Strategy"; deviations: the
        parent is drawn from the archive each time, and crowding distance replaces its grid.
    """

    def select_parent(self, study: optuna.Study, rng: np.random.Generator) -> FrozenTrial | None:
        """Return the less crowded of two random trials of the front; None: a random restart."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < STARTUP or rng.random() < RESTART:
            return None
        losses = compute_losses(study, trials)
        front = np.flatnonzero(compute_front_mask(losses))
        rows, indices = np.unique(losses[front], axis=0, return_index=True)
        members = front[indices]
        distances = compute_crowding_distance(rows)
        pair = rng.integers(len(members), size=2)
        return trials[int(members[pair[np.argmax(distances[pair])]])]
