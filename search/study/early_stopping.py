"""Follows the training of a trial, and stops it early although there are several objectives.

Optuna's pruners know one objective (its issue 3450). Here a trial is compared, at each rung
(an epoch count), with all trials that reached the same rung: by quality there and by the
costs, which training does not change. What a rung needs stands in the study's storage, so
workers in other processes and on other machines see it, and a resumed run too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import optuna

from compress.core.pareto import Losses
from compress.train import EpochRecord
from search.plan import SearchPlan
from search.study.costs import Costs

COSTS_ATTR = "costs"


class Following:
    """Follows a training epoch by epoch: progress, the plateau, the stopping rule."""

    def __init__(
        self,
        trial: optuna.Trial,
        plan: SearchPlan,
        costs: Costs,
        name: str,
        on_progress: Callable[[str, float], None],
    ) -> None:
        options = plan.stopping
        rule = make_rule(options.rule, options.margin)
        self._stopper = Stopper(trial, rule, plan.rungs(), costs.values(plan.search.costs))
        self._quality, self._plateau = plan.search.objectives[0], options.plateau
        self._name, self._on_progress = name, on_progress
        self._best, self._best_epoch = -math.inf, 0
        self.stopped = ""
        self.notes: tuple[str, ...] = ()

    def on_epoch(self, epoch: int, epochs: int, record: EpochRecord) -> None:
        """Shows how far the training is."""
        quality = record.val[self._quality]
        self._on_progress(
            f"{self._name}: epoch {epoch}/{epochs}, validation {quality:.3f}", epoch / epochs
        )

    def should_stop(self, record: EpochRecord) -> bool:
        """Tells whether the training ends here."""
        quality = record.val[self._quality]
        if quality > self._best:
            self._best, self._best_epoch = quality, record.epoch
        # the best so far stands for a trial, as it does at its end
        if self._stopper.stops(record.epoch, self._best):
            self.stopped = f"others were better after {record.epoch} epochs"
        elif self._plateau and record.epoch - self._best_epoch >= self._plateau:
            self.notes = (f"ended after {record.epoch} epochs: none of the last "
                          f"{self._plateau} was better",)  # fmt: skip
        return bool(self.stopped or self.notes)


class Stopper:
    """Records a trial's rungs in the storage and asks the rule.

    Args:
        trial: The trial in question; its study has the others' records.
        rule: The rule; None: nothing stops.
        epochs: The rungs.
        costs: The trial's costs, in the order of the objectives.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        rule: Dominance | None,
        epochs: Sequence[int],
        costs: Sequence[float],
    ) -> None:
        self._trial, self._rule, self._epochs = trial, rule, epochs
        self._costs = [float(cost) for cost in costs]
        trial.set_user_attr(COSTS_ATTR, self._costs)

    def stops(self, epoch: int, quality: float) -> bool:
        """Tells whether the trial ends after this epoch."""
        if self._rule is None or epoch not in self._epochs:
            return False
        self._trial.set_user_attr(rung_attr(epoch), quality)
        peers = at_rung(self._trial.study, epoch, len(self._costs), without=self._trial.number)
        own = np.array([[-quality, *self._costs]])
        return self._rule.stops(np.concatenate([peers, own]), len(peers))


@dataclass(frozen=True)
class Dominance:
    """Stops a trial when another is better by a margin, at no more cost.

    Among trials that differ in cost nothing is stopped, so that the cheap end of the front
    survives however low its quality is.

    Attributes:
        margin: By how much the other's quality must be higher; above the noise of an epoch.
    """

    margin: float

    def stops(self, losses: Losses, own: int) -> bool:
        """Tell whether a trial shall stop.

        Args:
            losses: (trials, 1 + costs) of all that reached the rung: -quality there, then
                the costs; lower is better.
            own: The row of the trial in question.
        """
        better = losses[:, 0] <= losses[own, 0] - self.margin
        better[own] = False
        no_more = (losses[:, 1:] <= losses[own, 1:]).all(axis=1)
        return bool((better & no_more).any())


def make_rule(name: str, margin: float) -> Dominance | None:
    """Return the rule of a name in `search.plan.stopping.RULES`; None for "none"."""
    return Dominance(margin) if name == "dominance" else None


def rung_attr(epoch: int) -> str:
    """Returns the name under which a trial's quality at a rung is stored."""
    return f"rung{epoch}"


def at_rung(study: optuna.Study, epoch: int, costs: int, without: int) -> Losses:
    """Returns (trials, 1 + costs) of the trials that reached a rung, but one."""
    name = rung_attr(epoch)
    rows = [
        [-float(trial.user_attrs[name]), *trial.user_attrs[COSTS_ATTR]]
        for trial in study.get_trials(deepcopy=False)
        if name in trial.user_attrs and trial.number != without
    ]
    return np.array(rows, float).reshape(-1, 1 + costs)
