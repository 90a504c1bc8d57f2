"""Goals as numbers: what costs may come to, and how good a net must stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.core.errors import FeasibleError
from compress.data.tasks import in_units
from compress.measure import formats
from compress.measure.verdict import QualityLimit
from compress.plan import ChannelOptions
from compress.plan.goal import GoalOptions
from compress.prune.channels.selection.allowed import ladder
from compress.shrinking.dense import DenseFiles

if TYPE_CHECKING:
    from compress.data import Dataset
    from compress.measure import Analysis

TITLES = {
    "latency": "latency",
    "size": "size",
    "peak_memory": "peak memory",
    "macs": "MACs",
    "params": "parameters",
}
FILES = frozenset({"latency", "size", "peak_memory"})
"""Costs that files of one net differ in by their format."""
LATENCY_MARGIN = 0.03
"""A net is aimed so far below a latency in milliseconds: the upper end of its measured interval
must lie below it too."""
ONE_SIDED = 1.6448536269514722
"""The standard normal's 95 % quantile."""


def cost_limits(
    goal: GoalOptions, dense: DenseFiles, counted: Analysis, margin: float = LATENCY_MARGIN
) -> dict[str, float]:
    """Return what the costs of nets are aimed at: milliseconds, bytes, counts.

    Args:
        goal: What was asked for; shares are of the model's float32 file.
        dense: The model's own files.
        counted: The model's own MACs and parameters.
        margin: Share by which a latency in milliseconds is aimed below what was asked for.
    """
    own = dense.costs(dense.first, counted)
    limits = {
        name: target.amount * own[name] if target.relative else target.amount
        for name, target in goal.costs.items()
    }
    if goal.latency is not None and not goal.latency.relative:
        limits["latency"] /= 1 + margin
    return limits


def cost_text(name: str, value: float) -> str:
    """Returns a cost as people read it: "0.81 ms", "61.2 kB", "10.2 M MACs"."""
    if name == "latency":
        return formats.time(value)
    if name in ("size", "peak_memory"):
        return formats.size(round(value))
    return f"{formats.count(round(value))} {TITLES[name]}"


@dataclass(frozen=True)
class Bar:
    """How good a net must stay on validation data.

    Attributes:
        metric: That judges.
        dense: Of the model's own float32 file.
        floor: The least; None: nothing was asked for.
        max_drop: How many points below `dense` that is, where it was asked for so.
    """

    metric: str
    dense: float
    floor: float | None
    max_drop: float | None = None

    @classmethod
    def of(cls, goal: GoalOptions, dense: DenseFiles, data: Dataset) -> Bar:
        """Returns the bar of a goal, and checks that the model itself passes it.

        Raises:
            FeasibleError: The model is no better than guessing, or below the quality asked for.
        """
        metric = data.task.qualities[0]
        own = dense.val[dense.first][metric]
        _check_learnt(metric, own, data)
        if goal.min_quality is not None:
            if own < goal.min_quality:
                raise FeasibleError(
                    f"min_quality must be at most the model's own validation {metric}, {own:.4f}. "
                    f"Received: {goal.min_quality:g}. Lower it, or train the model first."
                )
            return cls(metric, own, goal.min_quality)
        if goal.max_drop is None:
            return cls(metric, own, None)
        floor = own - goal.max_drop * cls.point_of(metric)
        return cls(metric, own, floor, goal.max_drop)

    @staticmethod
    def point_of(metric: str) -> float:
        """Returns what a point is: a hundredth, or one where the metric has a unit of its own."""
        return 1.0 if in_units(metric) else 0.01

    def drop(self, quality: float) -> float:
        """Returns how many points of the model's own quality are lost."""
        return (self.dense - quality) / self.point_of(self.metric)

    @property
    def limit(self) -> QualityLimit | None:
        """What was asked for, in the metric's unit; None: nothing was."""
        if self.floor is None:
            return None
        if self.max_drop is None:
            return QualityLimit(floor=self.floor)
        return QualityLimit(max_drop=self.max_drop * self.point_of(self.metric))

    @property
    def allowed(self) -> float | None:
        """How many points may be lost; None: nothing was asked for."""
        return None if self.floor is None else self.drop(self.floor)

    def holds(self, quality: float) -> bool:
        """Tells whether a quality is good enough."""
        return self.floor is None or quality >= self.floor - 1e-9


