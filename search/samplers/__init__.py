"""Samplers by name: each takes a seed and gives an Optuna sampler for several objectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from compress.registry import Registry

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS: Registry[Callable[[int], BaseSampler]] = Registry("sampler")


def _random(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _tpe(seed: int) -> BaseSampler:
    """Multi-objective TPE (Ozaki et al. 2022); running trials count, for parallel workers."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, n_startup_trials=10, constant_liar=True)


def _nsga2(seed: int) -> BaseSampler:
    """NSGA-II (Deb et al. 2002); a population of 16 suits tens of trials."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=16)


SAMPLERS.add("random", _random)
SAMPLERS.add("tpe", _tpe)
SAMPLERS.add("nsga2", _nsga2)

__all__ = ["SAMPLERS"]
