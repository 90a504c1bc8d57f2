"""Recovery of a corrupt study from the records of its candidates.

The records are authoritative. Candidates' files are named after trial numbers. A study that has
lost trials, for example through a removed or corrupt journal, would assign their numbers again,
and new candidates would overwrite the files of finished ones.

Optuna stops at the first line of a journal that it cannot read, and numbers trials by the lines
that created them: after one lost line, every later trial has a wrong number.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState, create_trial

from compress.core.atomic_files import list_complete_files, replace_file
from compress.core.errors import InputError
from compress.data import Dataset
from compress.run.directory import LOG
from search.optuna_internals import FIXED_PARAMS_ATTR, replay_journal, set_study_attr
from search.plan import SearchPlan
from search.spaces import DeclaredSpace
from search.study import optimizers
from search.study.costs import Costs, report_excess
from search.study.directory import COMPLETE, FAILED, REJECTED, STOPPED, Candidate, SearchFolder
from search.study.front import is_finite
from search.study.objective import (
    COSTS_ATTR,
    SEED_ATTR,
    SEED_GIVEN,
    format_candidate_id,
    format_rung_attr,
)
from search.study.storage import build_study_name, open_journal
from search.study.study import list_directions, open_study, to_outcome
from search.study.warm_start import SEARCH_ATTR, describe_search

NUMBER = re.compile(r"[0-9]{4,6}")
"""Pattern of a trial's number in file names; no search has more digits."""
DAMAGED_SUFFIX = ".damaged"
"""Suffix of the backup of a rebuilt journal."""


def recover(
    folder: SearchFolder,
    plan: SearchPlan,
    data: Dataset,
    candidates: Sequence[Candidate] | None = None,
) -> bool:
    """Make the study agree with the records in `candidates/`.

    An intact journal is left unchanged, and a journal with an incomplete last line loses that line.
    Any other journal is rebuilt from the records and from the readable trials without a record
    (queued or interrupted ones). In a shared storage, only trials that are missing at the end are
    added. Call it in the process that holds the run's folder, while no worker runs.

    Args:
        folder: The folder of the run.
        plan: The plan of the run.
        data: The data of the run; the space may need them to rebuild the choices of lost trials.
        candidates: The folder's candidates, if they have been read (reading ten thousand takes
            seconds); None: they are read from the folder.

    Returns:
        Whether trials were lost; queued trials may be among them.

    Raises:
        InputError: A record cannot be read, or the trials of a shared storage contradict the
            records.
    """
    records = _index_records(folder, folder.read_candidates() if candidates is None else candidates)
    # models with or without a record, and trials that were given to another worker
    paths = (
        *list_complete_files(folder.candidates, ".keras"),
        *list_complete_files(folder.candidates, ".json"),
    )
    numbers = [int(path.stem) for path in paths if NUMBER.fullmatch(path.stem)]
    count = 1 + max(numbers, default=-1)
    builder = _TrialBuilder(plan, data, records)
    if plan.search.storage:
        return _recover_shared(folder, plan, builder, count)
    journal = read_journal(folder)
    journal_trials = dict(enumerate(journal.trials))
    trials = [
        builder.build_trial(number, journal_trials.get(number))
        for number in range(max(count, len(journal_trials)))
    ]
    expected_search = describe_search(plan.search.space, plan.search.resolved_objectives, data)
    recorded_search = journal.user_attrs.get(SEARCH_ATTR, expected_search)
    # plan.json has been compared already, so a foreign search here means a corrupt line
    is_foreign = not isinstance(recorded_search, dict) or any(
        recorded_search.get(key) != expected_search[key] for key in ("space", "objectives")
    )
    if not (journal.unreadable_lines or is_foreign or builder.replaced_ids or builder.unknown_ids):
        if journal.torn_bytes:
            # the next line would be appended to the incomplete one
            os.truncate(folder.journal, journal.size - journal.torn_bytes)
            LOG.info("dropped a torn line from the study's journal (a writer was killed)")
        return False
    with replace_file(folder.journal) as temporary:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = open_journal(temporary, folder.journal)
        name = build_study_name(folder, "")
        study = optuna.create_study(
            study_name=name, storage=storage, directions=list_directions(plan)
        )
        for key, value in {**journal.user_attrs, SEARCH_ATTR: expected_search}.items():
            study.set_user_attr(key, value)
        for key, value in journal.system_attrs.items():
            set_study_attr(study, key, value)
        study.add_trials(trials)
        if folder.journal.exists():
            shutil.copyfile(
                folder.journal, folder.journal.with_name(folder.journal.name + DAMAGED_SUFFIX)
            )
    _log_recovery(folder, journal, builder, len(trials))
    return True