def _check_learnt(metric: str, own: float, data: Dataset) -> None:
    """Refuse a model that is no better than a constant answer: any smaller one would do as well.

    One-sided, at 5 %: half of the models that have learned nothing are above chance by noise.

    Args:
        metric: The main quality of the data's task.
        own: The model's, on the validation part.
        data: Whose validation labels the best constant answer is found on.

    Raises:
        FeasibleError: It is no better.
    """
    labels = data.labels(data.val)
    chance = data.task.chance(labels)
    noise = ONE_SIDED * data.task.chance_error(labels, own)
    if own > chance + noise:
        return
    beyond = f", and differences up to {noise:.4f} are noise" if own > chance else ""
    raise FeasibleError(
        f"The model must be better than the best constant answer to be shrunk. Received: "
        f"validation {metric} {own:.4f} on {len(data.val):,} examples, where the best constant "
        f"answer has {metric} {chance:.4f}{beyond}. Check the data, their scaling and the order "
        "of their classes, train the model first, or give more validation examples or another "
        "--metric (metric=)."
    )


def goals_text(goal: GoalOptions, limits: Mapping[str, float], bar: Bar) -> str:
    """Returns what was asked for in one line."""
    parts = []
    for name, limit in limits.items():
        target = goal.costs[name]
        # clocks drift: a share of a time holds when the milliseconds do not
        shown = target.relative and name != "latency"
        told = f" ({cost_text(name, limit)})" if shown else ""
        parts.append(f"{TITLES[name]} {target}{told}")
    if bar.max_drop is not None:
        drop = formats.change(bar.metric, bar.max_drop * bar.point_of(bar.metric), short=True)
        parts.append(f"{bar.metric} drop at most {drop.removeprefix('+')}")
    elif bar.floor is not None:
        parts.append(f"{bar.metric} at least {bar.floor:.4f}")
    return ", ".join(parts) or "a front from 1x to 0.1x of the time"


class OutOfReach(FeasibleError):
    """No choice comes to a goal.

    Attributes:
        used: What the nearest one takes, as a share of the goal: above 1.
    """

    def __init__(self, message: str, used: float) -> None:
        super().__init__(message)
        self.used = used


def out_of_reach(
    format: str,
    goals: Mapping[str, float],
    costs: Mapping[str, float],
    options: ChannelOptions,
    tried: int | None = None,
    others: Mapping[str, Mapping[str, float]] | None = None,
) -> OutOfReach:
    """Returns the error of goals that no choice came to.

    Args:
        format: Of the files.
        goals: What was asked for.
        costs: Of the nearest file.
        options: Floors and steps of the choices.
        tried: How many files were measured; None: the nearest one is as thin as can be.
        others: What the missed costs come to in files of other formats of the nearest net.
    """
    missed = [key for key, goal in goals.items() if costs[key] > goal]
    each = ", ".join(
        f"{cost_text(key, costs[key])} (asked for {cost_text(key, goals[key])})" for key in missed
    )
    least = "at least " if tried is None else ""
    held = (
        f"every layer is thinned as far as min_kept={options.min_kept:g} and multiples of "
        f"{ladder(options)[-1]} let it"
        if tried is None
        else f"none of {tried} files came to it"
    )
    article = "An" if format[0] in "aeio" else "A"
    each_of = {
        name: ", ".join(cost_text(key, value) for key, value in found.items())
        for name, found in (others or {}).items()
    }
    within = [
        name
        for name, found in (others or {}).items()
        if all(value <= goals[key] for key, value in found.items())
    ]
    if within:
        formats = f"Take {_listed(f'{name} ({each_of[name]})' for name in within)}: " + (
            "files of the same net meet the goal. Or ask for more, or lower min_kept or round_to."
        )
    elif each_of:
        formats = "Ask for more, or lower min_kept or round_to: " + (
            f"{_listed(f'{name} ({text})' for name, text in each_of.items())} of the same net do "
            "not meet it either."
        )
    else:
        formats = "Ask for more, lower min_kept or round_to, or name other formats."
    return OutOfReach(
        f"{article} {format} file must be able to meet the goal. Received: {least}{each}, "
        f"where {held}. {formats}",
        max(costs[key] / goal for key, goal in goals.items()),
    )


def _listed(items: Iterable[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last
