"""Regularized evolution: the youngest trials are the population, whatever their quality."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from compress.core.pareto import crowding_distance, nondominated_ranks
from search.samplers._base import MutationSampler, losses_of

POPULATION = 10
"""P: this many complete trials, the youngest; as many random ones come first."""
SAMPLE = 5
"""S: the tournament's size. Half of the population, where the paper has a quarter: tens of
trials leave time for few generations, so selection has to be strong."""


class EvolutionSampler(MutationSampler):
    """Ageing evolution for several objectives.

    A tournament of S members of the population; the one on the better front of the
    population becomes the parent, of one front the less crowded; one choice is changed.
    Trials die of age only, so a lucky measurement is not kept for good.

    Reference:
        Real, Aggarwal, Huang & Le 2019, "Regularized Evolution for Image Classifier
        Architecture Search", algorithm 1. Deviations: several objectives, by the crowded
        comparison of NSGA-II (Deb et al. 2002); P and S for tens of trials, not thousands;
        the youngest by the order of asking.
    """

    def parent(self, study: optuna.Study, rng: np.random.Generator) -> FrozenTrial | None:
        """See `MutationSampler.parent`."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(trials) < POPULATION:
            return None
        population = trials[-POPULATION:]
        losses = losses_of(study, population)
        ranks = nondominated_ranks(losses)
        distances = np.zeros(POPULATION)
        for rank in range(int(ranks.max()) + 1):
            front = ranks == rank
            distances[front] = crowding_distance(losses[front])
        drawn = rng.choice(POPULATION, size=SAMPLE, replace=False)
        best = np.lexsort((-distances[drawn], ranks[drawn]))[0]  # the last key counts most
        return population[int(drawn[best])]
