"""Every point of a conditional space once, in an order that is spread from the beginning."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from search.samplers._base import StatelessSampler, at, nearest, same, value_count

MANY = 10
"""Numbers with more values than this, continuous ones too, are put on a grid."""
POINTS = 3
"""Points of such a grid: both ends and the middle, of the logarithm where it is one."""


class GridSampler(StatelessSampler):
    """A sampler that enumerates a define-by-run space without repeats.

    The points tried so far form a tree: a node is a parameter, its branches are the values.
    At each parameter the branch with the fewest trials is taken among those with points
    left; of equals a random one. So no point comes twice, and the first trials are spread
    over all parameters, not over the last ones only as in counting order. Failed, stopped
    and running trials count as tried. When no point is left points repeat; ask `exhausted`.

    Optuna's own cannot do this: `GridSampler` must know the space beforehand and has no
    conditions, `BruteForceSampler` refuses continuous numbers.
    """

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose the branch with points left and the fewest trials."""
        prefix = trial.params
        others = [
            other
            for other in _tried(study)
            if other.number != trial.number
            and all(_has(other, name, value) for name, value in prefix.items())
        ]
        values = grid(param_distribution)
        self._generator(trial, param_name).shuffle(values)
        branches = [
            (value, [other for other in others if _has(other, param_name, value)])
            for value in values
        ]
        seen = {*prefix, param_name}
        left = [branch for branch in branches if not _complete(branch[1], seen)]
        if not left:
            # a running trial may stand in a branch without having filled it
            done = [
                (value, [t for t in below if t.state.is_finished()]) for value, below in branches
            ]
            left = [branch for branch in done if not _complete(branch[1], seen)]
        return min(left or branches, key=lambda branch: len(branch[1]))[0]


def exhausted(study: optuna.Study) -> bool:
    """Tell whether every grid point was tried or is running.

    A trial that is between two choices counts as a whole branch, so ask again when a trial
    ends before calling a search finished.
    """
    return _complete(_tried(study), set())


def grid(distribution: BaseDistribution) -> list[Any]:
    """Return the values of a distribution that the grid has, in ascending order.

    Categories: all. Numbers: all where there are at most `MANY`, else `POINTS` points.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    count = value_count(distribution)
    assert isinstance(distribution, FloatDistribution | IntDistribution), "it has been counted"
    if count <= MANY and not (distribution.log and distribution.step is None):
        return [at(distribution, place) for place in range(int(count))]
    low, high = distribution.low, distribution.high
    shares = [place / (POINTS - 1) for place in range(POINTS)]
    if distribution.log:
        points = [math.exp(math.log(low) + share * math.log(high / low)) for share in shares]
    else:
        points = [low + share * (high - low) for share in shares]
    values: list[Any] = []
    for point in points:
        value = nearest(distribution, point)
        if not any(same(value, other) for other in values):
            values.append(value)
    return values


def _tried(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials but those that wait for their turn."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.params]


def _has(trial: FrozenTrial, name: str, value: Any) -> bool:
    return name in trial.params and same(trial.params[name], value)


def _complete(trials: list[FrozenTrial], seen: set[str]) -> bool:
    """Tell whether the trials fill the branch that they stand in.

    Args:
        trials: All that have the branch's choices.
        seen: The parameters chosen on the way to it.
    """
    if not trials:
        return False
    following = [
        (name, distribution)
        for trial in trials
        for name, distribution in trial.distributions.items()
        if name not in seen
    ]
    if not following:
        return True  # a leaf; or all that came here died before the next choice
    name, distribution = following[0]
    return all(
        _complete([trial for trial in trials if _has(trial, name, value)], {*seen, name})
        for value in grid(distribution)
    )
