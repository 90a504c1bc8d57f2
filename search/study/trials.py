"""What a candidate's trial has in the study, by its record; whether one that was read is sound."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search.plan import SearchPlan
from search.samplers import FIXED
from search.study.costs import Costs, report_excess, report_preferences
from search.study.objective import SEED_ATTR, SEED_GIVEN
from search.study.pruners import COSTS_ATTR, rung_attr
from search.study.records import COMPLETE, REJECTED, STOPPED, Candidate
from search.study.study import outcome

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

CONSTRAINT = "constraints:"
"""How system attributes begin that say how far a limit is broken (Optuna's `set_constraint`)."""


class Replay:
    """What a candidate's trial has in the study, by its record.

    Attributes:
        record: The candidate.
        state, values: As the trial ended.
        user_attrs: Seed, costs and rungs.
        system_attrs: What samplers know of broken limits.
    """

    def __init__(self, record: Candidate, plan: SearchPlan) -> None:
        self.record = record
        self.state, self.values = outcome(record, plan)
        self.user_attrs: dict[str, Any] = {SEED_ATTR: record.seed}
        self.system_attrs = _constraints(record, plan)
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
            and _are_part(self.user_attrs, trial.user_attrs)
            and _are_part(self.system_attrs, trial.system_attrs)
        )


def _are_part(wanted: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    return all(held.get(key) == value for key, value in wanted.items())


def _rungs(record: Candidate, plan: SearchPlan) -> dict[str, float]:
    """Returns the best quality up to each rung that a training reached."""
    quality, found = plan.search.objectives[0], {}
    for rung in plan.rungs():
        if rung <= len(record.history):
            upto = [epoch["val"][quality] for epoch in record.history[:rung]]
            found[rung_attr(rung)] = max(upto)
    return found


def _constraints(record: Candidate, plan: SearchPlan) -> dict[str, Any]:
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
    return dict(trial.system_attrs)


def is_sound(trial: FrozenTrial, costs: int) -> bool:
    """Tells whether everything that is read of trials has the type that it must have."""
    attrs: Any = trial.user_attrs
    system: Any = trial.system_attrs
    if not (isinstance(attrs, dict) and isinstance(system, dict)):
        return False
    try:
        trial._validate()
    except Exception:  # of whatever a damaged line put there
        return False
    rungs = [value for name, value in attrs.items() if re.fullmatch(r"rung\d+", name)]
    stored = attrs.get(COSTS_ATTR)
    priced = isinstance(stored, list) and len(stored) == costs and all(map(_is_number, stored))
    return (
        all(map(_is_number, trial.values or []))
        and all(map(_is_number, rungs))
        and (priced or (stored is None and not rungs))
        and isinstance(attrs.get(SEED_ATTR, 0), int)
        and attrs.get(SEED_ATTR, 0) >= 0
        and isinstance(attrs.get(SEED_GIVEN, True), bool)
        and isinstance(system.get(FIXED, {}), dict)
        and all(_is_number(system[name]) for name in system if name.startswith(CONSTRAINT))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def are_compatible(one: BaseDistribution, other: BaseDistribution) -> bool:
    """Tells whether a study takes both for one parameter."""
    from optuna.distributions import check_distribution_compatibility

    try:
        check_distribution_compatibility(one, other)
    except ValueError:
        return False
    return True


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Tells whether a distribution has a value."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False
