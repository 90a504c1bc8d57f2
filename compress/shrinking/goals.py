"""Goals as numbers: what costs may come to, and how good a net must stay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from compress.core.errors import FeasibleError
from compress.core.statistics import Floats
from compress.data import Dataset
from compress.data.tasks import in_units
from compress.measure import Analysis, formats
from compress.measure.latency_record import Latency
from compress.measure.verdict import (
    MET,
    MISSED,
    STATES,
    WITHIN_NOISE,
    FileCandidate,
    QualityLimit,
    select_file,
    worst_state,
)
from compress.plan import ChannelOptions
from compress.plan.shrink import GoalOptions
from compress.prune.channels.selection.allowed import ladder
from compress.run.compressed import Artifact
from compress.shrinking.net import DenseFiles

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
SLACK = 0.03
"""By which a latency may exceed a target that is a share of the original's: ratios spread by as
much. A target in milliseconds has none."""


def cost_limits(
    goal: GoalOptions, dense: DenseFiles, counted: Analysis, margin: float | None = None
) -> dict[str, float]:
    """Return what the costs of nets are aimed at: milliseconds, bytes, counts.

    Args:
        goal: What was asked for; shares are of the model's float32 file.
        dense: The model's own files.
        counted: The model's own MACs and parameters.
        margin: Share by which a latency in milliseconds is aimed below what was asked for; None:
            `LATENCY_MARGIN`.
    """
    own = dense.costs(dense.first, counted)
    limits = {
        name: target.amount * own[name] if target.relative else target.amount
        for name, target in goal.costs.items()
    }
    if goal.latency is not None and not goal.latency.relative:
        limits["latency"] /= 1 + (LATENCY_MARGIN if margin is None else margin)
    return limits


def cost_text(name: str, value: float) -> str:
    """Return a cost as people read it: "0.81 ms", "61.2 kB", "10.2 M MACs"."""
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
        """Return the bar of a goal, and checks that the model itself passes it.

        Raises:
            FeasibleError: The model is no better than guessing, or below the quality asked for.
        """
        metric = data.task.qualities[0]
        own = dense.val[dense.first][metric]
        _check_learnt(metric, own, data)
        if goal.min_quality is not None and own < goal.min_quality:
            raise FeasibleError(
                f"min_quality must be at most the model's own validation {metric}, {own:.4f}. "
                f"Received: {goal.min_quality:g}. Lower it, or train the model first."
            )
        if goal.max_drop is None:
            return cls(metric, own, goal.min_quality)
        return cls(metric, own, own - goal.max_drop * cls.point_of(metric), goal.max_drop)

    @staticmethod
    def point_of(metric: str) -> float:
        """Return what a point is: a hundredth, or one where the metric has a unit of its own."""
        return 1.0 if in_units(metric) else 0.01

    def drop(self, quality: float) -> float:
        """Return how many points of the model's own quality are lost."""
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
        """Tell whether a quality is good enough."""
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
    """Return what was asked for in one line."""
    parts = []
    for name, limit in limits.items():
        target = goal.costs[name]
        # clocks drift: a share of a time holds when the milliseconds do not
        amount = f" ({cost_text(name, limit)})" if target.relative and name != "latency" else ""
        parts.append(f"{TITLES[name]} {target}{amount}")
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
    """Return the error of goals that no choice came to.

    Args:
        format: Of the files.
        goals: What was asked for.
        costs: Of the nearest file.
        options: Floors and steps of the choices.
        tried: How many files were measured; None: the nearest one is as thin as can be.
        others: What the missed costs come to in files of other formats of the nearest net.
    """
    missed = ", ".join(
        f"{cost_text(key, costs[key])} (asked for {cost_text(key, goal)})"
        for key, goal in goals.items()
        if costs[key] > goal
    )
    reached = missed if tried is not None else f"at least {missed}"
    held = (
        f"every layer is thinned as far as min_kept={options.min_kept:g} and multiples of "
        f"{ladder(options)[-1]} let it"
        if tried is None
        else f"none of {tried} files came to it"
    )
    remedy = "Ask for more, lower min_kept or round_to, or name other formats."
    if others:
        texts = {
            name: f"{name} ({', '.join(cost_text(key, value) for key, value in found.items())})"
            for name, found in others.items()
        }
        within = [
            texts[name]
            for name, found in others.items()
            if all(value <= goals[key] for key, value in found.items())
        ]
        remedy = (
            f"Take {_listed(within)}: files of the same net meet the goal. Or ask for more, or "
            "lower min_kept or round_to."
            if within
            else f"Ask for more, or lower min_kept or round_to: {_listed(texts.values())} of the "
            "same net do not meet it either."
        )
    article = "An" if format[0] in "aeio" else "A"
    return OutOfReach(
        f"{article} {format} file must be able to meet the goal. Received: {reached}, "
        f"where {held}. {remedy}",
        max(costs[key] / goal for key, goal in goals.items()),
    )


