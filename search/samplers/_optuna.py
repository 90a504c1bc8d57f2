"""Optuna's own samplers for several objectives, with settings for tens of trials.

All of them support conditional spaces. NSGA-II and NSGA-III cross the parameters that every trial
has and draw the others at random. TPE models each parameter independently.
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
"""Population size; with Optuna's 50, a search of tens of trials would be entirely random."""
STARTUP = 10
"""Number of ended trials before TPE uses its model; earlier trials are random."""


def create_qmc_sampler(seed: int) -> BaseSampler:
    """Return a sampler of Sobol points over the first trial's parameters; others are uniform.

    The points are not scrambled: Optuna scrambles by the sampler's seed, and each trial has its own
    sampler and seed. The seed is used for the first trial and the uniform parameters.
    """
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        return QMCSampler(seed=seed, warn_independent_sampling=False)


def create_tpe_sampler(seed: int) -> BaseSampler:
    """Return multi-objective TPE (Ozaki et al. 2022), which considers running trials."""
    return TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)


def create_nsga2_sampler(seed: int) -> BaseSampler:
    """Return NSGA-II (Deb et al. 2002)."""
    return NSGAIISampler(seed=seed, population_size=POPULATION)


def create_nsga3_sampler(seed: int) -> BaseSampler:
    """Return NSGA-III (Deb & Jain 2014), with 13 reference directions for two objectives."""
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        # in the paper, the population is about as large as the set of directions
        return NSGAIIISampler(seed=seed, population_size=POPULATION, dividing_parameter=12)
