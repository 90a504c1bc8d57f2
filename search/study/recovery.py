"""A study made to agree with the candidates' records, which are the truth.

Trials bear numbers and candidates' files are called by them. A study that has lost trials,
to a journal that was removed or torn, say, would give their numbers out again, and finished
candidates would be trained anew over their files.

Optuna stops at the first line of a journal that it cannot read, and numbers trials by the lines
that made them: one line lost, and every later trial bears another's number.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState, create_trial

from compress.core.atomic_files import replacing, whole_files
from compress.core.errors import InputError
from compress.data import Dataset
from compress.run.directory import LOG
from search.optuna_internals import FIXED, replay_journal, set_study_attr
from search.plan import SearchPlan
from search.spaces import DeclaredSpace
from search.study import optimizers
from search.study.costs import Costs, report_excess, report_preferences
from search.study.directory import COMPLETE, FAILED, REJECTED, STOPPED, Candidate, SearchFolder
from search.study.front import is_finite
from search.study.objective import COSTS_ATTR, SEED_ATTR, SEED_GIVEN, candidate_id, rung_attr
from search.study.storage import open_journal, open_storage, study_name
from search.study.study import directions, open_study, outcome
from search.study.warm_start import ABOUT_ATTR, about

NUMBER = re.compile(r"[0-9]{4,6}")
"""A trial's number as files are called; no search has more."""
DAMAGED = ".damaged"
"""Ending of the name under which a journal that was written anew is kept."""


def recover(
    folder: SearchFolder,
    plan: SearchPlan,
    data: Dataset,
    candidates: Sequence[Candidate] | None = None,
) -> bool:
    """Make the study agree with the records in `candidates/`.

    A journal without a fault stays as it is, and one with a torn last line loses that line.
    Any other is written anew: of the records, and of what can still be read of trials that
    have none (queued ones, interrupted ones). In a shared storage only trials that are
    missing at the end are added. To be called by the process that holds the run's folder,
    while no worker runs.

    Args:
        folder: The run's folder.
        plan: Its plan.
        data: What is searched for; the space is asked for the choices of lost trials.
        candidates: The folder's, where they were read already: ten thousand take seconds.

    Returns:
        Whether trials were lost: queued ones may be among them.

    Raises:
        InputError: A record cannot be read, or a shared storage's trials are not those of
            the records.
    """
    records = _records(folder, folder.read_candidates() if candidates is None else candidates)
    # models, with a record or without, and trials given to another
    paths = (*whole_files(folder.candidates, ".keras"), *whole_files(folder.candidates, ".json"))
    numbers = [int(path.stem) for path in paths if NUMBER.fullmatch(path.stem)]
    count = 1 + max(numbers, default=-1)
    writer = _Writer(plan, data, records)
    if plan.search.storage:
        return _recover_shared(folder, plan, writer, count)
    journal = read_journal(folder)
    found = dict(enumerate(journal.trials))
    trials = [writer.settled(number, found.get(number)) for number in range(max(count, len(found)))]
    subject = about(plan.search.space, plan.search.objectives, data)
    told = journal.user_attrs.get(ABOUT_ATTR, subject)
    # plan.json has been compared already: if this is another's, a damaged line says so
    foreign = not isinstance(told, dict) or any(
        told.get(key) != subject[key] for key in ("space", "objectives")
    )
    if not (journal.dropped or foreign or writer.replaced or writer.unknown):
        if journal.torn:
            # the next line would be glued to it
            os.truncate(folder.journal, journal.size - journal.torn)
            LOG.info("dropped a torn line from the study's journal (a writer was killed)")
        return False
    with replacing(folder.journal) as temporary:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = open_journal(temporary, folder.journal)
        name = study_name(folder, "")
        study = optuna.create_study(study_name=name, storage=storage, directions=directions(plan))
        for key, value in {**journal.user_attrs, ABOUT_ATTR: subject}.items():
            study.set_user_attr(key, value)
        for key, value in journal.system_attrs.items():
            set_study_attr(study, key, value)
        study.add_trials(trials)
        if folder.journal.exists():
            shutil.copyfile(folder.journal, folder.journal.with_name(folder.journal.name + DAMAGED))
    _say(folder, journal, writer, len(trials))
    return True


