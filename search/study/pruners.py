"""The rule that stops a trial early although there are several objectives.

Optuna's pruners know one objective (its issue 3450). Here a trial is compared, at each rung
(an epoch count), with all trials that reached the same rung: by quality there and by the
costs, which training does not change. What a rung needs stands in the study's storage, so
workers in other processes and on other machines see it, and a resumed run too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from compress.core.pareto import Losses

if TYPE_CHECKING:
    import optuna

COSTS_ATTR = "costs"


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
