"""Children: all choices of a parent but one, in spaces where choices bring others with them.

A conditional space says which parameters it has only while a trial runs. A child is drawn
over the union of all parameters that the study has seen: the trial takes from it what it asks
for, and a parameter that comes with the changed choice is found there, drawn at random.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from search.samplers._base import StatelessSampler, at, draw, nearest, same, value_count

STEP = 0.2
"""Standard deviation of a step, as a share of the range (of its logarithm)."""
FEW = 8
"""With at most this many values each is as near as the others."""
REDRAWS = 20
"""Draws before a child that was tried already is accepted; half of them of children."""

Choices = dict[str, Any]


class MutationSampler(StatelessSampler):
    """Gives children of parents; a sampler says which parent, if any, by `parent`."""

    @abstractmethod
    def parent(self, study: optuna.Study, rng: np.random.Generator) -> FrozenTrial | None:
        """Returns the trial to take choices from; None: all are drawn at random."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns all parameters the study has seen; see Optuna's `BaseSampler`."""
        space: dict[str, BaseDistribution] = {}
        for other in study.get_trials(deepcopy=False):
            space |= other.distributions
        return {name: space[name] for name in space if not space[name].single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Choices:
        """Returns a child that was not tried yet, if one is found; see `BaseSampler`."""
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


def mutated(parent: FrozenTrial, rng: np.random.Generator) -> Choices:
    """Returns the parent's choices, one of them changed (none if it has no alternatives)."""
    choices = dict(parent.params)
    free = [name for name, values in parent.distributions.items() if not values.single()]
    if free:
        name = free[int(rng.integers(len(free)))]
        choices[name] = other_value(parent.distributions[name], choices[name], rng)
    return choices


def other_value(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """Returns another value of a distribution.

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
    """Tells whether the child would become one of the others.

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
    """Tells whether the choices have all of the trial's, but those without alternatives."""
    return all(
        same(choices[name], value) if name in choices else trial.distributions[name].single()
        for name, value in trial.params.items()
    )
