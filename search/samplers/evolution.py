"""Regularized evolution, whose population consists of the youngest trials of any quality."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from compress.core.pareto import compute_crowding_distance, rank_nondominated
from search.samplers._base import MutationSampler, compute_losses

POPULATION = 10
"""Population size P, in complete trials; with fewer, choices are random."""
TOURNAMENT = 5
"""Tournament size S.

It is half of the population instead of the paper's quarter, because tens of trials are few
generations and need strong selection.
"""


class EvolutionSampler(MutationSampler):
    """Ageing evolution for several objectives.

    A tournament selects among S members of the population. The parent is the one on the best front
    of the population, or the least crowded of several on that front. One choice is changed. Trials
    only leave the population by age, so a lucky measurement is not kept forever.

    Reference:
        Real, Aggarwal, Huang & Le 2019, "Regularized Evolution for Image Classifier
        Architecture Search", algorithm 1. Deviations: several objectives, by the crowded
        comparison of NSGA-II (Deb et al. 2002); P and S for tens of trials, not thousands;
        age by the order in which trials began.
    """

    def select_parent(self, study: optuna.Study, rng: np.random.Generator) -> FrozenTrial | None:
        """Return the best of a random tournament in the population; None: it is not yet full."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < POPULATION:
            return None
        population = trials[-POPULATION:]
        losses = compute_losses(study, population)
        ranks = rank_nondominated(losses)
        distances = np.zeros(POPULATION)
        for rank in range(int(ranks.max()) + 1):
            front = ranks == rank
            distances[front] = compute_crowding_distance(losses[front])
        contestants = rng.choice(POPULATION, size=TOURNAMENT, replace=False)
        order = np.lexsort((-distances[contestants], ranks[contestants]))  # by rank first
        return population[int(contestants[order[0]])]
