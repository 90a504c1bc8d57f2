"""Common parts of our samplers: losses of trials, mutations of trials, values of parameters."""

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
"""Finite replacement of infinity, so that distances can be computed."""
STEP_DEVIATION = 0.2
"""Standard deviation of a mutation, as a share of the range (of its logarithm if log-scaled)."""
FEW_VALUES = 8
"""Maximum number of values for which a mutation draws uniformly from all other values."""
MAX_DRAWS = 20
"""Maximum number of draws to find an untried child; the first half mutates parents."""

Choices = dict[str, Any]


class StatelessSampler(RandomSampler):
    """A sampler whose draws are determined by its seed, the trial's number and the history.

    Args:
        seed: A non-negative integer.
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
        """Draw a random value; see Optuna's `BaseSampler`."""
        rng = self._create_generator(trial, param_name)
        return draw(study, trial, param_name, param_distribution, rng)

    def _create_generator(self, trial: FrozenTrial, purpose: str = "") -> np.random.Generator:
        key = zlib.crc32(purpose.encode())  # hash() differs between processes
        return np.random.default_rng([self._seed, trial.number, key])


class MutationSampler(StatelessSampler):
    """A sampler that mutates trials; `select_parent` selects the trial, if any.

    A child has all choices of its parent but one, and may have further choices that depend on the
    changed one. A conditional space defines its active parameters only while a trial runs. A child
    is therefore drawn over the union of all parameters in the study. The trial uses the parameters
    that it samples, including parameters that depend on the changed choice, which have random
    values.
    """

    @abstractmethod
    def select_parent(self, study: optuna.Study, rng: np.random.Generator) -> FrozenTrial | None:
        """Return the trial to mutate; None: all choices are drawn at random.

        Args:
            study: The study, with the history of trials.
            rng: Random number generator.
        """

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters in the study that have several values."""
        space: dict[str, BaseDistribution] = {}
        for other in study.get_trials(deepcopy=False):
            space |= other.distributions
        return {name: space[name] for name in space if not space[name].single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Choices:
        """Return a child that has not been tried, unless none is found; see `BaseSampler`."""
        rng = self._create_generator(trial)
        others = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.params and other.number != trial.number
        ]
        child: Choices = {}
        for attempt in range(MAX_DRAWS):
            # if all neighbours have been tried, only a restart finds new choices
            parent = self.select_parent(study, rng) if attempt < MAX_DRAWS // 2 else None
            child = {} if parent is None else mutate(parent, rng)
            for name, distribution in search_space.items():
                if name not in child:
                    child[name] = draw(study, trial, name, distribution, rng)
            if not _is_tried(child, others):
                break
        return {name: child[name] for name in search_space}


def draw(
    study: optuna.Study,
    trial: FrozenTrial,
    name: str,
    distribution: BaseDistribution,
    rng: np.random.Generator,
) -> Any:
    """Draw a value from a distribution like Optuna's random sampler.

    Args:
        study: The study.
        trial: The trial.
        name: Name of the parameter.
        distribution: Distribution of the parameter.
        rng: Random number generator.
    """
    sampler = RandomSampler(seed=int(rng.integers(2**31)))
    return sampler.sample_independent(study, trial, name, distribution)


def compute_losses(study: optuna.Study, trials: Sequence[FrozenTrial]) -> Losses:
    """Return the objectives of completed trials as losses, with costs as natural logarithms.

    Costs span orders of magnitude, so their distances are only meaningful as logarithms. The order
    within an objective and the Pareto fronts do not change.

    Args:
        study: The study, which defines the directions. An objective that is minimized and always
            positive is a cost.
        trials: Completed trials.

    Returns:
        (trials, objectives).
    """
    values = np.array([trial.values for trial in trials], float)
    values = values.reshape(len(trials), len(study.directions))
    return convert_to_losses(values, study.directions, values)


def convert_to_losses(
    values: npt.ArrayLike,
    directions: Sequence[StudyDirection],
    ended_values: Losses,
    first_objective: int = 0,
) -> Losses:
    """Return values of objectives as losses, in the form of `compute_losses`; NaN is kept.

    Args:
        values: (n, objectives from `first_objective` on).
        directions: Directions of all objectives.
        ended_values: Values of completed trials, (trials, objectives), which show the costs.
        first_objective: Index of the objective in the first column.
    """
    losses = np.array(values, np.float64)
    for column, index in enumerate(range(first_objective, first_objective + losses.shape[1])):
        if directions[index] is StudyDirection.MAXIMIZE:
            losses[:, column] *= -1
        elif (ended_values[:, index] > 0).all():
            losses[:, column] = np.log(np.maximum(losses[:, column], 1 / HUGE))
    return losses.clip(-HUGE, HUGE)


def count_values(distribution: BaseDistribution) -> float:
    """Return the number of values of a distribution; infinity if it is continuous.

    Raises:
        TypeError: The distribution is not one of Optuna's.
    """
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        raise TypeError(f"distribution must be one of Optuna's. Received: {distribution}.")
    if distribution.single():
        return 1
    if distribution.step is None:
        return math.inf
    # half a step is added because the quotient may be slightly below an integer
    return math.floor((distribution.high - distribution.low) / distribution.step + 0.5) + 1


def get_value(distribution: FloatDistribution | IntDistribution, index: int) -> Any:
    """Return the value that is `index` steps above the lowest."""
    if index == 0:
        return distribution.low
    if isinstance(distribution, IntDistribution):
        return distribution.low + index * distribution.step
    # with decimals, three steps of 0.1 are exactly 0.3
    low, step = (Decimal(str(part)) for part in (distribution.low, distribution.step))
    return min(float(low + index * step), distribution.high)


def find_nearest_value(distribution: FloatDistribution | IntDistribution, value: float) -> Any:
    """Return the value of a distribution nearest to a number."""
    clipped = min(max(value, distribution.low), distribution.high)
    if distribution.step is None:
        return clipped
    return get_value(distribution, round((clipped - distribution.low) / distribution.step))


def is_same(first: Any, second: Any) -> bool:
    """Return whether two choices are equal, with a tolerance for floats; NaN equals NaN."""
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-9) or (first != first and second != second)
    return bool(first == second)


def find_condition(
    name: str, trial_choices: Sequence[Mapping[str, Any]]
) -> tuple[str, set[Any]] | None:
    """Return the earlier choice that determines whether a parameter is sampled.

    Args:
        name: Name of the parameter.
        trial_choices: Choices of trials, each in sampling order.

    Returns:
        The first earlier choice whose values differ between trials with and without the
        parameter, and its values in those with it; None: the parameter is in all trials or in none,
        or no choice determines it.

    Example:
        >>> find_condition("rate", [{"how": "sgd", "rate": 0.1}, {"how": "none"}])
        ('how', {'sgd'})
    """
    having = [chosen for chosen in trial_choices if name in chosen]
    if not having or len(having) == len(trial_choices):
        return None
    for other in having[0]:
        if other == name:
            break
        if not all(other in chosen for chosen in having):
            continue
        values = {chosen[other] for chosen in having}
        if not any(chosen.get(other) in values for chosen in trial_choices if name not in chosen):
            return other, values
    return None


def mutate(parent: FrozenTrial, rng: np.random.Generator) -> Choices:
    """Return the parent's choices with one changed, or unchanged if there are no alternatives.

    Args:
        parent: The trial to mutate.
        rng: Random number generator.
    """
    choices = dict(parent.params)
    free = [name for name, values in parent.distributions.items() if not values.single()]
    if free:
        name = free[int(rng.integers(len(free)))]
        choices[name] = sample_other_value(parent.distributions[name], choices[name], rng)
    return choices


def sample_other_value(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """Return another value of a distribution.

    Categories and numbers with few values: any other value, with equal probability. Other numbers:
    a value nearby, by a normal step of `STEP_DEVIATION` of the range, reflected at its ends, on a
    log scale for log-scaled distributions.

    Args:
        distribution: A distribution with more than one value.
        value: The current value.
        rng: Random number generator.
    """
    if isinstance(distribution, CategoricalDistribution):
        value_index = distribution.to_internal_repr(value)
        others = [index for index in range(len(distribution.choices)) if index != value_index]
        return distribution.to_external_repr(others[int(rng.integers(len(others)))])
    count = count_values(distribution)
    assert isinstance(distribution, FloatDistribution | IntDistribution), "it has been counted"
    if count <= FEW_VALUES:
        others = [
            step_index
            for step_index in range(int(count))
            if not is_same(get_value(distribution, step_index), value)
        ]
        return get_value(distribution, others[int(rng.integers(len(others)))])
    to_scale: Callable[[float], float] = math.log if distribution.log else float
    low, high = to_scale(distribution.low), to_scale(distribution.high)
    while True:
        share = (to_scale(value) - low) / (high - low) + STEP_DEVIATION * rng.normal()
        share = 1 - abs(1 - share % 2)  # reflected at 0 and 1
        new_position = low + share * (high - low)
        new = find_nearest_value(
            distribution, math.exp(new_position) if distribution.log else new_position
        )
        if not is_same(new, value):
            return new


def _is_tried(child: Choices, others: Sequence[FrozenTrial]) -> bool:
    """Return whether the child would equal one of the other trials.

    It would if it includes all choices of the other trial, because a trial samples the same
    parameters as long as it gets the same values. Trials that failed or are running between two
    choices do not count; longer trials with the same first choices reveal them.
    """
    included = [other for other in others if _is_included(other, child)]
    return any(
        not any(
            len(longer.params) > len(other.params) and _is_included(other, longer.params)
            for longer in others
        )
        for other in included
    )


def _is_included(trial: FrozenTrial, choices: Choices) -> bool:
    """Return whether the choices include all choices of a trial that have alternatives."""
    return all(
        is_same(choices[name], value) if name in choices else trial.distributions[name].single()
        for name, value in trial.params.items()
    )
