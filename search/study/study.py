"""The Optuna study of a search: queueing, beginning and finishing its trials."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from compress.core.errors import InputError, RunFailed
from compress.core.faults import RETRY_SECONDS
from compress.data import Dataset
from compress.run.directory import LOG
from search.optuna_internals import FIXED_PARAMS_ATTR, begin_trial, end_trial
from search.plan import SearchPlan
from search.plugins import SAMPLERS
from search.spaces import DeclaredSpace
from search.study import optimizers
from search.study.costs import Costs, describe_excesses
from search.study.directory import COMPLETE, DUPLICATE, FAILED, Candidate, SearchFolder
from search.study.objective import (
    SEED_ATTR,
    SEED_GIVEN,
    SEEN_TRIALS,
    format_candidate_id,
    format_rung_attr,
    get_objective_values,
)
from search.study.storage import build_study_name, open_storage
from search.study.warm_start import (
    SEARCH_ATTR,
    describe_search,
    find_sources,
    list_choices,
    read_replayed,
)

TRIES_ATTR = "memory_was_short"
"""Trial attribute that counts failures of these choices by lack of memory."""
LOST_ATTR = "node_was_lost"
"""Trial attribute that counts lost nodes on which these choices were tried."""
MAX_LADDER_STEPS = 3
"""Maximum number of first trials below the baseline, the smallest model included."""


def open_study(folder: SearchFolder, plan: SearchPlan) -> optuna.Study:
    """Open the run's study, creating it the first time.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.

    Raises:
        InputError: The storage URL is malformed or cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=build_study_name(folder, plan.search.storage),
        storage=open_storage(
            plan.search.storage or folder.journal, "storage", patience=RETRY_SECONDS
        ),
        directions=list_directions(plan),
        sampler=SAMPLERS[plan.search.sampler_name](plan.seed),
        load_if_exists=True,
    )
    names = list(plan.search.resolved_objectives)
    if study.metric_names != names:  # plots and dashboards of Optuna show them
        experimental = optuna.exceptions.ExperimentalWarning
        with warnings.catch_warnings(action="ignore", category=experimental):
            study.set_metric_names(names)
    return study


def list_directions(plan: SearchPlan) -> list[Any]:
    """Return the directions of the objectives: metric maximized, costs minimized."""
    return [StudyDirection.MAXIMIZE, *(StudyDirection.MINIMIZE for _ in plan.search.costs)]


def ask_trial(
    study: optuna.Study,
    plan: SearchPlan,
    number: int | None = None,
    data: Dataset | None = None,
) -> Any:
    """Begin the next trial, with its own sampler.

    The trials are read from the storage once for all uses in this function, because readings are
    the main load of a storage with many workers.

    Args:
        study: The study of the run.
        plan: The plan of the run.
        number: Number of the preferred queued trial; another one is taken if it has begun.
        data: The data, with which samplers compute the costs of choices; None: samplers get no
            arguments of the space.
    """
    get_arguments = None if data is None else partial(build_sampler_arguments, plan, data)
    trials = study.get_trials(deepcopy=False)
    queue = (trial for trial in trials if trial.state == TrialState.WAITING)
    queued_trials = sorted(queue, key=lambda trial: trial.number != number)
    create = partial(
        create_sampler, plan.search.sampler_name, plan.seed, get_arguments=get_arguments
    )
    study.sampler = _DeferredSampler(create)
    trial = begin_trial(study, queued_trials)
    SEEN_TRIALS[trial] = trials
    return trial


