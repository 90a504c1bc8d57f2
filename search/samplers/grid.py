"""Grid search of conditional spaces, without repeats and spread over all parameters at any time."""

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

from search.samplers._base import (
    StatelessSampler,
    count_values,
    find_nearest_value,
    get_value,
    is_same,
)

MAX_LISTED_VALUES = 10
"""Maximum number of values of a numeric parameter for which all are tried."""
GRID_POINTS = 3
"""Number of values otherwise: both ends and the middle (of the logarithm if log-scaled)."""


class GridSampler(StatelessSampler):
    """A sampler that enumerates a define-by-run space without repeats.

    The tried points form a tree: a node is a parameter, its branches are the values. At each
    parameter, the sampler takes the branch with the fewest trials among those with untried points,
    and breaks ties at random. No point is tried twice, and the first trials are spread over all
    parameters, instead of only over the last ones as in counting order. Failed, stopped and running
    trials count as tried. When all points have been tried, points repeat; see `is_exhausted`.

    Optuna's own samplers do not support this: `GridSampler` must know the space beforehand and has
    no conditions, `BruteForceSampler` refuses continuous numbers.
    """

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the branch with the fewest trials among those with untried points."""
        prefix = trial.params
        others = [
            other
            for other in _list_tried(study)
            if other.number != trial.number
            and all(_has(other, name, value) for name, value in prefix.items())
        ]
        values = list_grid_values(param_distribution)
        self._create_generator(trial, param_name).shuffle(values)
        branches = [
            (value, [other for other in others if _has(other, param_name, value)])
            for value in values
        ]
        chosen_names = {*prefix, param_name}
        open_branches = [branch for branch in branches if not _is_complete(branch[1], chosen_names)]
        if not open_branches:
            # a running trial may be in a branch without completing it
            finished_branches = [
                (value, [trial_below for trial_below in trials if trial_below.state.is_finished()])
                for value, trials in branches
            ]
            open_branches = [
                branch for branch in finished_branches if not _is_complete(branch[1], chosen_names)
            ]
        return min(open_branches or branches, key=lambda branch: len(branch[1]))[0]


def is_exhausted(study: optuna.Study) -> bool:
    """Return whether every grid point was tried or is running.

    A trial between two choices counts as a whole branch, so check again when a trial ends before
    ending a search.
    """
    return _is_complete(_list_tried(study), set())


def list_grid_values(distribution: BaseDistribution) -> list[Any]:
    """Return the grid values of a distribution: categories in their order, numbers ascending.

    All categories are included, and all numbers if there are at most `MAX_LISTED_VALUES`. Of more
    numbers, at most `GRID_POINTS` are included.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    count = count_values(distribution)
    assert isinstance(distribution, FloatDistribution | IntDistribution), "it has been counted"
    if count <= MAX_LISTED_VALUES and not (distribution.log and distribution.step is None):
        return [get_value(distribution, index) for index in range(int(count))]
    low, high = distribution.low, distribution.high
    shares = [index / (GRID_POINTS - 1) for index in range(GRID_POINTS)]
    if distribution.log:
        points = [math.exp(math.log(low) + share * math.log(high / low)) for share in shares]
    else:
        points = [low + share * (high - low) for share in shares]
    values: list[Any] = []
    for point in points:
        value = find_nearest_value(distribution, point)
        if not any(is_same(value, other) for other in values):
            values.append(value)
    return values


def _list_tried(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials that have made a choice and are not queued."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state != TrialState.WAITING and trial.params]


def _has(trial: FrozenTrial, name: str, value: Any) -> bool:
    return name in trial.params and is_same(trial.params[name], value)


def _is_complete(trials: list[FrozenTrial], chosen_names: set[str]) -> bool:
    """Return whether the trials cover all points of a branch.

    Args:
        trials: All trials in the branch.
        chosen_names: The parameters that are fixed in the branch.
    """
    if not trials:
        return False
    next_parameters = [
        (name, distribution)
        for trial in trials
        for name, distribution in trial.distributions.items()
        if name not in chosen_names
    ]
    if not next_parameters:
        return True  # a leaf, or all trials in it failed before the next choice
    name, distribution = next_parameters[0]
    return all(
        _is_complete([trial for trial in trials if _has(trial, name, value)], {*chosen_names, name})
        for value in list_grid_values(distribution)
    )
