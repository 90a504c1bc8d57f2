"""Follows the training of a trial: how far it is, when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from compress.train import EpochRecord
from search.plan import SearchPlan
from search.study.costs import Costs
from search.study.pruners import Stopper, make_rule

if TYPE_CHECKING:
    import optuna


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
