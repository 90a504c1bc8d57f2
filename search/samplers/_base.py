"""What our samplers share: trials as losses, generators of a trial, values of parameters."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from compress.core.pareto import Losses

HUGE = 1e300
"""Stands for infinity, with which distances cannot be computed."""


class StatelessSampler(BaseSampler):
    """A sampler whose draws follow from its seed, the trial's number and the history.

    Args:
        seed: Not negative.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns nothing: parameters are drawn one by one; see Optuna's `BaseSampler`."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns nothing; see Optuna's `BaseSampler`."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draws a value at random; see Optuna's `BaseSampler`."""
        rng = self._generator(trial, param_name)
        return draw(study, trial, param_name, param_distribution, rng)

    def _generator(self, trial: FrozenTrial, purpose: str = "") -> np.random.Generator:
        key = zlib.crc32(purpose.encode())  # hash() differs from process to process
        return np.random.default_rng([self._seed, trial.number, key])


def draw(
    study: optuna.Study,
    trial: FrozenTrial,
    name: str,
    distribution: BaseDistribution,
    rng: np.random.Generator,
) -> Any:
    """Draws a value of a distribution as Optuna's random sampler does."""
    sampler = RandomSampler(seed=int(rng.integers(2**31)))
    return sampler.sample_independent(study, trial, name, distribution)


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that have values, in order; the lists are not to be changed."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def losses_of(study: optuna.Study, trials: Sequence[FrozenTrial]) -> Losses:
    """Returns the objectives of completed trials, lower is better, costs as logarithms.

    Costs span orders of magnitude: distances between them mean little before the logarithm
    is taken. The order within an objective stays what it is, and so does every front.

    Args:
        study: Gives the directions; what is to be minimised and always positive is a cost.
        trials: Completed trials.

    Returns:
        (trials, objectives).
    """
    values = np.array([trial.values for trial in trials], float)
    values = values.reshape(len(trials), len(study.directions))
    return convert_to_losses(values, study.directions, values)


def convert_to_losses(
    values: npt.ArrayLike, directions: Sequence[StudyDirection], ended: Losses, first: int = 0
) -> Losses:
    """Return values of objectives as `losses_of` has them; NaN stays.

    Args:
        values: (n, objectives from the first on).
        directions: Of all objectives.
        ended: Of completed trials, (trials, objectives): they say what is a cost.
        first: Place of the objective of the first column.
    """
    losses = np.array(values, np.float64)
    for column, place in enumerate(range(first, first + losses.shape[1])):
        if directions[place] is StudyDirection.MAXIMIZE:
            losses[:, column] *= -1
        elif (ended[:, place] > 0).all():
            losses[:, column] = np.log(np.maximum(losses[:, column], 1 / HUGE))
    return losses.clip(-HUGE, HUGE)


def value_count(distribution: BaseDistribution) -> float:
    """Returns how many values there are; infinity of a continuous one."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        raise TypeError(f"distribution must be one of Optuna's. Received: {distribution}.")
    if distribution.single():
        return 1
    if distribution.step is None:
        return math.inf
    # half a step more: the quotient of decimal fractions may fall short of a whole number
    return math.floor((distribution.high - distribution.low) / distribution.step + 0.5) + 1


def at(distribution: FloatDistribution | IntDistribution, place: int) -> Any:
    """Returns the value that is `place` steps above the lowest."""
    if place == 0:
        return distribution.low
    if isinstance(distribution, IntDistribution):
        return distribution.low + place * distribution.step
    # decimal, so that three steps of 0.1 are 0.3
    low, step = (Decimal(str(part)) for part in (distribution.low, distribution.step))
    return min(float(low + place * step), distribution.high)


def nearest(distribution: FloatDistribution | IntDistribution, value: float) -> Any:
    """Returns the value of a distribution nearest to a number."""
    inside = min(max(value, distribution.low), distribution.high)
    if distribution.step is None:
        return inside
    return at(distribution, round((inside - distribution.low) / distribution.step))


def same(one: Any, other: Any) -> bool:
    """Compares two choices: 0.1 + 0.2 is 0.3, and NaN is NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9) or (one != one and other != other)
    return bool(one == other)


def deciding(name: str, many: Sequence[Mapping[str, Any]]) -> tuple[str, set[Any]] | None:
    """Returns what decides whether a parameter is asked.

    Args:
        name: Of the parameter.
        many: Choices of trials, each in the order in which they were asked.

    Returns:
        The first earlier choice whose values differ between trials with and without the
        parameter, and its values in those with it; None: all have it, or nothing decides.

    Example:
        >>> deciding("rate", [{"how": "sgd", "rate": 0.1}, {"how": "none"}])
        ('how', {'sgd'})
    """
    asked = [chosen for chosen in many if name in chosen]
    if not asked or len(asked) == len(many):
        return None
    for other in asked[0]:
        if other == name:
            break
        if not all(other in chosen for chosen in asked):
            continue
        values = {chosen[other] for chosen in asked}
        if not any(chosen.get(other) in values for chosen in many if name not in chosen):
            return other, values
    return None