class _DeferredSampler(RandomSampler):
    """A sampler that is replaced by the trial's own sampler once the number is known.

    A trial reads itself from the storage when it is created; asking for its number earlier would
    read it twice.
    """

    def __init__(self, create: Callable[[int], BaseSampler]) -> None:
        super().__init__()
        self._create = create

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Create the trial's own sampler; see Optuna's `BaseSampler`."""
        study.sampler = self._create(trial.number)
        study.sampler.before_trial(study, trial)


def create_sampler(
    name: str, seed: int, number: int, get_arguments: Callable[[], Mapping[str, Any]] | None = None
) -> Any:
    """Return the sampler of a trial, seeded by the plan's seed and the trial's number.

    Worker processes start and end during a run. A sampler seeded once per process would repeat
    itself in each new process, and one seeded by the number of existing trials would repeat itself
    in workers that ask at the same time.

    Args:
        name: Name of the sampler.
        seed: Seed of the plan.
        number: Number of the trial.
        get_arguments: Returns the arguments of samplers that use the space; see
            `build_sampler_arguments`.
    """
    sampler_class = SAMPLERS[name]
    space_arguments = (
        get_arguments() if get_arguments and getattr(sampler_class, "KNOWS_SPACE", False) else {}
    )
    return sampler_class((seed * 1_000_003 + number) % 2**31, **space_arguments)


def build_sampler_arguments(plan: SearchPlan, data: Dataset) -> dict[str, Any]:
    """Return the arguments of samplers that use the space, besides their seed.

    Args:
        plan: Space, limits, objectives, rungs.
        data: The data of the run.

    Returns:
        "curves": a function that returns the metrics of a trial at the rungs; for a space with
        declared choices also "space"; if it counts costs without building models also "costs"
        (both in the form of `search.samplers.pareto.ParetoSampler`).
    """
    space = plan.search.resolved_space
    rungs = {epoch: format_rung_attr(epoch) for epoch in plan.list_rungs()}

    def read_curve(trial: FrozenTrial) -> Mapping[int, float]:
        attrs = trial.user_attrs
        return {epoch: float(attrs[name]) for epoch, name in rungs.items() if name in attrs}

    arguments: dict[str, Any] = {"curves": read_curve}
    if not isinstance(space, DeclaredSpace):
        return arguments
    arguments["space"] = space.choices(data)
    if space.count(space.smallest(data), data) is not None:
        arguments["costs"] = _build_cost_function(plan, space, data)
    return arguments


def _build_cost_function(
    plan: SearchPlan, space: DeclaredSpace, data: Dataset
) -> Callable[[dict[str, Any]], tuple[float, ...] | None]:
    """Return a function that counts a candidate's costs; None: it exceeds a limit."""
    options = plan.search

    def compute_costs(chosen: dict[str, Any]) -> tuple[float, ...] | None:
        counts = space.count(chosen, data)
        assert counts is not None, "the smallest one was counted"
        candidate_costs = Costs(*counts)
        if describe_excesses(candidate_costs, options):
            return None
        values = (getattr(candidate_costs, name) for name in options.costs)
        return tuple(math.nan if value is None else float(value) for value in values)

    return compute_costs


def close_orphans(study: optuna.Study, folder: SearchFolder, plan: SearchPlan) -> int:
    """End the trials of workers that no longer exist, and queue them again.

    A trial whose candidate's record is complete is finished instead, so that no finished work is
    lost or repeated.

    Args:
        study: The study of the run.
        folder: The folder of the run.
        plan: The plan of the run.

    Returns:
        The number of trials that will run again.
    """
    requeued_count = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if retry_trial(study, folder, trial, "its run was ended") is not None:
            requeued_count += 1
            continue
        candidate = folder.read_candidate(format_candidate_id(trial.number))
        assert candidate is not None, "that is why it is not tried again"
        finish_trial(study, candidate, plan)
    return requeued_count


def retry_trial(
    study: optuna.Study,
    folder: SearchFolder,
    trial: optuna.trial.FrozenTrial,
    reason: str,
    **counts: int,
) -> int | None:
    """End a running trial, and queue its choices and seed again.

    Its worker may still be running, on a node that seemed lost or from a run that was ended. Its
    result is discarded from now on.

    Args:
        study: The study of the trial.
        folder: The folder of the run.
        trial: The trial to end.
        reason: Reason for the retry.
        **counts: New values of `TRIES_ATTR` or `LOST_ATTR`; default: the trial's values.

    Returns:
        The number of the queued trial; None: the trial's record has been written meanwhile, and
        nothing was changed.
    """
    seed = trial.user_attrs.get(SEED_ATTR, 0)
    if not folder.give_up(format_candidate_id(trial.number), seed, reason):
        return None
    end_trial(study, trial.number, TrialState.FAIL, None)
    attrs = {"retry_of": trial.number, SEED_GIVEN: True}
    attrs |= {key: trial.user_attrs[key] for key in (SEED_ATTR, TRIES_ATTR, LOST_ATTR)
              if key in trial.user_attrs}  # fmt: skip
    study.enqueue_trial(trial.params, user_attrs=attrs | counts)
    # workers may have begun further trials meanwhile
    return next(
        item.number
        for item in reversed(study.get_trials(deepcopy=False))
        if item.user_attrs.get("retry_of") == trial.number
    )