@dataclass(frozen=True)
class Journal:
    """The readable part of a run's journal.

    Attributes:
        trials: Trials of the study, by number.
        user_attrs, system_attrs: Attributes of the study.
        lines: Number of complete lines in the file.
        unreadable_lines: Number of complete lines that cannot be read.
        size: Bytes of the file.
        torn_bytes: Bytes of an incomplete last line.
    """

    trials: Sequence[FrozenTrial] = ()
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    lines: int = 0
    unreadable_lines: int = 0
    size: int = 0
    torn_bytes: int = 0


def read_journal(folder: SearchFolder) -> Journal:
    """Read a run's journal, skipping and counting the lines that Optuna cannot read.

    Args:
        folder: The folder of the run; the journal may be missing.

    Raises:
        InputError: The journal is not a file.
    """
    path = folder.journal
    if not path.exists():
        return Journal()
    if not path.is_file():
        raise InputError(
            f"The run's journal '{path}' must be a file. Received: a folder or something else of "
            "that name. Move it away, and give the same command again."
        )
    content = path.read_bytes()
    complete_size = content.rfind(b"\n") + 1
    lines = content[:complete_size].splitlines()
    user_attrs, system_attrs, trials, unreadable = replay_journal(
        lines, build_study_name(folder, "")
    )
    size = len(content)
    return Journal(
        trials, user_attrs, system_attrs, len(lines), unreadable, size, size - complete_size
    )


def _log_recovery(
    folder: SearchFolder, journal: Journal, builder: _TrialBuilder, count: int
) -> None:
    """Log why the journal was rebuilt, which trials were restored or lost, and its kept copy."""
    name, problem = folder.journal.name, "was missing or empty"
    if journal.size:
        torn_text = ", and the last was torn" if journal.torn_bytes else ""
        problem = (
            f"was corrupt: {journal.unreadable_lines} of {journal.lines} lines could not be read"
            f"{torn_text}"
        )
    words = [f"{name} {problem}; rebuilt with {count} trials"]
    if builder.replaced_ids:
        words.append(f"from their records in candidates/: {', '.join(builder.replaced_ids)}")
    if builder.unknown_ids:
        words.append(
            f"not tried again, as nothing says what they chose: {', '.join(builder.unknown_ids)}"
        )
    if journal.size:
        words.append(f"what was there is kept as {name}{DAMAGED_SUFFIX}")
    LOG.info("%s", "; ".join(words))


def _recover_shared(
    folder: SearchFolder, plan: SearchPlan, builder: _TrialBuilder, count: int
) -> bool:
    """Add the trials that a shared storage has lost at its end."""
    study = open_study(folder, plan)
    trials = study.get_trials(deepcopy=False)
    for number, record in builder.records.items():
        if number < len(trials) and trials[number].params != record.choices:
            raise InputError(
                f"The study '{study.study_name}' in the storage must hold the candidates of "
                f"'{folder.path}'. Received: trial {number} with other choices than candidate "
                f"{record.id}. Bring the storage back, or choose another output folder."
            )
    missing = range(len(trials), count)
    study.add_trials(builder.build_trial(number, None) for number in missing)
    if missing:
        LOG.info(
            "the storage had lost %d trials; they are there again, from the records in "
            "candidates/: %s", len(missing), ", ".join(builder.replaced_ids),
        )  # fmt: skip
    return bool(missing)


