"""Samplers by name: each takes a seed and gives an Optuna sampler for several objectives.

A sampler is made anew for each trial (`search.study.ask`), in processes that come and go, so
every one takes what it knows from the study's storage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from compress.registry import Registry
from compress.requirements import require_packages
from search.samplers import _optuna

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS: Registry[Callable[[int], BaseSampler]] = Registry("sampler")


# imported when used: a class derived from Optuna's needs Optuna, the names do not
def _grid(seed: int) -> BaseSampler:
    from search.samplers.grid import GridSampler

    return GridSampler(seed)


def _qmc(seed: int) -> BaseSampler:
    from search.samplers.qmc import QMCSampler

    return QMCSampler(seed)


def _cmaes(seed: int) -> BaseSampler:
    from search.samplers.cmaes import ParetoCmaEsSampler

    return ParetoCmaEsSampler(seed)


def _greedy(seed: int) -> BaseSampler:
    from search.samplers.greedy import GreedySampler

    return GreedySampler(seed)


def _evolution(seed: int) -> BaseSampler:
    from search.samplers.evolution import EvolutionSampler

    return EvolutionSampler(seed)


SAMPLERS.add("random", _optuna.random)
SAMPLERS.add("grid", _grid)
SAMPLERS.add("qmc", _qmc)
SAMPLERS.add("greedy", _greedy)
SAMPLERS.add("evolution", _evolution)
SAMPLERS.add("nsga2", _optuna.nsga2)
SAMPLERS.add("nsga3", _optuna.nsga3)
SAMPLERS.add("tpe", _optuna.tpe)
SAMPLERS.add("gp", _optuna.gp)
SAMPLERS.add("cmaes", _cmaes)


def check_installed(name: str) -> None:
    """Checks that what a sampler needs is installed, without importing it.

    Raises:
        MissingDependency: It is not.
    """
    require_packages(_optuna.PACKAGES.get(name, ()), f"Sampler '{name}'")


__all__ = ["SAMPLERS", "check_installed"]
