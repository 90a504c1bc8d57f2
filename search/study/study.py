"""The Optuna study behind a search: asking, telling and queueing its trials."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from compress.core.errors import InputError, RunFailed
from compress.core.faults import PATIENCE
from compress.data import Dataset
from compress.run.directory import LOG
from compress.run.records import read_record
from search.optuna_internals import FIXED, begin_trial, end_trial
from search.plan import SearchPlan
from search.samplers import SAMPLERS
from search.spaces import DeclaredSpace
from search.study import optimizers
from search.study.costs import Costs, latency_of, over_limit
from search.study.directory import COMPLETE, DUPLICATE, FAILED, LOST, Candidate, SearchFolder
from search.study.objective import (
    SEED_ATTR,
    SEED_GIVEN,
    SEEN,
    candidate_id,
    objective_values,
    rung_attr,
)
from search.study.storage import open_storage, study_name
from search.study.warm_start import ABOUT_ATTR, about, find_sources, first_of

TRIES_ATTR = "memory_was_short"
"""Trial attribute: how often memory was short for these choices."""
LOST_ATTR = "node_was_lost"
"""Trial attribute: how often a node was lost on which these choices were tried."""
LADDER = 3
"""At most so many models, from the smallest on towards the baseline, are tried behind it."""


def open_study(folder: SearchFolder, plan: SearchPlan) -> optuna.Study:
    """Open the run's study, creating it the first time.

    Raises:
        InputError: The storage URL is malformed or cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=study_name(folder, plan.search.storage),
        storage=open_storage(plan.search.storage or folder.journal, "storage", patience=PATIENCE),
        directions=directions(plan),
        sampler=SAMPLERS[plan.search.strategy](plan.seed),
        load_if_exists=True,
    )
    names = list(plan.search.objectives)
    if study.metric_names != names:  # Optuna's dashboard shows them
        experimental = optuna.exceptions.ExperimentalWarning
        with warnings.catch_warnings(action="ignore", category=experimental):
            study.set_metric_names(names)
    return study


def directions(plan: SearchPlan) -> list[Any]:
    """Return the directions of the objectives: quality up, costs down."""
    return [StudyDirection.MAXIMIZE, *(StudyDirection.MINIMIZE for _ in plan.search.costs)]


def ask(
    study: optuna.Study,
    plan: SearchPlan,
    number: int | None = None,
    data: Dataset | None = None,
    folder: SearchFolder | None = None,
) -> Any:
    """Ask for the next trial, with a sampler of its own.

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
    SEEN[trial] = there
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
        """Make the trial's own sampler; see Optuna's `BaseSampler`."""
        study.sampler = self._make(trial.number)
        study.sampler.before_trial(study, trial)


def sampler_for(
    name: str, seed: int, number: int, known: Callable[[], Mapping[str, Any]] | None = None
) -> Any:
    """Return the sampler of a trial, seeded by the plan's seed and the trial's number.

    Worker processes come and go; a sampler seeded once a process would repeat itself in
    each new one, and one seeded by how many trials there are in workers that ask at once.

    Args:
        name: Of the sampler.
        seed: The plan's.
        number: The trial's.
        known: Returns what those are given that know a space; see `search.study.study`.
    """
    make = SAMPLERS[name]
    more = known() if known and getattr(make, "KNOWS_SPACE", False) else {}
    return make((seed * 1_000_003 + number) % 2**31, **more)


def free_knowledge(
    plan: SearchPlan, data: Dataset, folder: SearchFolder | None = None
) -> dict[str, Any]:
    """Return the arguments of samplers that know a space, besides their seed.

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
    """Return a function that counts a candidate's costs; None: it breaks a limit, hard or soft."""
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


def close_orphans(study: optuna.Study, folder: SearchFolder, plan: SearchPlan) -> int:
    """End the trials whose workers are gone, and queue them again.

    A trial whose candidate was already written in full is told as finished instead: no
    finished work is lost or done twice.

    Returns:
        The number of trials that will run again.
    """
    again = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if try_again(study, folder, trial, "its run was ended") is not None:
            again += 1
            continue
        candidate = folder.read_candidate(candidate_id(trial.number))
        assert candidate is not None, "that is why it is not tried again"
        tell(study, candidate, plan)
    return again


def try_again(
    study: optuna.Study,
    folder: SearchFolder,
    trial: optuna.trial.FrozenTrial,
    reason: str,
    **counts: int,
) -> int | None:
    """End a running trial, and queue its choices and seed again.

    Its worker may still be at work, on a node that seemed lost or of a run that was ended: what
    it finds comes too late from here on.

    Args:
        study: Its study.
        folder: The run's.
        trial: The one that ends.
        reason: Why.
        **counts: `TRIES_ATTR` or `LOST_ATTR`: how often it has been; else as it says itself.

    Returns:
        The number of the trial that is queued; None: its record has been written meanwhile, and
        nothing was done.
    """
    seed = trial.user_attrs.get(SEED_ATTR, 0)
    if not folder.give_up(candidate_id(trial.number), seed, reason):
        return None
    end_trial(study, trial.number, TrialState.FAIL, None)
    attrs = {"retry_of": trial.number, SEED_GIVEN: True}
    attrs |= {key: trial.user_attrs[key] for key in (SEED_ATTR, TRIES_ATTR, LOST_ATTR)
              if key in trial.user_attrs}  # fmt: skip
    study.enqueue_trial(trial.params, user_attrs=attrs | counts)
    # workers may have begun others meanwhile
    return next(
        item.number
        for item in reversed(study.get_trials(deepcopy=False))
        if item.user_attrs.get("retry_of") == trial.number
    )


