"""Which candidate a trial will be: told to others before it has answered all questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from search.samplers._base import FIXED
from search.samplers.pareto.questions import Choices

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

CLAIM_ATTR = "paretune:claim"
"""System attribute of a trial: what its sampler will answer. Workers that ask at the same time do
not try the same then, and know of each other before all questions have been asked."""
_UNASKED = object()


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
    study._storage.set_trial_system_attr(trial._trial_id, CLAIM_ATTR, chosen)
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
