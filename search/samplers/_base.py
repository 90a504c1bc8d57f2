"""Common parts of our samplers: trials as losses, children of trials, values of parameters."""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from compress.core.pareto import Losses

HUGE = 1e300
"""Stands for infinity, with which distances cannot be computed."""
STEP = 0.2
"""Standard deviation of a step, as a share of the range (of its logarithm)."""
FEW = 8
"""With at most this many values each is as near as the others."""
REDRAWS = 20
"""Draws before a child that was tried already is accepted; half of them of children."""

Choices = dict[str, Any]


class StatelessSampler(RandomSampler):
    """A sampler whose draws follow from its seed, the trial's number and the history.

    Args:
        seed: Not negative.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._seed = seed

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a value at random; see Optuna's `BaseSampler`."""
        rng = self._generator(trial, param_name)
        return draw(study, trial, param_name, param_distribution, rng)

    def _generator(self, trial: FrozenTrial, purpose: str = "") -> np.random.Generator:
        key = zlib.crc32(purpose.encode())  # hash() differs from process to process
        return np.random.default_rng([self._seed, trial.number, key])


class MutationSampler(StatelessSampler):
    """A sampler of children of trials; `parent` chooses the trial, if any.

    Children have all choices of a parent but one, in spaces where choices bring others with them.
    A conditional space says which parameters it has only while a trial runs. A child is drawn
    over the union of all parameters that the study has seen: the trial takes from it what it asks
    for, and a parameter that comes with the changed choice is found there, drawn at random.
    """

    @abstractmethod
    def parent(self, study: optuna.Study, rng: np.random.Generator) -> FrozenTrial | None:
        """Return the trial to take choices from; None: all are drawn at random."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters the study has seen; see Optuna's `BaseSampler`."""
        space: dict[str, BaseDistribution] = {}
        for other in study.get_trials(deepcopy=False):
            space |= other.distributions
        return {name: space[name] for name in space if not space[name].single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Choices:
        """Return a child that was not tried yet, if one is found; see `BaseSampler`."""
        rng = self._generator(trial)
        others = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.params and other.number != trial.number
        ]
        child: Choices = {}
        for attempt in range(REDRAWS):
            # where all neighbours were tried, only a restart leads on
            parent = self.parent(study, rng) if attempt < REDRAWS // 2 else None
            child = {} if parent is None else mutated(parent, rng)
            for name, distribution in search_space.items():
                if name not in child:
                    child[name] = draw(study, trial, name, distribution, rng)
            if not _tried(child, others):
                break
        return {name: child[name] for name in search_space}


def draw(
    study: optuna.Study,
    trial: FrozenTrial,
    name: str,
    distribution: BaseDistribution,
    rng: np.random.Generator,
) -> Any:
    """Draw a value of a distribution as Optuna's random sampler does."""
    sampler = RandomSampler(seed=int(rng.integers(2**31)))
    return sampler.sample_independent(study, trial, name, distribution)


def losses_of(study: optuna.Study, trials: Sequence[FrozenTrial]) -> Losses:
    """Return the objectives of completed trials, lower is better, costs as logarithms.

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
    """Return how many values there are; infinity of a continuous one."""
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
    """Return the value that is `place` steps above the lowest."""
    if place == 0:
        return distribution.low
    if isinstance(distribution, IntDistribution):
        return distribution.low + place * distribution.step
    # decimal, so that three steps of 0.1 are 0.3
    low, step = (Decimal(str(part)) for part in (distribution.low, distribution.step))
    return min(float(low + place * step), distribution.high)


def nearest(distribution: FloatDistribution | IntDistribution, value: float) -> Any:
    """Return the value of a distribution nearest to a number."""
    inside = min(max(value, distribution.low), distribution.high)
    if distribution.step is None:
        return inside
    return at(distribution, round((inside - distribution.low) / distribution.step))


def same(one: Any, other: Any) -> bool:
    """Compare two choices: 0.1 + 0.2 is 0.3, and NaN is NaN."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9) or (one != one and other != other)
    return bool(one == other)


def deciding(name: str, many: Sequence[Mapping[str, Any]]) -> tuple[str, set[Any]] | None:
    """Return the earlier choice that decides whether a parameter is asked.

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


def mutated(parent: FrozenTrial, rng: np.random.Generator) -> Choices:
    """Return the parent's choices, one of them changed (none if it has no alternatives)."""
    choices = dict(parent.params)
    free = [name for name, values in parent.distributions.items() if not values.single()]
    if free:
        name = free[int(rng.integers(len(free)))]
        choices[name] = other_value(parent.distributions[name], choices[name], rng)
    return choices


def other_value(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """Return another value of a distribution.

    Of categories and of few numbers any other, all equally likely; of many numbers one in
    the neighbourhood: a normal step of `STEP` of the range, reflected at its ends, on a log
    scale where the distribution is logarithmic.

    Args:
        distribution: Not a single value.
        value: The value to leave.
        rng: Draws.
    """
    if isinstance(distribution, CategoricalDistribution):
        own = distribution.to_internal_repr(value)
        left = [index for index in range(len(distribution.choices)) if index != own]
        return distribution.to_external_repr(left[int(rng.integers(len(left)))])
    count = value_count(distribution)
    assert isinstance(distribution, FloatDistribution | IntDistribution), "it has been counted"
    if count <= FEW:
        left = [place for place in range(int(count)) if not same(at(distribution, place), value)]
        return at(distribution, left[int(rng.integers(len(left)))])
    to_scale: Callable[[float], float] = math.log if distribution.log else float
    low, high = to_scale(distribution.low), to_scale(distribution.high)
    while True:
        share = (to_scale(value) - low) / (high - low) + STEP * rng.normal()
        share = 1 - abs(1 - share % 2)  # reflected at 0 and 1
        moved = low + share * (high - low)
        new = nearest(distribution, math.exp(moved) if distribution.log else moved)
        if not same(new, value):
            return new


def _tried(child: Choices, others: Sequence[FrozenTrial]) -> bool:
    """Tell whether the child would become one of the others.

    It would if it has all the other's choices: a trial asks for the same parameters as long
    as it gets the same values. Trials that ended or stand between two choices, as longer
    ones with the same beginning show, do not count.
    """
    found = [other for other in others if _within(other, child)]
    return any(
        not any(
            len(longer.params) > len(other.params) and _within(other, longer.params)
            for longer in others
        )
        for other in found
    )


def _within(trial: FrozenTrial, choices: Choices) -> bool:
    """Tell whether the choices have all of the trial's, but those without alternatives."""
    return all(
        same(choices[name], value) if name in choices else trial.distributions[name].single()
        for name, value in trial.params.items()
    )