def tell(study: optuna.Study, candidate: Candidate, plan: SearchPlan) -> None:
    """End a trial in the study as its candidate ended; one that has ended stays as it is.

    For the run's process, which owns the ends of trials: workers begin them, and write records. A
    trial may have ended by a call that the storage seemed to lose.

    Args:
        study: Its study.
        candidate: As it is recorded: what is told and not recorded would be lost.
        plan: Objectives.

    Raises:
        RunFailed: The study has lost the trial.
    """
    try:
        end_trial(study, int(candidate.id), *outcome(candidate, plan))
    except KeyError:
        raise lost_by_study(candidate.id) from None


def lost_by_study(name: str) -> RunFailed:
    """Return the error of a study that does not have a finished candidate's trial."""
    return RunFailed(
        f"The study has lost candidate {name}, which is finished: was it removed during the run? "
        "The same command rebuilds it from the records and continues."
    )


def outcome(candidate: Candidate, plan: SearchPlan) -> tuple[TrialState, list[float] | None]:
    """Return how a candidate's trial ends in the study: state and values."""
    if candidate.state in (COMPLETE, DUPLICATE) and candidate.val:
        values = objective_values(candidate, plan)
        if not any(map(math.isnan, values)):  # Optuna takes none of them
            return TrialState.COMPLETE, values
        return TrialState.FAIL, None
    if candidate.state == FAILED:
        # no sampler looks at failed trials: a crash says nothing about the choices
        return TrialState.FAIL, None
    # stopped and rejected ones have no final values, but samplers may learn from them
    return TrialState.PRUNED, None


def enqueue_first(study: optuna.Study, plan: SearchPlan, data: Dataset, lost: bool = False) -> None:
    """Queue the first trials of a new study.

    Replayed choices, else the fronts of finished searches, else `first_choices`.

    Args:
        study: The run's.
        plan: Its plan.
        data: What is searched for.
        lost: The study has lost trials, and queued ones may be among them: what it does not
            have is queued again.

    Raises:
        InputError: The replay file holds no candidate, a warm start's source is none, or the
            study of this name in a shared storage is of another search.
    """
    options = plan.search
    stored = study.user_attrs.get(ABOUT_ATTR)
    for key, own in (("space", options.space), ("objectives", list(options.objectives))):
        if stored is not None and stored[key] != own:
            raise InputError(
                f"Study '{study.study_name}' in the storage must be of the same {key} ({own}). "
                f"Received: {stored[key]}. Choose another output folder."
            )
    study.set_user_attr(ABOUT_ATTR, about(options.space, options.objectives, data))
    there = study.get_trials(deepcopy=False)
    if there and not lost:
        return
    tried = [{**trial.system_attrs.get(FIXED, {}), **trial.params} for trial in there]
    queue: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if plan.search.replay:
        replayed = read_replay(plan.search.replay)
        queue = [(replayed.choices, {SEED_ATTR: replayed.seed, SEED_GIVEN: True})]
    elif options.warm_start:
        sources = find_sources(options.warm_start, options.space, options.objectives, data)
        queue = first_of(sources)
        LOG.info(
            "warm start: %d candidates of %s",
            len(queue),
            ", ".join(f"{source.name} (distance {source.distance:.2f})" for source in sources),
        )
    for choices, attrs in queue or [(choices, {}) for choices in first_choices(plan, data)]:
        if not any(choices.items() <= other.items() for other in tried):
            study.enqueue_trial(choices, user_attrs=attrs)


def first_choices(plan: SearchPlan, data: Dataset) -> list[dict[str, Any]]:
    """Return the first choices of a search: the baseline, then models from the smallest on.

    The small ones cost little, and with the baseline they are a first front from end to end:
    what later trials are stopped against and samplers start from.

    Args:
        plan: At most a quarter of its trials, and `LADDER`, go to the models on the way.
        data: What is searched for.
    """
    space, settings = plan.search.made_space, optimizers.baseline(plan, data)
    steps = min(LADDER, plan.search.trials // 4)
    chosen = [space.baseline(data), *space.ladder(data, steps)]
    return [{**choices, **settings} for choices in chosen]


def read_replay(path: Path) -> Candidate:
    """Read a candidate's record for `--replay`.

    Raises:
        InputError: The file is missing or holds no candidate.
    """
    found = read_record(path, Candidate)
    if found.state == LOST:
        raise InputError(
            f"replay must name the record of a candidate that ended. Received: '{path}', which "
            f"says that {found.reason}; it ran again under another number."
        )
    return found
