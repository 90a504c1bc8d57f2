"""The other trials, as they were when a trial was asked for: they are not read again for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import optuna

_SEEN: WeakKeyDictionary[optuna.Trial, Sequence[optuna.trial.FrozenTrial]] = WeakKeyDictionary()


def seen_by(trial: optuna.Trial, there: Sequence[optuna.trial.FrozenTrial]) -> None:
    """Says what was there when a trial was asked for."""
    _SEEN[trial] = there


def others(trial: optuna.Trial) -> Sequence[optuna.trial.FrozenTrial]:
    """Returns what was there, or reads it now; nothing of it is to be changed."""
    found = _SEEN.get(trial)
    return trial.study.get_trials(deepcopy=False) if found is None else found
