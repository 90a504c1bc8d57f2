"""The history of a study for a sampler: ended, stopped and running trials, and their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from compress.core.pareto import Losses
from search.optuna_internals import FIXED_PARAMS_ATTR, set_trial_attr
from search.samplers._base import (
    Choices,
    convert_to_losses,
    count_values,
    find_condition,
    find_nearest_value,
    get_value,
    sample_other_value,
)

if TYPE_CHECKING:
    from search.spaces._base import Choice

Curves = Callable[[FrozenTrial], Mapping[int, float]]
"""Function that returns the metric of a trial at epochs during its training."""
MIN_ENDED = 3
"""Minimum number of ended trials for predicting the final metric of a stopped trial."""
MAX_ENDED = 1000
"""Maximum number of ended trials for this prediction, the youngest ones."""
CONDITION_TRIALS = 300
"""Number of observed trials from which conditions of parameters are inferred, if there are more.

Every n-th trial is used, so there may be nearly twice as many.
"""
CLAIM_ATTR = "paretune:claim"
"""System attribute of a trial that holds all choices its sampler will make.

Workers that sample at the same time then try different choices, and know each other's choices
before all of them have been sampled.
"""
_INACTIVE = object()

read_reported_values: Curves = attrgetter("intermediate_values")
"""Function that returns the values that a trial has reported to Optuna."""


class History:
    """The other trials of a study, without the current one.

    Args:
        study: The study.
        trial: The current trial.
        curves: Returns the metrics of a trial during its training.

    Attributes:
        directions: Directions of the objectives.
        ended: Complete trials, with values.
        stopped: Stopped trials with a curve but no values.
        running: Running trials with choices or a claim.
        observed: The ended and the stopped trials, all of which have complete choices.
        distributions: Distributions of all parameters of these trials.
    """

    def __init__(self, study: optuna.Study, trial: FrozenTrial, curves: Curves) -> None:
        self.directions, self._curves = study.directions, curves
        self.ended: list[FrozenTrial] = []
        self.stopped: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number or not collect_choices(other):
                continue
            if other.state is TrialState.COMPLETE:
                self.ended.append(other)
            elif other.state is TrialState.PRUNED and curves(other):
                self.stopped.append(other)
            elif other.state is TrialState.RUNNING:
                self.running.append(other)
        self.observed = [*self.ended, *self.stopped]
        values = np.array([trial.values for trial in self.ended], np.float64)
        self._values = values.reshape(len(self.ended), len(self.directions))
        self.distributions: dict[str, BaseDistribution] = {}
        for other in (*self.observed, *self.running):
            self.distributions |= other.distributions

    @cached_property
    def losses(self) -> Losses:
        """Losses of ended trials by `search.samplers._base.compute_losses`, (ended, objectives)."""
        return self.to_losses(self._values)

    def to_losses(self, values: npt.ArrayLike, first: int = 0) -> Losses:
        """Return metrics and costs as losses: maximized ones negated, positive costs as logarithms.

        See `search.samplers._base.convert_to_losses`.
        """
        return convert_to_losses(values, self.directions, self._values, first)

    def predict_stopped(self, max_trials: int) -> list[tuple[FrozenTrial, float, float]]:
        """Return the youngest stopped trials with predictions of their final metrics.

        The predicted gain after a trial's last rung is the mean gain of the ended trials after this
        rung, with their variance. Rungs that too few trials passed give no prediction.

        Args:
            max_trials: Maximum number of trials.

        Returns:
            (trial, mean of the metric, its variance) of each.
        """
        gains = self._estimate_gains()
        predictions = []
        for trial in self.stopped[-max_trials:]:
            last, value = max(self._curves(trial).items())
            if last in gains:
                mean, variance = gains[last]
                predictions.append((trial, mean - float(self.to_losses([[value]])[0, 0]), variance))
        return predictions

    def _estimate_gains(self) -> dict[int, tuple[float, float]]:
        """Return the mean and variance of ended trials' gain in the metric after each rung."""
        values_by_epoch: dict[int, tuple[list[float], list[int]]] = {}
        first = max(0, len(self.ended) - MAX_ENDED)
        for index, trial in enumerate(self.ended[first:], start=first):
            for epoch, value in self._curves(trial).items():
                values, indices = values_by_epoch.setdefault(epoch, ([], []))
                values.append(value)
                indices.append(index)
        gains = {}
        for epoch, (values, indices) in values_by_epoch.items():
            if len(values) >= MIN_ENDED:
                rung_losses = self.to_losses(np.array(values)[:, None])[:, 0]
                differences = rung_losses - self.losses[indices, 0]
                gains[epoch] = float(differences.mean()), float(differences.var())
        return gains


def collect_choices(trial: FrozenTrial) -> dict[str, Any]:
    """Return the choices of a trial, including the claimed and fixed ones of a running trial."""
    if trial.state is not TrialState.RUNNING:
        return trial.params
    attrs = trial.system_attrs
    return {**attrs.get(CLAIM_ATTR, {}), **attrs.get(FIXED_PARAMS_ATTR, {}), **trial.params}


