"""A study as a sampler sees it: trials that ended, stopped or run, and their parameters."""

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
from search.optuna_internals import FIXED, set_trial_attr
from search.samplers._base import (
    Choices,
    at,
    convert_to_losses,
    deciding,
    nearest,
    other_value,
    value_count,
)

if TYPE_CHECKING:
    from search.spaces._base import Choice

Curves = Callable[[FrozenTrial], Mapping[int, float]]
"""What is known of a trial's quality on the way: epoch -> quality."""
FEWEST = 3
"""Trials that ended by which it is judged what is still to come of a stopped one."""
LOOKED_AT = 1000
"""Of them the youngest at most."""
SHOWING = 300
"""Told trials, at equal distances, that say when a parameter is asked."""
CLAIM_ATTR = "paretune:claim"
"""System attribute of a trial: what its sampler will answer. Workers that ask at the same time do
not try the same then, and know of each other before all questions have been asked."""
_UNASKED = object()

reported: Curves = attrgetter("intermediate_values")
"""What a trial has reported to Optuna itself."""


class History:
    """The other trials of a study, without the one that is asked for.

    Args:
        study: The study.
        trial: The one that is asked for.
        curves: What is known of trials on the way.

    Attributes:
        ended: With values.
        stopped: Without values, but with a curve.
        running: With choices, or a claim.
        told: The ended and the stopped ones: they were asked all there was to ask.
        distributions: Of all parameters that trials were asked.
    """

    def __init__(self, study: optuna.Study, trial: FrozenTrial, curves: Curves) -> None:
        self.directions, self._curves = study.directions, curves
        self.ended: list[FrozenTrial] = []
        self.stopped: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number or not choices_of(other):
                continue
            if other.state is TrialState.COMPLETE:
                self.ended.append(other)
            elif other.state is TrialState.PRUNED and curves(other):
                self.stopped.append(other)
            elif other.state is TrialState.RUNNING:
                self.running.append(other)
        self.told = [*self.ended, *self.stopped]
        values = np.array([trial.values for trial in self.ended], np.float64)
        self._values = values.reshape(len(self.ended), len(self.directions))
        self.distributions: dict[str, BaseDistribution] = {}
        for other in (*self.told, *self.running):
            self.distributions |= other.distributions

    @cached_property
    def losses(self) -> Losses:
        """Losses of the ended trials (`search.samplers._base.losses_of`), (ended, objectives)."""
        return self.to_losses(self._values)

    def to_losses(self, values: npt.ArrayLike, first: int = 0) -> Losses:
        """Return values as `losses` has them; see `search.samplers._base.convert_to_losses`."""
        return convert_to_losses(values, self.directions, self._values, first)

    def foretold(self, most: int) -> list[tuple[FrozenTrial, float, float]]:
        """Return the youngest stopped trials with their expected qualities.

        From a trial's last rung on, as much is to come as came of those that went on, on the
        average; its variance is theirs. Where too few went on nothing is foretold.

        Args:
            most: How many trials at most.

        Returns:
            (trial, mean of the quality, its variance) of each.
        """
        came = self._still_to_come()
        found = []
        for trial in self.stopped[-most:]:
            last, value = max(self._curves(trial).items())
            if last in came:
                mean, variance = came[last]
                found.append((trial, mean - float(self.to_losses([[value]])[0, 0]), variance))
        return found

    def _still_to_come(self) -> dict[int, tuple[float, float]]:
        """Return the gain in quality after each rung, by ended trials: mean and variance."""
        reached: dict[int, tuple[list[float], list[int]]] = {}
        first = max(0, len(self.ended) - LOOKED_AT)
        for place, trial in enumerate(self.ended[first:], start=first):
            for epoch, value in self._curves(trial).items():
                values, places = reached.setdefault(epoch, ([], []))
                values.append(value)
                places.append(place)
        found = {}
        for epoch, (values, places) in reached.items():
            if len(values) >= FEWEST:
                reached_by = self.to_losses(np.array(values)[:, None])[:, 0]
                gained = reached_by - self.losses[places, 0]
                found[epoch] = float(gained.mean()), float(gained.var())
        return found


def choices_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return the choices of a trial; of a running one also those that it has still to make."""
    if trial.state is not TrialState.RUNNING:
        return trial.params
    attrs = trial.system_attrs
    return {**attrs.get(CLAIM_ATTR, {}), **attrs.get(FIXED, {}), **trial.params}


def claimed(study: optuna.Study, trial: FrozenTrial, ranked: Sequence[Choices]) -> Choices:
    """Return the first candidate that no running trial has claimed, and claim it.

    Args:
        study: Its other trials may have begun since the candidates were ranked.
        trial: Whose choices it will be.
        ranked: The best first, at least one.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    taken = {
        frozenset(choices_of(other).items()) for other in running if other.number != trial.number
    }
    chosen = next((item for item in ranked if frozenset(item.items()) not in taken), ranked[0])
    set_trial_attr(study, trial, CLAIM_ATTR, chosen)
    return chosen


