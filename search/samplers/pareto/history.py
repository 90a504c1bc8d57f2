"""What a study tells a sampler: ended and stopped trials, and what running ones have claimed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import TrialState

from search.optuna_internals import FIXED, set_trial_attr
from search.samplers._base import Losses, Scales
from search.samplers.pareto.questions import Choices

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

Curves = Callable[["FrozenTrial"], Mapping[int, float]]
"""What is known of a trial's quality on the way: epoch -> quality."""
FEWEST = 3
"""Trials that ended by which it is judged what is still to come of a stopped one."""
LOOKED_AT = 1000
"""Of them the youngest at most."""
CLAIM_ATTR = "paretune:claim"
"""System attribute of a trial: what its sampler will answer. Workers that ask at the same time do
not try the same then, and know of each other before all questions have been asked."""
_UNASKED = object()


def reported(trial: FrozenTrial) -> Mapping[int, float]:
    """Returns what a trial has reported to Optuna itself."""
    return trial.intermediate_values


@dataclass(frozen=True)
class Foretold:
    """What was to be expected of a trial that was stopped.

    Attributes:
        trial: The trial.
        quality: The mean, higher is better.
        variance: Of it.
    """

    trial: FrozenTrial
    quality: float
    variance: float


@dataclass(frozen=True, eq=False)
class History:
    """The other trials of a study.

    Attributes:
        ended: With values.
        stopped: Without values, but with a curve.
        running: With choices, or a claim.
        directions: Of the objectives; the first is the quality.
        curves: What is known of trials on the way.
    """

    ended: Sequence[FrozenTrial]
    stopped: Sequence[FrozenTrial]
    running: Sequence[FrozenTrial]
    directions: Sequence[StudyDirection]
    curves: Curves

    @classmethod
    def of(cls, study: optuna.Study, trial: FrozenTrial, curves: Curves) -> History:
        """Reads a study, without the trial that is asked for."""
        ended: list[FrozenTrial] = []
        stopped: list[FrozenTrial] = []
        running: list[FrozenTrial] = []
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number or not choices_of(other):
                continue
            if other.state is TrialState.COMPLETE:
                ended.append(other)
            elif other.state is TrialState.PRUNED and curves(other):
                stopped.append(other)
            elif other.state is TrialState.RUNNING:
                running.append(other)
        return cls(ended, stopped, running, study.directions, curves)

    @property
    def told(self) -> list[FrozenTrial]:
        """Trials that were asked all there was to ask, and told something of it."""
        return [*self.ended, *self.stopped]

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of all parameters that trials were asked."""
        found: dict[str, BaseDistribution] = {}
        for trial in (*self.told, *self.running):
            found |= trial.distributions
        return found

    @cached_property
    def _values(self) -> Losses:
        values = np.array([trial.values for trial in self.ended], np.float64)
        return values.reshape(len(self.ended), len(self.directions))

    @cached_property
    def _scales(self) -> Scales:
        return Scales(self.directions, self._values)

    @cached_property
    def losses(self) -> Losses:
        """Of the ended trials, see `search.samplers._base.losses_of`, (ended, objectives)."""
        return self._scales.losses(self._values)

    def cost_losses(self, costs: Losses) -> Losses:
        """Returns costs as `losses` has them.

        Args:
            costs: (trials, costs), as the study knows them; NaN stays.
        """
        return self._scales.losses(costs, first=1)

    def foretold(self, most: int) -> list[Foretold]:
        """Returns the youngest stopped trials with the quality that was to be expected.

        From a trial's last rung on, as much is to come as came of those that went on, on the
        average; its variance is theirs. Where too few went on nothing is foretold.

        Args:
            most: How many trials at most.
        """
        came = self._still_to_come
        found = []
        for trial in self.stopped[-most:]:
            last, value = max(self.curves(trial).items())
            if last in came:
                mean, variance = came[last]
                found.append(Foretold(trial, float(self._qualities([value])[0]) + mean, variance))
        return found

    @cached_property
    def _still_to_come(self) -> dict[int, tuple[float, float]]:
        """By rung: how much better ended trials were at last, mean and variance."""
        reached: dict[int, tuple[list[float], list[int]]] = {}
        first = max(0, len(self.ended) - LOOKED_AT)
        for place, trial in enumerate(self.ended[first:], start=first):
            for epoch, value in self.curves(trial).items():
                values, places = reached.setdefault(epoch, ([], []))
                values.append(value)
                places.append(place)
        found = {}
        for epoch, (values, places) in reached.items():
            if len(values) >= FEWEST:
                gained = -self.losses[places, 0] - self._qualities(values)
                found[epoch] = float(gained.mean()), float(gained.var())
        return found

    def _qualities(self, values: Sequence[float]) -> Losses:
        return -self._scales.losses(np.array(values, np.float64)[:, None])[:, 0]


def choices_of(trial: FrozenTrial) -> dict[str, Any]:
    """Returns what a trial answered; of one that runs what it will answer, too."""
    if trial.state is not TrialState.RUNNING:
        return trial.params
    attrs = trial.system_attrs
    return {**attrs.get(CLAIM_ATTR, {}), **attrs.get(FIXED, {}), **trial.params}


def claimed(study: optuna.Study, trial: FrozenTrial, ranked: Sequence[Choices]) -> Choices:
    """Returns the first candidate that no running trial has claimed, and claims it.

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
    """Returns the candidates that are not among the trials, each once."""
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