@dataclass(frozen=True)
class Journal:
    """The readable part of a run's journal.

    Attributes:
        trials: Of the study, by number.
        user_attrs, system_attrs: Of the study.
        lines: In the file, the torn last one not counted.
        dropped: Of these, the ones that say nothing.
        size: Bytes of the file.
        torn: Bytes of a torn last line.
    """

    trials: Sequence[FrozenTrial] = ()
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    lines: int = 0
    dropped: int = 0
    size: int = 0
    torn: int = 0


def read_journal(folder: SearchFolder) -> Journal:
    """Read a run's journal; lines that are no operations of Optuna's are counted and left out.

    Args:
        folder: The run's; the journal may be missing.

    Raises:
        InputError: It is no file.
    """
    path = folder.journal
    if not path.exists():
        return Journal()
    if not path.is_file():
        raise InputError(f"'{path}' must be a file. Received: something else of that name.")
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].splitlines()
    user_attrs, system_attrs, trials, dropped = replay_journal(lines, study_name(folder, ""))
    size = len(content)
    return Journal(trials, user_attrs, system_attrs, len(lines), dropped, size, size - whole)


def untried(folder: SearchFolder) -> bool:
    """Tell whether the study of a folder without results has begun no trial."""
    url = _stored_url(folder)
    trials: Sequence[FrozenTrial] = ()
    if not url:
        journal = read_journal(folder)
        if journal.dropped:
            return False
        trials = journal.trials
    else:
        with suppress(InputError, KeyError):  # what cannot be opened, or has no study: never used
            storage = open_storage(url, "storage")
            study = optuna.load_study(study_name=study_name(folder, url), storage=storage)
            trials = study.get_trials(deepcopy=False)
    return all(trial.state == TrialState.WAITING for trial in trials)


def forget(folder: SearchFolder) -> None:
    """Remove the study of a folder in which no trial has begun.

    Queued trials follow from the plan: another plan queues others.
    """
    folder.journal.unlink(missing_ok=True)
    url = _stored_url(folder)
    if url:
        with suppress(InputError, KeyError):  # as in `untried`
            storage = open_storage(url, "storage")
            optuna.delete_study(study_name=study_name(folder, url), storage=storage)


def _stored_url(folder: SearchFolder) -> str:
    search = folder.read_plan_record()["plan"].get("search", {})
    return str(search.get("storage", ""))


def _say(folder: SearchFolder, journal: Journal, writer: _Writer, count: int) -> None:
    name, what = folder.journal.name, "was missing or empty"
    if journal.size:
        torn = ", and the last was torn" if journal.torn else ""
        what = f"was damaged: {journal.dropped} of {journal.lines} lines could not be read{torn}"
    words = [f"{name} {what}; rebuilt with {count} trials"]
    if writer.replaced:
        words.append(f"from their records in candidates/: {', '.join(writer.replaced)}")
    if writer.unknown:
        words.append(
            f"not tried again, as nothing says what they chose: {', '.join(writer.unknown)}"
        )
    if journal.size:
        words.append(f"what was there is kept as {name}{DAMAGED}")
    LOG.info("%s", "; ".join(words))


def _recover_shared(folder: SearchFolder, plan: SearchPlan, writer: _Writer, count: int) -> bool:
    """Add the trials that a shared storage has lost at its end."""
    study = open_study(folder, plan)
    trials = study.get_trials(deepcopy=False)
    for number, record in writer.records.items():
        if number < len(trials) and trials[number].params != record.choices:
            raise InputError(
                f"The study '{study.study_name}' in the storage must hold the candidates of "
                f"'{folder.path}'. Received: trial {number} with other choices than candidate "
                f"{record.id}. Bring the storage back, or choose another output folder."
            )
    missing = range(len(trials), count)
    study.add_trials(writer.settled(number, None) for number in missing)
    if missing:
        LOG.info(
            "the storage had lost %d trials; they are there again, from the records in "
            "candidates/: %s", len(missing), ", ".join(writer.replaced),
        )  # fmt: skip
    return bool(missing)