def claim_candidate(study: optuna.Study, trial: FrozenTrial, ranked: Sequence[Choices]) -> Choices:
    """Claim and return the first candidate that no running trial has claimed.

    If all are claimed, it is the first one.

    Args:
        study: The study, whose other trials may have begun since the candidates were ranked.
        trial: The current trial, for which the candidate is claimed.
        ranked: Candidates in descending order of preference, at least one.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    claimed_choices = {
        frozenset(collect_choices(other).items())
        for other in running
        if other.number != trial.number
    }
    chosen = next(
        (item for item in ranked if frozenset(item.items()) not in claimed_choices), ranked[0]
    )
    set_trial_attr(study, trial, CLAIM_ATTR, chosen)
    return chosen


def filter_unseen(pool: Sequence[Choices], trials: Iterable[FrozenTrial]) -> list[Choices]:
    """Return the distinct candidates that are not among the trials.

    Args:
        pool: Candidates, as complete choices.
        trials: Trials of the study.
    """
    candidates = {frozenset(chosen.items()): chosen for chosen in pool}
    # among up to ten thousand trials, most are ruled out by the parameter with the most values
    values: dict[str, set[Any]] = {}
    for chosen in pool:
        for name, value in chosen.items():
            values.setdefault(name, set()).add(value)
    key_name = max(values, key=lambda name: len(values[name]), default="")
    key_values = {chosen.get(key_name, _INACTIVE) for chosen in pool}
    for choices in map(collect_choices, trials):
        if choices.get(key_name, _INACTIVE) in key_values:
            candidates.pop(frozenset(choices.items()), None)
    return list(candidates.values())


class ConditionalSpace:
    """All parameters of trials: declared ones, then those observed in trials.

    Args:
        declared: Choices in sampling order, or distributions by name that are always active.
        seen_distributions: Distributions of trials by name, such as settings of optimizers.
        observed_choices: Complete choices of trials, from which conditions of undeclared parameters
            are inferred (the learning rate of an optimizer is active for that optimizer).
            Parameters without an inferred condition are always active; a trial ignores those that
            it does not sample.
    """

    def __init__(
        self,
        declared: Iterable[Choice] | Mapping[str, BaseDistribution],
        seen_distributions: Mapping[str, BaseDistribution],
        observed_choices: Sequence[Mapping[str, Any]],
    ) -> None:
        self._declared: dict[str, Choice] = {}
        if isinstance(declared, Mapping):
            self.distributions = dict(declared)
        else:
            self._declared = {item.name: item for item in declared}
            self.distributions = {
                name: item.to_distribution() for name, item in self._declared.items()
            }
        sampled_choices = observed_choices[:: max(1, len(observed_choices) // CONDITION_TRIALS)]
        undeclared = {
            name: item
            for name, item in seen_distributions.items()
            if name not in self.distributions
        }
        # an earlier choice and its values for which a parameter is active; None: always
        self._conditions = {name: find_condition(name, sampled_choices) for name in undeclared}
        self.distributions |= undeclared
        self._free = [name for name, item in self.distributions.items() if not item.single()]

    def _is_active(self, name: str, chosen: Choices) -> bool:
        if name in self._declared:
            return self._declared[name].is_active(chosen)
        condition = self._conditions.get(name)
        return condition is None or chosen.get(condition[0]) in condition[1]

    def is_complete(self, chosen: Mapping[str, Any]) -> bool:
        """Return whether choices include all active parameters.

        They do not if their trial is between two choices.
        """
        choices = dict(chosen)
        return all(name in choices for name in self.distributions if self._is_active(name, choices))

    def sample(self, rng: np.random.Generator) -> Choices:
        """Return random complete choices; see `draw_value` for their distributions."""
        return self._fill_choices({}, rng)

    def mutate(self, parent: Mapping[str, Any], rng: np.random.Generator, count: int) -> Choices:
        """Return complete choices that differ from the parent's in some parameters.

        Args:
            parent: Choices of an observed trial.
            rng: Random number generator.
            count: Maximum number of changed choices; newly active ones are drawn in addition.
        """
        chosen = {name: value for name, value in parent.items() if name in self.distributions}
        free = [name for name in self._free if name in chosen]
        for index in rng.permutation(len(free))[:count]:
            name = free[index]
            chosen[name] = sample_other_value(self.distributions[name], chosen[name], rng)
        return self._fill_choices(chosen, rng)

    def _fill_choices(self, fixed: Choices, rng: np.random.Generator) -> Choices:
        chosen: Choices = {}
        for name, item in self.distributions.items():
            if self._is_active(name, chosen):
                chosen[name] = fixed[name] if name in fixed else draw_value(item, rng)
        return chosen


def draw_value(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """Draw a value from a distribution.

    An Optuna sampler would be too slow for a thousand candidates per trial.

    Args:
        distribution: Distribution of a parameter. Continuous numbers are uniform, log-scaled ones
            (integers too) log-uniform; all values of others are equally likely.
        rng: Random number generator.

    Raises:
        TypeError: The distribution is not one of Optuna's.
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    count = count_values(distribution)
    assert isinstance(distribution, FloatDistribution | IntDistribution), "it has been counted"
    if np.isfinite(count) and not distribution.log:
        return get_value(distribution, int(rng.integers(int(count))))
    if distribution.log:
        low, high = np.log(distribution.low), np.log(distribution.high)
        return find_nearest_value(distribution, float(np.exp(rng.uniform(low, high))))
    return find_nearest_value(distribution, float(rng.uniform(distribution.low, distribution.high)))