def unseen(pool: Sequence[Choices], trials: Iterable[FrozenTrial]) -> list[Choices]:
    """Return the candidates that are not among the trials, each once."""
    candidates = {frozenset(chosen.items()): chosen for chosen in pool}
    # trials that differ from all candidates in what differs most are not looked at further:
    # there may be ten thousand
    values: dict[str, set[Any]] = {}
    for chosen in pool:
        for name, value in chosen.items():
            values.setdefault(name, set()).add(value)
    telling = max(values, key=lambda name: len(values[name]), default="")
    seen = {chosen.get(telling, _UNASKED) for chosen in pool}
    for own in map(choices_of, trials):
        if own.get(telling, _UNASKED) in seen:
            candidates.pop(frozenset(own.items()), None)
    return list(candidates.values())


class Questions:
    """All parameters of trials: those that a space declares, then those seen in trials.

    Args:
        declared: In order; or distributions by name, all of them always asked.
        seen: Distributions of trials by name: optimizers' settings, say.
        told: Choices of trials that were asked everything. They say when what is not declared is
            asked: the learning rate of an optimizer with that optimizer. Where they do not, it is
            asked always; the trial takes what it needs.
    """

    def __init__(
        self,
        declared: Iterable[Choice] | Mapping[str, BaseDistribution],
        seen: Mapping[str, BaseDistribution],
        told: Sequence[Mapping[str, Any]],
    ) -> None:
        self._declared: dict[str, Choice] = {}
        if isinstance(declared, Mapping):
            self.distributions = dict(declared)
        else:
            self._declared = {item.name: item for item in declared}
            self.distributions = {
                name: item.distribution() for name, item in self._declared.items()
            }
        some = told[:: max(1, len(told) // SHOWING)]
        shown = {name: item for name, item in seen.items() if name not in self.distributions}
        # an earlier choice, and its values at which a parameter is asked; None: it always is
        self._when = {name: deciding(name, some) for name in shown}
        self.distributions |= shown
        self._free = [name for name, item in self.distributions.items() if not item.single()]

    def _is_asked(self, name: str, chosen: Choices) -> bool:
        if name in self._declared:
            return self._declared[name].asked(chosen)
        when = self._when.get(name)
        return when is None or chosen.get(when[0]) in when[1]

    def answered(self, chosen: Mapping[str, Any]) -> bool:
        """Tell whether choices answer all that is asked: a trial may be in the middle of it."""
        own = dict(chosen)
        return all(name in own for name in self.distributions if self._is_asked(name, own))

    def drawn(self, rng: np.random.Generator) -> Choices:
        """Return random complete choices, every value of a whole number equally likely."""
        return self._completed({}, rng)

    def changed(self, parent: Mapping[str, Any], rng: np.random.Generator, count: int) -> Choices:
        """Return complete choices that differ from others in some.

        Args:
            parent: A told trial's parameters.
            rng: Draws.
            count: Choices that are changed; those that come with them are drawn.
        """
        chosen = {name: value for name, value in parent.items() if name in self.distributions}
        free = [name for name in self._free if name in chosen]
        for place in rng.permutation(len(free))[:count]:
            name = free[place]
            chosen[name] = other_value(self.distributions[name], chosen[name], rng)
        return self._completed(chosen, rng)

    def _completed(self, given: Choices, rng: np.random.Generator) -> Choices:
        chosen: Choices = {}
        for name, item in self.distributions.items():
            if self._is_asked(name, chosen):
                chosen[name] = given[name] if name in given else drawn(item, rng)
        return chosen


def drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """Draw a value: a thousand candidates are too many for a sampler of Optuna's for each.

    Args:
        distribution: Of a parameter; continuous and logarithmic ones are drawn on that scale, all
            values of others are equally likely.
        rng: Draws.

    Raises:
        TypeError: It is none of Optuna's.
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    count = value_count(distribution)
    assert isinstance(distribution, FloatDistribution | IntDistribution), "it has been counted"
    if np.isfinite(count) and not distribution.log:
        return at(distribution, int(rng.integers(int(count))))
    if distribution.log:
        low, high = np.log(distribution.low), np.log(distribution.high)
        return nearest(distribution, float(np.exp(rng.uniform(low, high))))
    return nearest(distribution, float(rng.uniform(distribution.low, distribution.high)))
