"""Goals as numbers: limits of costs, and the constraint on the selection metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from compress.core.errors import FeasibleError
from compress.data import Dataset
from compress.data.tasks import has_unit
from compress.measure import Analysis, formatting
from compress.measure.verdict import (
    MetricLimit,
)
from compress.plan import ChannelOptions
from compress.plan.shrink import GoalOptions
from compress.prune.channels.selection.allowed_counts import list_rounding_steps
from compress.shrinking.candidate import OriginalFiles

TITLES = {
    "latency": "latency",
    "size": "size",
    "peak_memory": "peak memory",
    "macs": "MACs",
    "params": "parameters",
}
FILES = frozenset({"latency", "size", "peak_memory"})
"""Costs of a model that depend on the format of its file."""
LATENCY_MARGIN = 0.03
"""Margin below a latency target in milliseconds: the upper end of the measured interval must also
be below the target."""
ONE_SIDED = 1.6448536269514722
"""95 % quantile of the standard normal distribution."""


def compute_cost_limits(
    goal: GoalOptions, original_files: OriginalFiles, counted: Analysis, margin: float | None = None
) -> dict[str, float]:
    """Return the limits of costs for candidates: milliseconds, bytes, counts.

    Args:
        goal: The goal; relative targets refer to the original's float32 file.
        original_files: Files of the original model.
        counted: MACs and parameters of the original model.
        margin: Margin below a latency target in milliseconds, as a share; None: `LATENCY_MARGIN`.
    """
    original_costs = original_files.collect_costs(original_files.first, counted)
    limits = {
        name: target.amount * original_costs[name] if target.relative else target.amount
        for name, target in goal.costs.items()
    }
    if "latency" in goal.costs and not goal.costs["latency"].relative:
        limits["latency"] /= 1 + (LATENCY_MARGIN if margin is None else margin)
    return limits


def format_cost(name: str, value: float) -> str:
    """Return a cost in a readable form: "0.81 ms", "61.2 kB", "10.2 M MACs".

    Args:
        name: Name of the cost.
        value: Milliseconds, bytes or a count.
    """
    if name == "latency":
        return formatting.format_time(value)
    if name in ("size", "peak_memory"):
        return formatting.format_size(round(value))
    return f"{formatting.format_count(round(value))} {TITLES[name]}"


@dataclass(frozen=True)
class MetricConstraint:
    """Constraint on the selection metric on validation data.

    Attributes:
        metric: Name of the selection metric.
        original: Value of the original's float32 file.
        floor: Smallest allowed value; None: no constraint.
        max_drop: Largest allowed drop below `original` in percentage points (for an error, in its
            unit), if the goal is a drop.
    """

    metric: str
    original: float
    floor: float | None
    max_drop: float | None = None

    @classmethod
    def from_goal(
        cls, goal: GoalOptions, original_files: OriginalFiles, data: Dataset
    ) -> MetricConstraint:
        """Return the constraint of a goal, and check that the original model meets it.

        Args:
            goal: The goal.
            original_files: Files of the original model.
            data: Data set with the task and the validation labels.

        Raises:
            FeasibleError: The model is no better than chance, or below the requested minimum.
        """
        metric = data.task.qualities[0]
        original = original_files.val[original_files.first][metric]
        _check_above_chance(metric, original, data)
        if goal.min_metric is not None and original < goal.min_metric:
            raise FeasibleError(
                f"min_metric must be at most the model's own validation {metric}, {original:.4f}. "
                f"Received: {goal.min_metric:g}. Lower it, or train the model first."
            )
        if goal.max_drop is None:
            return cls(metric, original, goal.min_metric)
        return cls(
            metric, original, original - goal.max_drop * cls.get_point_size(metric), goal.max_drop
        )

    @staticmethod
    def get_point_size(metric: str) -> float:
        """Return the unit of drops: a percentage point, 0.01, or 1 if the metric has a unit.

        Args:
            metric: Name of the metric.
        """
        return 1.0 if has_unit(metric) else 0.01

    def compute_drop(self, value: float) -> float:
        """Return the drop from the original's metric, in the unit of `max_drop`.

        Args:
            value: Value of the metric.
        """
        return (self.original - value) / self.get_point_size(self.metric)

    @property
    def limit(self) -> MetricLimit | None:
        """Limit of the goal, in the metric's unit; None: no constraint."""
        if self.floor is None:
            return None
        if self.max_drop is None:
            return MetricLimit(floor=self.floor)
        return MetricLimit(max_drop=self.max_drop * self.get_point_size(self.metric))

    @property
    def allowed_drop(self) -> float | None:
        """Largest allowed drop, in the unit of `max_drop`; None: no constraint."""
        return None if self.floor is None else self.compute_drop(self.floor)

    def describe_change(self, value: float) -> str:
        """Return the metric's change and the limit: "validation accuracy -0.62 pp (limit -0.5 pp)".

        Args:
            value: Value of the metric.
        """
        limit = f" ({self.limit.describe(self.metric)})" if self.limit else ""
        return (
            f"validation {self.metric} "
            f"{formatting.format_change(self.metric, value - self.original)}{limit}"
        )

    def is_met(self, value: float) -> bool:
        """Return whether a value of the metric meets the constraint.

        Args:
            value: Value of the metric.
        """
        return self.floor is None or value >= self.floor - 1e-9


