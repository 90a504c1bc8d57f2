"""Optuna's own samplers that know several objectives, with settings for tens of trials.

All sample parameters of conditional spaces: NSGA-II and NSGA-III relate the parameters that
every trial has and draw the others at random, TPE looks at each parameter by itself.
"""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    TPESampler,
)

POPULATION = 16
"""Optuna's 50 would be random search for all of a search of tens of trials."""
STARTUP = 10
"""Random trials before a model is trusted."""


def qmc(seed: int) -> BaseSampler:
    """Sobol points over the parameters of the study's first trial; others uniform.

    The points are not scrambled: Optuna scrambles by the sampler's seed, and each trial has a
    sampler and a seed of its own. The seed is for the first trial and the uniform parameters.
    """
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        return QMCSampler(seed=seed, warn_independent_sampling=False)


def tpe(seed: int) -> BaseSampler:
    """Multi-objective TPE (Ozaki et al. 2022); running trials count, for parallel workers."""
    return TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)


def nsga2(seed: int) -> BaseSampler:
    """NSGA-II (Deb et al. 2002)."""
    return NSGAIISampler(seed=seed, population_size=POPULATION)


def nsga3(seed: int) -> BaseSampler:
    """NSGA-III (Deb & Jain 2014), with 13 reference directions for two objectives."""
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        # there the population is about as large as the set of directions
        return NSGAIIISampler(seed=seed, population_size=POPULATION, dividing_parameter=12)