def _index_records(folder: SearchFolder, candidates: Iterable[Candidate]) -> dict[int, Candidate]:
    """Return the candidates by trial number; raise InputError for an id of another form."""
    records = {}
    for item in candidates:
        if not NUMBER.fullmatch(item.id):
            raise InputError(
                f"Records in '{folder.candidates}' must be called by a trial's number. Received: "
                f"'{item.id}'. Take it out of there."
            )
        records[int(item.id)] = item
    return records


class _TrialBuilder:
    """Builder of the trials that a study must have, by number.

    Attributes:
        records: Candidates that ended, by number.
        replaced_ids: Ids of the trials that contradicted their records.
        unknown_ids: Ids of the trials without any data.
    """

    def __init__(self, plan: SearchPlan, data: Dataset, records: dict[int, Candidate]) -> None:
        self._plan, self._data, self.records = plan, data, records
        self._declared = list_declared_distributions(plan, data)
        # undeclared distributions are taken from trials, or found by building the space again
        self._observed: dict[str, BaseDistribution] = {}
        self.replaced_ids: list[str] = []
        self.unknown_ids: list[str] = []

    def build_trial(self, number: int, journal_trial: FrozenTrial | None) -> FrozenTrial:
        """Return the trial with a number.

        Args:
            number: The trial's number.
            journal_trial: The trial of this number in the journal; None: there is none.
        """
        if journal_trial is not None and not is_sound(
            journal_trial, self._declared, self._plan.search.costs
        ):
            journal_trial = None
        record = self.records.get(number)
        if record is not None:
            facts = describe_trial(record, self._plan)
            # the trial is still running in the study if the run was killed after its record
            agrees = (
                journal_trial is not None
                and journal_trial.params == record.choices
                and (
                    (journal_trial.state, journal_trial.values) == (facts["state"], facts["values"])
                    or journal_trial.state == TrialState.RUNNING
                )
                and facts["user_attrs"].items() <= journal_trial.user_attrs.items()
                and facts["constraints"].items() <= journal_trial.constraints.items()
            )
            if journal_trial is None or not agrees:
                self.replaced_ids.append(record.id)
                return self._from_record(record, facts)
        elif journal_trial is None:
            # the number was in use, so no other trial may get it
            self.unknown_ids.append(format_candidate_id(number))
            return create_trial(state=TrialState.FAIL)
        self._observed |= journal_trial.distributions
        return journal_trial

    def _from_record(self, record: Candidate, facts: dict[str, Any]) -> FrozenTrial:
        """Return a candidate's trial from its record, which does not hold the distributions.

        Choices of a failed candidate without a known distribution are left out: building a
        user-defined space again might fail again.
        """
        distributions = self._find_distributions(record)
        if len(distributions) < len(record.choices) and record.state != FAILED:
            self._observed |= ask_distributions(record, self._plan, self._data)
            distributions = self._find_distributions(record)
        params = {name: record.choices[name] for name in distributions}
        trial = create_trial(params=params, distributions=distributions, **facts)
        if record.ended is not None:
            trial.datetime_complete = datetime.fromtimestamp(record.ended)
            trial.datetime_start = trial.datetime_complete - timedelta(seconds=record.seconds)
        return trial

    def _find_distributions(self, record: Candidate) -> dict[str, BaseDistribution]:
        distributions = self._observed | self._declared
        return {
            name: distributions[name]
            for name, value in record.choices.items()
            if name in distributions and is_in_distribution(distributions[name], value)
        }


def list_declared_distributions(plan: SearchPlan, data: Dataset) -> dict[str, BaseDistribution]:
    """Return the distributions known without a model: training settings and declared choices.

    Args:
        plan: The plan of the run.
        data: The data of the run.
    """
    distributions: dict[str, BaseDistribution] = {}
    for name in plan.search.optimizers:
        low, _ = optimizers.LEARNING_RATES[name]
        choices = {**optimizers.build_baseline(plan, data), "optimizer": name}
        trial = optuna.trial.FixedTrial({**choices, f"learning_rate.{name}": low})
        optimizers.sample_settings(trial, plan, data)
        distributions |= trial.distributions
    space = plan.search.resolved_space
    if isinstance(space, DeclaredSpace):
        distributions |= {choice.name: choice.to_distribution() for choice in space.choices(data)}
    return distributions