def _records(folder: SearchFolder, candidates: Iterable[Candidate]) -> dict[int, Candidate]:
    records = {}
    for item in candidates:
        if not NUMBER.fullmatch(item.id):
            raise InputError(
                f"Records in '{folder.candidates}' must be called by a trial's number. Received: "
                f"'{item.id}'. Take it out of there."
            )
        records[int(item.id)] = item
    return records


class _Writer:
    """The trials that a study must have, number by number.

    Attributes:
        records: Of the candidates that ended, by number.
        replaced: Ids of the trials that were not as their records say.
        unknown: Ids of the trials of which nothing is known.
    """

    def __init__(self, plan: SearchPlan, data: Dataset, records: dict[int, Candidate]) -> None:
        self._plan, self._data, self.records = plan, data, records
        self._declared = declared(plan, data)
        # what is not declared is learnt from trials, or by asking the space
        self._learnt: dict[str, BaseDistribution] = {}
        self.replaced: list[str] = []
        self.unknown: list[str] = []

    def settled(self, number: int, found: FrozenTrial | None) -> FrozenTrial:
        """Return the trial of a number.

        Args:
            number: Its number.
            found: What the journal says; None: nothing.
        """
        if found is not None and not is_sound(found, self._declared, self._plan.search.costs):
            found = None
        record = self.records.get(number)
        if record is not None:
            facts = describe_trial(record, self._plan)
            # it may still be running there: the kill came between its record and the study
            agrees = (
                found is not None
                and found.params == record.choices
                and ((found.state, found.values) == (facts["state"], facts["values"])
                     or found.state == TrialState.RUNNING)
                and facts["user_attrs"].items() <= found.user_attrs.items()
                and facts["constraints"].items() <= found.constraints.items()
            )  # fmt: skip
            if found is None or not agrees:
                self.replaced.append(record.id)
                return self._from_record(record, facts)
        elif found is None:
            # something had this number: nobody else may get it
            self.unknown.append(candidate_id(number))
            return create_trial(state=TrialState.FAIL)
        self._learnt |= found.distributions
        return found

    def _from_record(self, record: Candidate, facts: dict[str, Any]) -> FrozenTrial:
        """Return a candidate's trial by its record, which does not hold the distributions.

        Choices of a failed candidate of which that is not known are left out: the user's own
        space is not asked again, as it may be what failed.
        """
        found = self._distributions(record)
        if len(found) < len(record.choices) and record.state != FAILED:
            self._learnt |= asked(record, self._plan, self._data)
            found = self._distributions(record)
        params = {name: record.choices[name] for name in found}
        trial = create_trial(params=params, distributions=found, **facts)
        if record.ended is not None:
            trial.datetime_complete = datetime.fromtimestamp(record.ended)
            trial.datetime_start = trial.datetime_complete - timedelta(seconds=record.seconds)
        return trial

    def _distributions(self, record: Candidate) -> dict[str, BaseDistribution]:
        known = self._learnt | self._declared
        return {
            name: known[name]
            for name, value in record.choices.items()
            if name in known and holds(known[name], value)
        }


def declared(plan: SearchPlan, data: Dataset) -> dict[str, BaseDistribution]:
    """Return the distributions that are known without a model: settings, declared choices."""
    found: dict[str, BaseDistribution] = {}
    for name in plan.search.optimizers:
        low, _ = optimizers.learning_rates(plan, name)
        choices = {**optimizers.baseline(plan, data), "optimizer": name}
        trial = optuna.trial.FixedTrial({**choices, f"learning_rate.{name}": low})
        optimizers.sample(trial, plan, data)
        found |= trial.distributions
    space = plan.search.made_space
    if isinstance(space, DeclaredSpace):
        found |= {choice.name: choice.distribution() for choice in space.choices(data)}
    return found