def _listed(items: Iterable[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last


@dataclass(frozen=True)
class Judgement:
    """The file to ship.

    Attributes:
        chosen: The file.
        state: Whether its costs are what was asked for, see `compress.measure.verdict`.
        lines: What was asked for and what came of it, one a goal of cost.
        used: The largest share of a goal of cost that the file uses; 1 where there is none.
    """

    chosen: Artifact
    state: str
    lines: tuple[str, ...]
    used: float = 1.0


@dataclass(frozen=True)
class Elsewhere:
    """Times on a device that is not at hand.

    Attributes:
        device: As the user calls it.
        own_ms: Of the model's own float32 file, measured there.
        ms: Of files by id: the model's own measured, the others estimated.
        own: Ids of those that were measured.
        error: Mean relative error of estimates on whole models that the table had not seen; None:
            it was compared with none.
    """

    device: str
    own_ms: float
    ms: Mapping[str, float]
    own: frozenset[str]
    error: float | None = None

    def describe_time(self, file: str) -> str:
        """Return the time of a file, and where it comes from."""
        how = "estimated, not compared with whole models"
        if file in self.own:
            how = "measured"
        elif self.error is not None:
            how = f"estimated, {100 * self.error:.1f} % off on held-out models"
        return f"{cost_text('latency', self.ms[file])} on {self.device} ({how})"

    def worst_ms(self, file: str) -> float:
        """Return what a file may take there: an estimate and its error; infinity: not known."""
        if file in self.own:
            return self.ms[file]
        return math.inf if self.error is None else self.ms[file] * (1 + self.error)


@dataclass(frozen=True)
class Measured:
    """What was measured on files, all of one session.

    Attributes:
        times: Of all files, against the model's own float32 file.
        memory: Bytes of LiteRT's arenas, by file, where they can be read off.
        relative: Whether a time is asked for as a share of that file's: then paired ratios
            decide, which the clock of the processor does not move.
        elsewhere: Times on the device that a latency is of; None: it is of this machine.
        values: The validation metric of files by example, those that are known.
    """

    times: Mapping[str, Latency]
    memory: Mapping[str, int]
    relative: bool
    elsewhere: Elsewhere | None = None
    values: Mapping[str, Floats] = field(default_factory=dict)

    def costs(self, artifact: Artifact) -> dict[str, float]:
        """Return what a file costs: milliseconds (or the share of them), bytes, counts."""
        found = {
            "size": float(artifact.size_bytes),
            "macs": float(artifact.macs),
            "params": float(artifact.params),
        }
        if artifact.id in self.memory:
            found["peak_memory"] = float(self.memory[artifact.id])
        if self.elsewhere is not None:
            if artifact.id in self.elsewhere.ms:
                ms = self.elsewhere.ms[artifact.id]
                found["latency"] = ms / self.elsewhere.own_ms if self.relative else ms
        elif artifact.id in self.times:
            time = self.times[artifact.id]
            found["latency"] = 1.0 / time.ratio if self.relative else time.median_ms
        return found

    def cost_state(self, name: str, artifact: Artifact, limit: float) -> str:
        """Return whether a cost is "met", "met within noise" or "missed".

        Args:
            name: Of the cost.
            artifact: The file.
            limit: What was asked for: of a time a share or milliseconds, bytes, counts.
        """
        value = self.costs(artifact).get(name, math.inf)
        if name != "latency":
            return MET if value <= limit else MISSED
        if self.relative:
            return MET if value <= limit * (1 + SLACK) else MISSED
        if value > limit:
            return MISSED
        where = self.elsewhere
        worst = self.times[artifact.id].high_ms if where is None else where.worst_ms(artifact.id)
        return MET if worst <= limit else WITHIN_NOISE

    def cost_line(self, name: str, artifact: Artifact, limit: float) -> str:
        """Return a cost beside what was asked for, and whether that was met."""
        value = self.costs(artifact).get(name)
        if value is None:
            return f"{TITLES[name]}: not known, {MISSED}"
        shown, asked = cost_text(name, value), cost_text(name, limit)
        if name == "latency":
            shown = (
                formats.latency(self.times[artifact.id])
                if self.elsewhere is None
                else self.elsewhere.describe_time(artifact.id)
            )
            if self.relative:
                shown, asked = f"{value:.3g}x of the original's ({shown})", f"{limit:.3g}x"
        state = self.cost_state(name, artifact, limit)
        return f"{TITLES[name]}: {shown}, limit {asked}: {state}"


def choose_file(
    files: Sequence[Artifact],
    original: Artifact,
    measured: Measured,
    limits: Mapping[str, float],
    bar: Bar,
) -> Judgement:
    """Choose the file to ship by validation data and measured costs.

    Among the files that meet the goals of cost (where none does, the one that comes nearest) the
    rule of `compress.measure.verdict.select_file` decides.

    Args:
        files: Of the model and of all nets.
        original: The file that drops are measured from.
        measured: On them.
        limits: What costs may come to; of a time that is asked for as a share, the share.
        bar: How good a file must stay.
    """
    metric = bar.metric
    order = tuple(dict.fromkeys((*limits, "latency", "size")))

    def candidate(item: Artifact) -> FileCandidate:
        costs = measured.costs(item)
        known = {name: costs.get(name, math.inf) for name in order}
        return FileCandidate(item.id, item.val[metric], known, measured.values.get(item.id))

    def used(item: Artifact) -> float:
        costs = measured.costs(item)
        return max(
            (costs.get(name, math.inf) / limit for name, limit in limits.items()), default=1.0
        )

    states = {
        item.id: worst_state(
            [measured.cost_state(name, item, limit) for name, limit in limits.items()]
        )
        for item in files
    }
    best = next(state for state in STATES if state in states.values())
    fitting = [item for item in files if states[item.id] == best]
    if best == MISSED:
        fitting = [min(files, key=used)]
    found = select_file(
        [candidate(item) for item in fitting],
        original=candidate(original),
        limit=bar.limit,
        unit=math.inf if in_units(metric) else 1.0,
    )
    (chosen,) = (item for item in fitting if item.id == found.id)
    lines = (measured.cost_line(name, chosen, limit) for name, limit in limits.items())
    return Judgement(chosen, best, tuple(lines), used(chosen))
