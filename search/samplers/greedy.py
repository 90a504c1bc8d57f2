"""Greedy search: changes one choice of a member of the front, and now and then restarts."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from compress.core.pareto import crowding_distance, front_mask
from search.samplers._base import MutationSampler, losses_of

STARTUP = 10
"""Complete trials first, drawn at random where none is queued: a front of one would be climbed
from wherever it is."""
RESTART = 0.1
"""Probability of a random trial later on."""


class GreedySampler(MutationSampler):
    """Local search on the front: a Pareto hill climber with restarts.

    Of two random members of the current front the less crowded one is the parent (the
    crowded tournament of NSGA-II), so that thin parts of the front are filled. Members that
    are equal count once.

    Reference:
        The archive-based (1+1) local search of Knowles & Corne 2000, "Approximating the
        Nondominated Front Using the Pareto Archived Evolution Strategy"; deviations: the
        parent is drawn from the archive each time, and crowding distance replaces its grid.
    """

    def parent(self, study: optuna.Study, rng: np.random.Generator) -> FrozenTrial | None:
        """See `MutationSampler.parent`."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < STARTUP or rng.random() < RESTART:
            return None
        losses = losses_of(study, trials)
        front = np.flatnonzero(front_mask(losses))
        rows, first = np.unique(losses[front], axis=0, return_index=True)
        members = front[first]
        distances = crowding_distance(rows)
        pair = rng.integers(len(members), size=2)
        return trials[int(members[pair[np.argmax(distances[pair])]])]
