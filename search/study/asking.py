"""Asks a study for its next trial, with a sampler of the trial's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from compress.data import Dataset
from search.plan import SearchPlan
from search.samplers import SAMPLERS
from search.study.directory import SearchFolder
from search.study.free_costs import free_knowledge
from search.study.seen import seen_by

if TYPE_CHECKING:
    import optuna


def ask(
    study: optuna.Study,
    plan: SearchPlan,
    number: int | None = None,
    data: Dataset | None = None,
    folder: SearchFolder | None = None,
) -> Any:
    """Asks for the next trial, with a sampler of its own.

    Of the storage the trials are read once, for all that an ask wants to know of them: with many
    workers readings are what a storage is busy with.

    Args:
        study: The run's.
        plan: Its plan.
        number: Of the queued trial that is wanted; another comes where it is taken.
        data: What the space's models are for: by them samplers know what candidates cost.
        folder: Of the run: what was measured for that is in it.
    """
    import optuna
    from optuna.trial import TrialState

    known = None if data is None else partial(free_knowledge, plan, data, folder)
    there = study.get_trials(deepcopy=False)
    queue = (trial for trial in there if trial.state == TrialState.WAITING)
    wanted = sorted(queue, key=lambda trial: trial.number != number)
    taken = next((item for item in wanted if _taken(study, item._trial_id)), None)
    if taken is not None:
        trial_id = taken._trial_id
    else:
        trial_id = study._storage.create_new_trial(study._study_id)
    make = partial(sampler_for, plan.search.strategy, plan.seed, known=known)
    study.sampler = _by_number()(make)
    trial = optuna.trial.Trial(study, trial_id)
    seen_by(trial, there)
    return trial


@cache
def _by_number() -> Any:
    """Returns a class of samplers that make way for that of a trial, once its number is known.

    A trial reads itself from the storage when it is made: to ask for its number before that would
    read it twice.
    """
    import optuna

    class ByNumber(optuna.samplers.RandomSampler):
        def __init__(self, make: Callable[[int], optuna.samplers.BaseSampler]) -> None:
            super().__init__()
            self._make = make

        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            study.sampler = self._make(trial.number)
            study.sampler.before_trial(study, trial)

    return ByNumber


def _taken(study: optuna.Study, trial_id: int) -> bool:
    """Takes a trial of the queue; returns whether nobody else had it."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    try:
        return study._storage.set_trial_state_values(trial_id, state=TrialState.RUNNING)
    except UpdateFinishedTrialError:  # another had it, and has ended it
        return False


def sampler_for(
    name: str, seed: int, number: int, known: Callable[[], Mapping[str, Any]] | None = None
) -> Any:
    """Returns the sampler of a trial, seeded by the plan's seed and the trial's number.

    Worker processes come and go; a sampler seeded once a process would repeat itself in
    each new one, and one seeded by how many trials there are in workers that ask at once.

    Args:
        name: Of the sampler.
        seed: The plan's.
        number: The trial's.
        known: Returns what those are given that know a space; see `search.study.free_costs`.
    """
    make = SAMPLERS[name]
    more = known() if known and getattr(make, "KNOWS_SPACE", False) else {}
    return make((seed * 1_000_003 + number) % 2**31, **more)
