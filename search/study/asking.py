"""Asks a study for its next trial: its sampler, what that knows of the space, the other trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from compress.data import Dataset
from search.optuna_internals import begin_trial
from search.plan import SearchPlan
from search.samplers import SAMPLERS
from search.spaces import DeclaredSpace
from search.study.costs import Costs, latency_of, over_limit
from search.study.directory import SearchFolder
from search.study.early_stopping import rung_attr

_SEEN: WeakKeyDictionary[optuna.Trial, Sequence[FrozenTrial]] = WeakKeyDictionary()
"""The other trials, as they were when a trial was asked for: they are not read again for it."""


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
    known = None if data is None else partial(free_knowledge, plan, data, folder)
    there = study.get_trials(deepcopy=False)
    queue = (trial for trial in there if trial.state == TrialState.WAITING)
    wanted = sorted(queue, key=lambda trial: trial.number != number)
    make = partial(sampler_for, plan.search.strategy, plan.seed, known=known)
    study.sampler = _ByNumber(make)
    trial = begin_trial(study, wanted)
    _SEEN[trial] = there
    return trial


class _ByNumber(RandomSampler):
    """A sampler that makes way for that of a trial, once its number is known.

    A trial reads itself from the storage when it is made: to ask for its number before that would
    read it twice.
    """

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        super().__init__()
        self._make = make

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Makes the trial's own sampler; see Optuna's `BaseSampler`."""
        study.sampler = self._make(trial.number)
        study.sampler.before_trial(study, trial)


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
        known: Returns what those are given that know a space; see `search.study.asking`.
    """
    make = SAMPLERS[name]
    more = known() if known and getattr(make, "KNOWS_SPACE", False) else {}
    return make((seed * 1_000_003 + number) % 2**31, **more)


def free_knowledge(
    plan: SearchPlan, data: Dataset, folder: SearchFolder | None = None
) -> dict[str, Any]:
    """Returns what samplers that know a space are given besides their seed.

    Args:
        plan: Space, limits, objectives, rungs.
        data: What the models are for.
        folder: Of the run, which may hold times of a model's parts; None: there is none.

    Returns:
        "curves": reads the qualities that a trial had at the rungs of the stopping rule; of a
        space that declares its choices "space"; where it counts them without
        building them "costs" (both as `search.samplers.pareto.ParetoSampler` takes them).
    """
    space = plan.search.made_space
    rungs = {epoch: rung_attr(epoch) for epoch in plan.rungs()}

    def read_curve(trial: FrozenTrial) -> Mapping[int, float]:
        attrs = trial.user_attrs
        return {epoch: float(attrs[name]) for epoch, name in rungs.items() if name in attrs}

    found: dict[str, Any] = {"curves": read_curve}
    if not isinstance(space, DeclaredSpace):
        return found
    found["space"] = space.choices(data)
    if space.count(space.smallest(data), data) is not None:
        found["costs"] = _costs(plan, space, data, folder)
    return found


def _costs(
    plan: SearchPlan, space: DeclaredSpace, data: Dataset, folder: SearchFolder | None
) -> Callable[[dict[str, Any]], tuple[float, ...] | None]:
    """Returns what counts candidates; None of those above a limit, or beyond a soft one."""
    options = plan.search
    latency = None if folder is None else latency_of(options, folder)

    def counted(chosen: dict[str, Any]) -> tuple[float, ...] | None:
        found = space.count(chosen, data)
        assert found is not None, "the smallest one was counted"
        known = Costs(*found, latency_ms=None if latency is None else latency(chosen))
        costs = {name: value for name, value in vars(known).items() if value is not None}
        soft = (item for item in options.prefer if item.name in costs)
        if over_limit(known, options) or not all(item.holds(costs[item.name]) for item in soft):
            return None
        values = (getattr(known, name) for name in options.costs)
        return tuple(math.nan if value is None else float(value) for value in values)

    return counted


def others(trial: optuna.Trial) -> Sequence[FrozenTrial]:
    """Returns what was there, or reads it now; nothing of it is to be changed."""
    found = _SEEN.get(trial)
    return trial.study.get_trials(deepcopy=False) if found is None else found
