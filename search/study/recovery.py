"""A study made to agree with the candidates' records, which are the truth.

Trials bear numbers and candidates' files are called by them. A study that has lost trials,
to a journal that was removed or torn, say, would give their numbers out again, and finished
candidates would be trained anew over their files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from compress.core.atomic_files import whole_files
from compress.core.errors import InputError
from compress.data import Dataset
from compress.run.directory import LOG
from search.optuna_internals import FIXED
from search.plan import SearchPlan
from search.spaces import DeclaredSpace
from search.study import journal, optimizers
from search.study.costs import Costs, report_excess, report_preferences
from search.study.directory import SearchFolder
from search.study.early_stopping import COSTS_ATTR, rung_attr
from search.study.front import is_finite
from search.study.objective import SEED_ATTR, SEED_GIVEN, candidate_id
from search.study.records import COMPLETE, FAILED, REJECTED, STOPPED, Candidate
from search.study.storage import study_name
from search.study.study import directions, open_study, outcome
from search.study.warm_start import ABOUT_ATTR, about

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

NUMBER = re.compile(r"[0-9]{4,6}")
"""A trial's number as files are called; no search has more."""


def recover(
    folder: SearchFolder,
    plan: SearchPlan,
    data: Dataset,
    candidates: Sequence[Candidate] | None = None,
) -> bool:
    """Makes the study agree with the records in `candidates/`.

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
    count = 1 + max((*records, *_numbers_of_files(folder)), default=-1)
    writer = _Writer(plan, data, records)
    if plan.search.storage:
        return _recover_shared(folder, plan, writer, count)
    name = study_name(folder, "")
    found = journal.read(folder.journal, name)
    trials = [
        writer.settled(number, found.trials[number] if number < len(found.trials) else None)
        for number in range(max(count, len(found.trials)))
    ]
    subject = about(plan.search.space, plan.search.objectives, data)
    told = found.user_attrs.get(ABOUT_ATTR, subject)
    # plan.json has been compared already: if this is another's, a damaged line says so
    foreign = not isinstance(told, dict) or any(
        told.get(key) != subject[key] for key in ("space", "objectives")
    )
    if not (found.dropped or foreign or writer.replaced or writer.unknown):
        if found.size > found.whole:
            journal.cut(folder.journal, found.whole)
            LOG.info("dropped a torn line from the study's journal (a writer was killed)")
        return False
    attrs = {**found.user_attrs, ABOUT_ATTR: subject}
    journal.write(folder.journal, name, directions(plan), trials, attrs, found.system_attrs)
    _say(folder, found, writer, len(trials))
    return True


def _say(folder: SearchFolder, found: journal.Remains, writer: _Writer, count: int) -> None:
    what = "was missing or empty"
    if found.size:
        what = f"was damaged: {found.dropped} of {found.lines} lines could not be read"
        if found.size > found.whole:
            what += ", and the last was torn"
    words = [f"{folder.journal.name} {what}; rebuilt with {count} trials"]
    if writer.replaced:
        words.append(f"from their records in candidates/: {', '.join(writer.replaced)}")
    if writer.unknown:
        words.append(
            f"not tried again, as nothing says what they chose: {', '.join(writer.unknown)}"
        )
    if found.size:
        words.append(f"what was there is kept as {folder.journal.name}{journal.DAMAGED}")
    LOG.info("%s", "; ".join(words))


def _recover_shared(folder: SearchFolder, plan: SearchPlan, writer: _Writer, count: int) -> bool:
    """Adds the trials that a shared storage has lost at its end."""
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
    """Returns the candidates that ended, by number."""
    records = {}
    for item in candidates:
        if not NUMBER.fullmatch(item.id):
            raise InputError(
                f"Records in '{folder.candidates}' must be called by a trial's number. Received: "
                f"'{item.id}'. Take it out of there."
            )
        records[int(item.id)] = item
    return records


def _numbers_of_files(folder: SearchFolder) -> list[int]:
    """Returns the numbers of models, with a record or without, and of trials given to another."""
    found = (whole_files(folder.candidates, suffix) for suffix in (".keras", ".json"))
    names = [path.stem for paths in found for path in paths]
    return [int(name) for name in names if NUMBER.fullmatch(name)]


class _Writer:
    """Says, number by number, what trials shall be.

    Attributes:
        records: Of the candidates that ended, by number.
        replaced: Ids of the trials that were not as their records say.
        unknown: Ids of the trials of which nothing is known.
    """

    def __init__(self, plan: SearchPlan, data: Dataset, records: dict[int, Candidate]) -> None:
        self._plan, self._data, self.records = plan, data, records
        # what is not declared is learnt from trials, or by asking the space
        self._declared = declared(plan, data)
        self._learnt: dict[str, BaseDistribution] = {}
        self.replaced: list[str] = []
        self.unknown: list[str] = []

    def settled(self, number: int, found: FrozenTrial | None) -> FrozenTrial:
        """Returns the trial of a number.

        Args:
            number: Its number.
            found: What the journal says; None: nothing.
        """
        from optuna.trial import TrialState, create_trial

        if found is not None and not self._is_sound(found):
            found = None
        record = self.records.get(number)
        if record is not None:
            own = Replay(record, self._plan)
            if found is None or not own.agrees(found):
                self.replaced.append(record.id)
                return self._from_record(own)
        elif found is None:
            # something had this number: nobody else may get it
            self.unknown.append(candidate_id(number))
            return create_trial(state=TrialState.FAIL)
        self._learnt |= found.distributions
        return found

    def _is_sound(self, trial: FrozenTrial) -> bool:
        return is_sound(trial, len(self._plan.search.costs)) and all(
            are_compatible(self._declared[name], distribution)
            for name, distribution in trial.distributions.items()
            if name in self._declared
        )

    def _from_record(self, own: Replay) -> FrozenTrial:
        from optuna.trial import create_trial

        record = own.record
        distributions = self._distributions(record)
        trial = create_trial(
            state=own.state,
            values=own.values,
            params={name: record.choices[name] for name in distributions},
            distributions=distributions,
            user_attrs=own.user_attrs,
            constraints=own.constraints,
        )
        if record.ended is not None:
            ended = datetime.fromtimestamp(record.ended)
            trial.datetime_start = ended - timedelta(seconds=record.seconds)
            trial.datetime_complete = ended
        return trial

    def _distributions(self, record: Candidate) -> dict[str, BaseDistribution]:
        """Returns what a candidate's choices were taken from; records do not say it.

        Choices of a failed candidate of which that is not known are left out: the user's own
        space is not asked again, as it may be what failed.
        """
        found = self._having(record)
        if len(found) < len(record.choices) and record.state != FAILED:
            self._learnt |= asked(record, self._plan, self._data)
            found = self._having(record)
        return found

    def _having(self, record: Candidate) -> dict[str, BaseDistribution]:
        known = self._learnt | self._declared
        return {
            name: known[name]
            for name, value in record.choices.items()
            if name in known and holds(known[name], value)
        }


def declared(plan: SearchPlan, data: Dataset) -> dict[str, BaseDistribution]:
    """Returns the distributions that are known without a model: settings, declared choices."""
    import optuna

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
    """Asks the space for a candidate's choices again; returns their distributions.

    Raises:
        InputError: The space does not ask for them any more.
    """
    import optuna

    trial = optuna.trial.FixedTrial(record.choices, int(record.id))
    space = plan.search.made_space
    problem = "it no longer offers them"
    try:
        space.build(trial, data)
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


class Replay:
    """What a candidate's trial has in the study, by its record.

    Attributes:
        record: The candidate.
        state, values: As the trial ended.
        user_attrs: Seed, costs and rungs.
        constraints: What samplers know of broken limits.
    """

    def __init__(self, record: Candidate, plan: SearchPlan) -> None:
        self.record = record
        self.state, self.values = outcome(record, plan)
        self.user_attrs: dict[str, Any] = {SEED_ATTR: record.seed}
        self.constraints = _constraints(record, plan)
        if record.state not in (COMPLETE, STOPPED):
            return
        costs = [getattr(record, name) for name in plan.search.costs]
        if all(cost is not None for cost in costs):
            self.user_attrs[COSTS_ATTR] = [float(cost) for cost in costs]
            self.user_attrs |= _rungs(record, plan)

    def agrees(self, trial: FrozenTrial) -> bool:
        """Tells whether a trial is this candidate's.

        It may still be running there: the kill came between its record and the study.
        """
        from optuna.trial import TrialState

        ended = (trial.state, trial.values) == (self.state, self.values)
        return (
            trial.params == self.record.choices
            and (ended or trial.state == TrialState.RUNNING)
            and self.user_attrs.items() <= trial.user_attrs.items()
            and self.constraints.items() <= trial.constraints.items()
        )


def _rungs(record: Candidate, plan: SearchPlan) -> dict[str, float]:
    """Returns the best quality up to each rung that a training reached."""
    quality, found = plan.search.objectives[0], {}
    for rung in plan.rungs():
        if rung <= len(record.history):
            upto = [epoch["val"][quality] for epoch in record.history[:rung]]
            found[rung_attr(rung)] = max(upto)
    return found


def _constraints(record: Candidate, plan: SearchPlan) -> dict[str, float]:
    """Returns how far a candidate breaks limits, as samplers are told."""
    import optuna

    trial: Any = optuna.trial.FixedTrial(record.choices)
    if record.macs is None or record.params is None:
        return {}
    costs = Costs(record.macs, record.params, (), record.size_bytes, record.latency_ms)
    if record.state == REJECTED:
        report_excess(trial, costs, plan.search)
    elif record.state in (COMPLETE, STOPPED):
        report_preferences(trial, {**vars(costs), **record.val}, plan.search)
    return dict(trial.constraints)


def is_sound(trial: FrozenTrial, costs: int) -> bool:
    """Tells whether everything that is read of trials has the type that it must have."""
    from optuna.trial import TrialState, create_trial

    attrs: Any = trial.user_attrs
    system: Any = trial.system_attrs
    if not (isinstance(attrs, dict) and isinstance(system, dict)):
        return False
    try:
        create_trial(
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
        )
        constraints = trial.constraints.values()
    except Exception:  # of whatever a damaged line put there
        return False
    begun, ended = trial.datetime_start is not None, trial.datetime_complete is not None
    rungs = [value for name, value in attrs.items() if re.fullmatch(r"rung\d+", name)]
    stored = attrs.get(COSTS_ATTR)
    priced = isinstance(stored, list) and len(stored) == costs and all(map(is_finite, stored))
    return (
        (begun or trial.state == TrialState.WAITING)
        and ended == trial.state.is_finished()
        and all(map(is_finite, trial.values or []))
        and all(map(is_finite, rungs))
        and (priced or (stored is None and not rungs))
        and isinstance(attrs.get(SEED_ATTR, 0), int)
        and attrs.get(SEED_ATTR, 0) >= 0
        and isinstance(attrs.get(SEED_GIVEN, True), bool)
        and isinstance(system.get(FIXED, {}), dict)
        and all(map(is_finite, constraints))
    )


def are_compatible(one: BaseDistribution, other: BaseDistribution) -> bool:
    """Tells whether a study takes both for one parameter."""
    from optuna.distributions import check_distribution_compatibility

    try:
        check_distribution_compatibility(one, other)
    except ValueError:
        return False
    return True


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Tells whether a distribution has a value: no trial can be made with another."""
    from optuna.trial import TrialState, create_trial

    try:
        create_trial(state=TrialState.FAIL, params={"": value}, distributions={"": distribution})
    except (TypeError, ValueError):
        return False
    return True