def finish_trial(study: optuna.Study, candidate: Candidate, plan: SearchPlan) -> None:
    """End a trial in the study with its candidate's outcome, unless it has ended already.

    Only the run's process ends trials; workers begin them and write records. A trial may have been
    ended by a call whose response was lost.

    Args:
        study: The study of the trial.
        candidate: The candidate, whose record has been written.
        plan: The plan, with objectives.

    Raises:
        RunFailed: The study has lost the trial.
    """
    try:
        end_trial(study, int(candidate.id), *to_outcome(candidate, plan))
    except KeyError:
        raise build_lost_error(candidate.id) from None


def build_lost_error(name: str) -> RunFailed:
    """Return the error for a finished candidate whose trial is missing in the study."""
    return RunFailed(
        f"The study has lost candidate {name}, which is finished: was it removed during the run? "
        "The same command rebuilds it from the records and continues."
    )


def to_outcome(candidate: Candidate, plan: SearchPlan) -> tuple[TrialState, list[float] | None]:
    """Return the final state and values of a candidate's trial in the study.

    Args:
        candidate: A candidate that ended.
        plan: The plan of the run, with the objectives.
    """
    if candidate.state in (COMPLETE, DUPLICATE) and candidate.val:
        values = get_objective_values(candidate, plan)
        if not any(map(math.isnan, values)):  # Optuna rejects NaN
            return TrialState.COMPLETE, values
        return TrialState.FAIL, None
    if candidate.state == FAILED:
        # samplers ignore failed trials, because a crash says nothing about the choices
        return TrialState.FAIL, None
    # stopped and rejected trials have no final values, but samplers may use them
    return TrialState.PRUNED, None


def enqueue_first_trials(
    study: optuna.Study, plan: SearchPlan, data: Dataset, has_lost_trials: bool = False
) -> None:
    """Queue the first trials of a new study.

    These are the replayed candidates and the fronts of finished searches, or else the result of
    `list_first_choices`.

    Args:
        study: The study of the run.
        plan: The plan of the run.
        data: The data of the run.
        has_lost_trials: Whether the study has lost trials. Queued ones may be among them, so
            missing first trials are queued again.

    Raises:
        InputError: A warm start is no finished search and no candidate, or the study of this name
            in a shared storage belongs to another search.
    """
    options, objectives = plan.search, plan.search.resolved_objectives
    stored = study.user_attrs.get(SEARCH_ATTR)
    for key, expected in (("space", options.space), ("objectives", list(objectives))):
        if stored is not None and stored[key] != expected:
            raise InputError(
                f"Study '{study.study_name}' in the storage must be of the same {key} "
                f"({expected}). "
                f"Received: {stored[key]}. Choose another output folder."
            )
    study.set_user_attr(SEARCH_ATTR, describe_search(options.space, objectives, data))
    trials = study.get_trials(deepcopy=False)
    if trials and not has_lost_trials:
        return
    tried = [{**trial.system_attrs.get(FIXED_PARAMS_ATTR, {}), **trial.params} for trial in trials]
    queue: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (candidate.choices, {SEED_ATTR: candidate.seed, SEED_GIVEN: True})
        for candidate in read_replayed(options.warm_start)
    ]
    sources = find_sources(options.warm_start, options.space, objectives, data)
    if sources:
        choices_of_fronts = list_choices(sources)
        queue += choices_of_fronts
        LOG.info(
            "warm start: %d candidates of %s",
            len(choices_of_fronts),
            ", ".join(f"{source.name} (distance {source.distance:.2f})" for source in sources),
        )
    for choices, attrs in queue or [(choices, {}) for choices in list_first_choices(plan, data)]:
        if not any(choices.items() <= other.items() for other in tried):
            study.enqueue_trial(choices, user_attrs=attrs)


def list_first_choices(plan: SearchPlan, data: Dataset) -> list[dict[str, Any]]:
    """Return the first choices of a search: the baseline, then models from the smallest up.

    The small models cost little, and with the baseline they form a first front from end to end,
    which early stopping and samplers can use.

    Args:
        plan: The plan. At most a quarter of its trials, and at most `MAX_LADDER_STEPS`, are models
            from the smallest up to the baseline, which is not counted.
        data: The data of the run.
    """
    space, settings = plan.search.resolved_space, optimizers.build_baseline(plan, data)
    steps = min(MAX_LADDER_STEPS, plan.max_trials // 4)
    chosen = [space.baseline(data), *space.ladder(data, steps)]
    return [{**choices, **settings} for choices in chosen]