def _check_above_chance(metric: str, value: float, data: Dataset) -> None:
    """Refuse a model that is no better than a constant prediction, which any model can match.

    The test is one-sided at 5 %, because half of all untrained models are above chance by noise.

    Args:
        metric: The main metric of the data's task.
        value: Value of the model on the validation part.
        data: Data set whose validation labels define the best constant prediction.

    Raises:
        FeasibleError: The model is no better.
    """
    labels = data.labels(data.val)
    chance = data.task.chance(labels)
    noise = ONE_SIDED * data.task.chance_error(labels, value)
    if value > chance + noise:
        return
    beyond = f", and differences up to {noise:.4f} are noise" if value > chance else ""
    raise FeasibleError(
        f"The model must be better than the best constant answer to be shrunk. Received: "
        f"validation {metric} {value:.4f} on {len(data.val):,} examples, where the best constant "
        f"answer has {metric} {chance:.4f}{beyond}. Check the data, their scaling and the order "
        "of their classes, train the model first, or give more validation examples or another "
        "--metric (metric=)."
    )


def format_goals(
    goal: GoalOptions, limits: Mapping[str, float], constraint: MetricConstraint
) -> str:
    """Return a one-line description of a goal.

    Args:
        goal: The goal.
        limits: Limit of each cost, by name.
        constraint: Constraint on the selection metric.
    """
    parts = []
    for name, limit in limits.items():
        target = goal.costs[name]
        # milliseconds of relative latencies are left out, because they vary with the clock rate
        amount = f" ({format_cost(name, limit)})" if target.relative and name != "latency" else ""
        parts.append(f"{TITLES[name]} {target}{amount}")
    if constraint.max_drop is not None:
        drop = formatting.format_change(
            constraint.metric,
            constraint.max_drop * constraint.get_point_size(constraint.metric),
            short=True,
        )
        parts.append(f"{constraint.metric} drop at most {drop.removeprefix('+')}")
    elif constraint.floor is not None:
        parts.append(f"{constraint.metric} at least {constraint.floor:.4f}")
    return ", ".join(parts) or "a front from 1x to 0.1x of the time"


class OutOfReach(FeasibleError):
    """Error of a goal that no configuration meets.

    Attributes:
        used: Cost of the closest configuration as a share of the goal: above 1.
    """

    def __init__(self, message: str, used: float) -> None:
        super().__init__(message)
        self.used = used


def build_goal_error(
    format: str,
    goals: Mapping[str, float],
    costs: Mapping[str, float],
    options: ChannelOptions,
    measured_count: int | None = None,
    other_costs: Mapping[str, Mapping[str, float]] | None = None,
) -> OutOfReach:
    """Return the error of goals that no configuration met.

    Args:
        format: Format of the files.
        goals: Limit of each cost, by name.
        costs: Costs of the closest file.
        options: Smallest channel counts and their steps.
        measured_count: Number of measured files; None: the closest one has the smallest channel
            counts.
        other_costs: Missed costs of the closest model in other formats, by format.
    """
    missed = ", ".join(
        f"{format_cost(key, costs[key])} (asked for {format_cost(key, goal)})"
        for key, goal in goals.items()
        if costs[key] > goal
    )
    reached = missed if measured_count is not None else f"at least {missed}"
    cause = (
        f"every layer is thinned as far as min_kept={options.min_kept:g} and multiples of "
        f"{list_rounding_steps(options)[-1]} let it"
        if measured_count is None
        else f"none of {measured_count} files came to it"
    )
    remedy = "Ask for more, lower min_kept or round_to, or name other formats."
    if other_costs:
        texts = {
            name: f"{name} ({', '.join(format_cost(key, value) for key, value in costs.items())})"
            for name, costs in other_costs.items()
        }
        within = [
            texts[name]
            for name, costs_in_format in other_costs.items()
            if all(value <= goals[key] for key, value in costs_in_format.items())
        ]
        remedy = (
            f"Take {_join_names(within)}: files of the same model meet the goal. Or ask for more, "
            "or lower min_kept or round_to."
            if within
            else f"Ask for more, or lower min_kept or round_to: {_join_names(texts.values())} of "
            "the same model do not meet it either."
        )
    article = "An" if format[0] in "aeio" else "A"
    return OutOfReach(
        f"{article} {format} file must be able to meet the goal. Received: {reached}, "
        f"where {cause}. {remedy}",
        max(costs[key] / goal for key, goal in goals.items()),
    )


def _join_names(items: Iterable[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last
