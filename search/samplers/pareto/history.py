"""What a study tells a sampler: qualities and costs of ended trials, and what still runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from optuna.study import StudyDirection
from optuna.trial import TrialState

from search.samplers._base import HUGE

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Numbers = npt.NDArray[np.float64]
Curves = Callable[["FrozenTrial"], Mapping[int, float]]
"""What is known of a trial's quality on the way: epoch -> quality."""
FEWEST = 3
"""Trials that ended by which it is judged what is still to come of a stopped one."""


def reported(trial: FrozenTrial) -> Mapping[int, float]:
    """Returns what a trial has reported to Optuna itself."""
    return trial.intermediate_values


@dataclass(frozen=True, eq=False)
class History:
    """The other trials of a study.

    Attributes:
        ended: With values.
        stopped: Without values, but with a curve.
        running: With choices.
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
            if other.number == trial.number or not other.params:
                continue
            if other.state is TrialState.COMPLETE:
                ended.append(other)
            elif other.state is TrialState.PRUNED and curves(other):
                stopped.append(other)
            elif other.state is TrialState.RUNNING:
                running.append(other)
        return cls(ended, stopped, running, study.directions, curves)

    @property
    def everything(self) -> list[FrozenTrial]:
        """All trials that have choices."""
        return [*self.ended, *self.stopped, *self.running]

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of all parameters that trials were asked."""
        found: dict[str, BaseDistribution] = {}
        for trial in self.everything:
            found |= trial.distributions
        return found

    @cached_property
    def sign(self) -> float:
        """1 where the first objective is to rise."""
        return 1.0 if self.directions[0] is StudyDirection.MAXIMIZE else -1.0

    @cached_property
    def qualities(self) -> Numbers:
        """Of the ended trials, higher is better."""
        found = np.array([trial.values[0] for trial in self.ended], float)
        return np.asarray((self.sign * found).clip(-HUGE, HUGE))

    @cached_property
    def costs(self) -> Numbers:
        """Of the ended trials as `scaled` gives them, (ended, costs)."""
        return self.scaled(np.array([trial.values[1:] for trial in self.ended], float))

    @cached_property
    def _logarithmic(self) -> list[bool]:
        values = np.array([trial.values[1:] for trial in self.ended], float)
        values = values.reshape(len(self.ended), len(self.directions) - 1)
        return [
            direction is StudyDirection.MINIMIZE and bool((column > 0).all())
            for direction, column in zip(self.directions[1:], values.T, strict=True)
        ]

    def scaled(self, costs: Numbers) -> Numbers:
        """Returns costs, lower is better; of positive ones the logarithms, as they span orders.

        Args:
            costs: (trials, costs), as the study knows them; NaN stays.
        """
        found = np.array(costs, float).reshape(-1, len(self.directions) - 1)
        for column, direction in enumerate(self.directions[1:]):
            if direction is StudyDirection.MAXIMIZE:
                found[:, column] *= -1
            elif self._logarithmic[column]:
                found[:, column] = np.log(np.maximum(found[:, column], 1e-3))
        return found.clip(-HUGE, HUGE)

    def foretold(self) -> list[tuple[FrozenTrial, float, float]]:
        """Returns stopped trials with the quality that was to be expected, and its variance.

        From a trial's last rung on, as much is to come as came of those that went on, on the
        average; its variance is theirs. Where too few went on nothing is foretold.
        """
        reached: dict[int, list[float]] = {}
        for trial, quality in zip(self.ended, self.qualities, strict=True):
            for epoch, value in self.curves(trial).items():
                reached.setdefault(epoch, []).append(float(quality) - self.sign * value)
        found = []
        for trial in self.stopped:
            curve = self.curves(trial)
            last = max(curve)
            gains = reached.get(last, [])
            if len(gains) >= FEWEST:
                value = self.sign * curve[last] + float(np.mean(gains))
                found.append((trial, value, float(np.var(gains))))
        return found
