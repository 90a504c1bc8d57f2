"""What a search knows of its candidates before any is built: for samplers that can use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from compress.data import Dataset
from search.plan import SearchPlan
from search.spaces import DeclaredSpace
from search.study.costs import Costs, over_limit
from search.study.directory import SearchFolder
from search.study.part_times import latency_of
from search.study.pruners import rung_attr

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def free_knowledge(
    plan: SearchPlan, data: Dataset, folder: SearchFolder | None = None
) -> dict[str, Any]:
    """Returns what samplers that know a space are given besides their seed.

    Args:
        plan: Space, limits, objectives, rungs.
        data: What the models are for.
        folder: Of the run, which may hold times of a model's parts; None: there is none.

    Returns:
        "curves"; of a space that declares its choices "space"; where it counts them without
        building them "costs" (both as `search.samplers.pareto.ParetoSampler` takes them).
    """
    space = plan.search.made_space
    found: dict[str, Any] = {"curves": _curves(plan)}
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


def _curves(plan: SearchPlan) -> Callable[[FrozenTrial], Mapping[int, float]]:
    """Returns what reads the qualities that trials had at the rungs of the stopping rule."""
    names = {epoch: rung_attr(epoch) for epoch in plan.rungs()}

    def curves(trial: FrozenTrial) -> Mapping[int, float]:
        attrs = trial.user_attrs
        return {epoch: float(attrs[name]) for epoch, name in names.items() if name in attrs}

    return curves