def ask_distributions(
    record: Candidate, plan: SearchPlan, data: Dataset
) -> dict[str, BaseDistribution]:
    """Return the distributions of a candidate's choices, by building its model again.

    Args:
        record: The candidate.
        plan: The plan of the run.
        data: The data of the run.

    Raises:
        InputError: The space no longer samples these choices.
    """
    trial = optuna.trial.FixedTrial(record.choices, int(record.id))
    problem = "it no longer offers them"
    try:
        plan.search.resolved_space.build(trial, data)
    except Exception as error:  # user-defined code may raise anything
        problem = f"{type(error).__name__}: {error}"
    distributions = dict(trial.distributions)
    settings = {name for name in record.choices if optimizers.is_setting(name)}
    if not all(
        name in distributions and is_in_distribution(distributions[name], record.choices[name])
        for name in record.choices.keys() - settings
    ):
        raise InputError(
            f"Space '{plan.search.space}' must offer what candidate {record.id} chose: the "
            f"study has lost it. Received: {problem}. Bring the study back, or choose another "
            "output folder."
        )
    return distributions


def describe_trial(record: Candidate, plan: SearchPlan) -> dict[str, Any]:
    """Return the state, values and attributes of a candidate's trial from its record.

    Args:
        record: The candidate.
        plan: The plan of the run.

    Returns:
        state, values, user_attrs (seed, costs and rungs) and constraints (limit violations reported
        to samplers), as `optuna.trial.create_trial` takes them.
    """
    state, values = to_outcome(record, plan)
    attrs: dict[str, Any] = {SEED_ATTR: record.seed}
    costs = [getattr(record, name) for name in plan.search.costs]
    if record.state in (COMPLETE, STOPPED) and None not in costs:
        attrs[COSTS_ATTR] = [float(cost) for cost in costs]
        metric_values = [epoch["val"][plan.search.objectives[0]] for epoch in record.history]
        for rung in plan.list_rungs():
            if rung <= len(metric_values):
                attrs[format_rung_attr(rung)] = max(metric_values[:rung])
    trial: Any = optuna.trial.FixedTrial(record.choices)
    if record.state == REJECTED and record.macs is not None and record.params is not None:
        known = Costs(record.macs, record.params, (), record.size_bytes, record.latency_ms)
        report_excess(trial, known, plan.search)
    constraints = dict(trial.constraints)
    return {"state": state, "values": values, "user_attrs": attrs, "constraints": constraints}


def is_sound(
    trial: FrozenTrial, distributions: Mapping[str, BaseDistribution], costs: Sequence[str]
) -> bool:
    """Return whether all attributes of a trial have valid types and values.

    Args:
        trial: A trial read from a journal.
        distributions: Known distributions of its choices.
        costs: Names of the objectives after the first.
    """
    attrs = trial.user_attrs
    try:
        create_trial(
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
        )
        for name in trial.distributions.keys() & distributions.keys():
            check_distribution_compatibility(distributions[name], trial.distributions[name])
        stored, seed = attrs.get(COSTS_ATTR), attrs.get(SEED_ATTR, 0)
        rungs = [attrs[name] for name in attrs if re.fullmatch(r"rung\d+", name)]
        numbers = [*(trial.values or ()), *rungs, *(stored or ()), *trial.constraints.values()]
        fixed_params = trial.system_attrs.get(FIXED_PARAMS_ATTR, {})
    except Exception:  # values from a corrupt line may raise any error
        return False
    has_begun, has_ended = trial.datetime_start is not None, trial.datetime_complete is not None
    return (
        (has_begun or trial.state == TrialState.WAITING)
        and has_ended == trial.state.is_finished()
        and all(map(is_finite, numbers))
        and (
            not rungs if stored is None else isinstance(stored, list) and len(stored) == len(costs)
        )
        and isinstance(seed, int)
        and seed >= 0
        and isinstance(attrs.get(SEED_GIVEN, True), bool)
        and isinstance(fixed_params, dict)
    )


def is_in_distribution(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a distribution contains a value, which trials require."""
    try:
        create_trial(state=TrialState.FAIL, params={"": value}, distributions={"": distribution})
    except (TypeError, ValueError):
        return False
    return True