def asked(record: Candidate, plan: SearchPlan, data: Dataset) -> dict[str, BaseDistribution]:
    """Ask the space for a candidate's choices again, and return their distributions.

    Raises:
        InputError: The space does not ask for them any more.
    """
    trial = optuna.trial.FixedTrial(record.choices, int(record.id))
    problem = "it no longer offers them"
    try:
        plan.search.made_space.build(trial, data)
    except Exception as error:  # the user's own code may raise anything
        problem = f"{type(error).__name__}: {error}"
    found = dict(trial.distributions)
    settings = {name for name in record.choices if optimizers.is_setting(name)}
    if not all(name in found and holds(found[name], record.choices[name])
               for name in record.choices.keys() - settings):  # fmt: skip
        raise InputError(
            f"Space '{plan.search.space}' must offer what candidate {record.id} chose: the "
            f"study has lost it. Received: {problem}. Bring the study back, or choose another "
            "output folder."
        )
    return found


def describe_trial(record: Candidate, plan: SearchPlan) -> dict[str, Any]:
    """Return the state, values and attributes of a candidate's trial, by its record.

    Returns:
        state, values, user_attrs (seed, costs and rungs) and constraints (what samplers know of
        broken limits), as `optuna.trial.create_trial` takes them.
    """
    state, values = outcome(record, plan)
    attrs: dict[str, Any] = {SEED_ATTR: record.seed}
    costs = [getattr(record, name) for name in plan.search.costs]
    if record.state in (COMPLETE, STOPPED) and None not in costs:
        attrs[COSTS_ATTR] = [float(cost) for cost in costs]
        qualities = [epoch["val"][plan.search.objectives[0]] for epoch in record.history]
        for rung in plan.rungs():
            if rung <= len(qualities):
                attrs[rung_attr(rung)] = max(qualities[:rung])
    constraints = _constraints(record, plan)
    return {"state": state, "values": values, "user_attrs": attrs, "constraints": constraints}


def _constraints(record: Candidate, plan: SearchPlan) -> dict[str, float]:
    """Return a candidate's distances to the limits, as samplers are told."""
    trial: Any = optuna.trial.FixedTrial(record.choices)
    if record.macs is None or record.params is None:
        return {}
    costs = Costs(record.macs, record.params, (), record.size_bytes, record.latency_ms)
    if record.state == REJECTED:
        report_excess(trial, costs, plan.search)
    elif record.state in (COMPLETE, STOPPED):
        report_preferences(trial, {**vars(costs), **record.val}, plan.search)
    return dict(trial.constraints)


def is_sound(
    trial: FrozenTrial, declared: Mapping[str, BaseDistribution], costs: Sequence[str]
) -> bool:
    """Tell whether all attributes of a trial have valid types and values.

    Args:
        trial: As a journal says.
        declared: What is known of its choices.
        costs: Names of the objectives behind the first.
    """
    attrs = trial.user_attrs
    try:
        create_trial(
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
        )
        for name in trial.distributions.keys() & declared.keys():
            check_distribution_compatibility(declared[name], trial.distributions[name])
        stored, seed = attrs.get(COSTS_ATTR), attrs.get(SEED_ATTR, 0)
        rungs = [attrs[name] for name in attrs if re.fullmatch(r"rung\d+", name)]
        numbers = [*(trial.values or ()), *rungs, *(stored or ()), *trial.constraints.values()]
        fixed = trial.system_attrs.get(FIXED, {})
    except Exception:  # of whatever a damaged line put there
        return False
    begun, ended = trial.datetime_start is not None, trial.datetime_complete is not None
    return (
        (begun or trial.state == TrialState.WAITING)
        and ended == trial.state.is_finished()
        and all(map(is_finite, numbers))
        and (
            not rungs if stored is None else isinstance(stored, list) and len(stored) == len(costs)
        )
        and isinstance(seed, int)
        and seed >= 0
        and isinstance(attrs.get(SEED_GIVEN, True), bool)
        and isinstance(fixed, dict)
    )


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Tell whether a distribution has a value: no trial can be made with another."""
    try:
        create_trial(state=TrialState.FAIL, params={"": value}, distributions={"": distribution})
    except (TypeError, ValueError):
        return False
    return True
