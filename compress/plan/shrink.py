"""Plan of `shrink`: goals, and defaults for goals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from compress.core.quantities import format_number
from compress.plan import ChannelOptions, Plan, TrainSettings, WeightOptions
from compress.plan.conversion import ConvertedField, OptionalPath
from compress.plan.fields import list_plan_fields, option, require, validate_fields
from compress.plan.nesting import read_field
from compress.plan.output import MIXED, ONNX_FORMATS, QAT
from compress.plan.target import SizeTarget, Target, TimeTarget

TIMED_FORMATS = ("float32", "float16", "dynamic", "int8")
"""LiteRT formats that are exported and timed for candidates of a goal."""
GOAL_RUNTIME_FORMATS: dict[str, tuple[str, ...]] = {
    "litert": TIMED_FORMATS,
    "onnx": ONNX_FORMATS,
    "openvino": ONNX_FORMATS,
}
"""Formats by runtime whose latency may be a goal. The first format is the float format, to which
goals given as shares refer."""
COST_GOALS = ("latency", "size", "peak_memory", "macs", "params")
"""Cost goals, as fields of `GoalLimits`."""


@dataclass(frozen=True)
class GoalLimits:
    """Goals of a model: limits of costs, of the metric, of both, or none."""

    latency: ConvertedField[TimeTarget | None, TimeTarget | str | float | None] = option(
        None,
        "target latency of one inference: 0.5x of the original (also: 2x faster) or 3ms; "
        "default: no limit",
    )
    size: ConvertedField[SizeTarget | None, SizeTarget | str | float | None] = option(
        None, "target file size: 0.25x of the original's float32 file, or 200KB; default: no limit"
    )
    peak_memory: ConvertedField[SizeTarget | None, SizeTarget | str | float | None] = option(
        None,
        "target peak memory of activations (LiteRT's arena): 0.5x of the original, or 64KB",
    )
    macs: ConvertedField[Target | None, Target | str | float | None] = option(
        None, "target MACs of one inference: 0.5x of the original, or 12M; default: no limit"
    )
    params: ConvertedField[Target | None, Target | str | float | None] = option(
        None, "target number of parameters: 0.5x of the original, or 200k; default: no limit"
    )
    max_drop: float | None = option(
        None,
        "maximum drop of the metric, in percentage points (mae, rmse: in their unit), at "
        "least 0; default: no limit",
    )
    min_metric: float | None = option(
        None,
        "minimum value of the metric, like 0.92; default: no limit",
    )
    budget: ConvertedField[float | None, float | str | None] = option(
        None,
        "time limit in seconds (or 30m), spent where files gain most; default: none",
        unit="seconds",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        if self.budget is not None:
            require(self.budget > 0, "budget", "be above 0 seconds", self.budget)
        for name in COST_GOALS:
            target = getattr(self, name)
            if target is None:
                continue
            rule = "be above 0; a share at most 1"
            ok = target.amount > 0 and (target.amount <= 1 or not target.relative)
            require(ok, name, rule, target)
        require(
            self.max_drop is None or self.min_metric is None,
            "max_drop",
            "be left out beside min_metric: each limits the loss of quality",
            self.max_drop,
        )
        if self.max_drop is not None:
            require(self.max_drop >= 0, "max_drop", "be at least 0", self.max_drop)

    @property
    def seconds(self) -> float | None:
        """The time limit in seconds; None: none."""
        return self.budget

    @property
    def costs(self) -> dict[str, Target]:
        """Cost goals that were given, by name."""
        targets = {name: getattr(self, name) for name in COST_GOALS}
        return {name: target for name, target in targets.items() if target is not None}

    @property
    def is_given(self) -> bool:
        """Whether there is a goal."""
        return bool(self.costs) or self.max_drop is not None or self.min_metric is not None


@dataclass(frozen=True)
class GoalOptions(GoalLimits):
    """Goals of `shrink`; without limits it makes a Pareto front from 1x to 0.1x."""

    latency_table: OptionalPath = option(
        None,
        "latency table of another device (from `paretune latency-table import`) for --latency",
    )
    no_train: bool = option(
        False, "skip fine-tuning: post-training pruning, takes minutes and needs no labels"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.latency_table is None or self.latency is not None,
            "latency_table",
            "go with a latency goal",
            f"'{self.latency_table}'",
            "Give --latency.",
        )

    @property
    def label(self) -> str:
        """Text of the goal for file names: "latency0_5x-drop1", "front"."""
        parts = [f"{name.partition('_')[2] or name}{target}" for name, target in self.costs.items()]
        if self.max_drop is not None:
            parts.append(f"drop{format_number(self.max_drop)}")
        if self.min_metric is not None:
            # files of earlier versions have this name
            parts.append(f"quality{format_number(self.min_metric)}")
        parts += ["untrained"] if self.no_train else []
        return "-".join(parts or ["front"]).replace(".", "_")


@dataclass(frozen=True)
class ShrinkChannels(ChannelOptions):
    """Channel pruning for a goal: with the best method, including whole blocks."""

    blocks: bool = field(
        default=True, metadata=ChannelOptions.__dataclass_fields__["blocks"].metadata
    )
    # half as many as in a single pruning, because several configurations are exported and measured
    tries: int = field(default=8, metadata=ChannelOptions.__dataclass_fields__["tries"].metadata)


@dataclass(frozen=True)
class ShrinkTraining(TrainSettings):
    """Fine-tuning for a goal: of reconstructed models, without pruning during training."""

    epochs: int | None = field(
        default=None,
        metadata={
            **TrainSettings.__dataclass_fields__["epochs"].metadata,
            "help": "epochs of fine-tuning; 0: none; default: enough for 1,000 steps, at least 2",
        },
    )
    least_epochs: ClassVar[int] = 2


@dataclass(frozen=True)
class ShrinkWeights(WeightOptions):
    """Weight pruning for a goal: none, because zeros alone save no time."""

    sparsity: float = field(
        default=0.0, metadata=WeightOptions.__dataclass_fields__["sparsity"].metadata
    )


@dataclass(frozen=True)
class ShrinkPlan(Plan):
    """All options of `paretune shrink` and `shrink`."""

    command: ClassVar[str] = "shrink"
    refused_options: ClassVar[frozenset[str]] = frozenset(
        {
            "channels",
            "as_long",
            "own_train_step",
            "sparsity",
            "sparsity_end",
            "weight_pattern",
            "weight_scope",
            "weight_overrides",
            "weight_include",
        }
    )
    """Options that are refused or without effect on the way to a goal; `--help` omits them."""

    goal: GoalOptions = field(default_factory=GoalOptions)
    finetune: ShrinkTraining = field(default_factory=ShrinkTraining)
    channels: ShrinkChannels = field(default_factory=ShrinkChannels)
    weights: ShrinkWeights = field(default_factory=ShrinkWeights)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.channels.target is None,
            "channels",
            "be left out: the goal determines how many are kept",
            self.channels.target,
            "Give --macs, --params, --size or --latency.",
        )
        require(
            self.channels.scope == "output_error" or self.channels.should_compare,
            "channel_scope",
            "be output_error, or auto without a criterion: a goal needs the output error of each "
            "layer",
            self.channels.scope,
        )
        require(
            not self.weights.sparsity,
            "sparsity",
            "be 0 on the way to a goal",
            self.weights.sparsity,
            "Prune the result with `paretune compress`.",
        )
        require(
            not self.finetune.as_long,
            "as_long",
            "be left out on the way to a goal",
            True,
            "`paretune compress` trains the dense model as long.",
        )
        require(
            not self.finetune.own_train_step, "own_train_step", "go with paretune compress", True
        )
        formats, goal = self.export.candidate_formats, self.goal
        kinds = tuple(dict.fromkeys(GOAL_RUNTIME_FORMATS.values()))
        require(
            bool(formats) and any(set(formats) <= set(kind) for kind in kinds),
            "formats",
            f"be among {' or among '.join(map(', '.join, kinds))} on the way to a goal "
            f"(beside {MIXED} and {QAT}, which are made at its end)",
            ",".join(self.export.formats),
            "`paretune compress` makes the others.",
        )
        has_time_goal = goal.latency is not None or not goal.costs
        first = self.latency.runtimes[0]
        require(
            not has_time_goal or first in self._usable_runtimes,
            "runtimes",
            f"begin with one that runs {formats[0]} files ({', '.join(self._usable_runtimes)}), "
            "where a time is the goal: it is measured there",
            ",".join(self.latency.runtimes),
            "Give --formats onnx or onnx_int8 for onnx and openvino.",
        )
        require(
            goal.peak_memory is None or "litert" in self._usable_runtimes,
            "peak_memory",
            "go with LiteRT formats only: it is the size of LiteRT's arena",
            ",".join(formats),
        )
        require(
            goal.latency_table is None or "litert" in self._usable_runtimes,
            "latency_table",
            "go with LiteRT formats only: its times are of LiteRT",
            ",".join(formats),
        )

    @property
    def _usable_runtimes(self) -> tuple[str, ...]:
        """Runtimes that can run the exported formats."""
        return tuple(
            name
            for name, kinds in GOAL_RUNTIME_FORMATS.items()
            if self.export.candidate_formats[0] in kinds
        )

    @property
    def qat_epochs(self) -> int:
        """Epochs of quantization-aware training; 0 for calibration only."""
        return 0 if self.goal.no_train else self.quantize.epochs

    @property
    def runtime(self) -> str:
        """Runtime of latency measurements: the first one that can run the exported formats."""
        return next(
            (name for name in self.latency.runtimes if name in self._usable_runtimes),
            self._usable_runtimes[0],
        )

    @property
    def float_format(self) -> str:
        """Float format, to which goals given as shares refer."""
        return GOAL_RUNTIME_FORMATS[self.runtime][0]


def explain_bare_latencies(plan: Any) -> tuple[str, ...]:
    """Return a note for each latency that was given as text without a unit.

    Such a number meant milliseconds in earlier versions; now it means a share of the original's
    latency.
    """
    values = {leaf.flag: read_field(plan, leaf) for leaf in list_plan_fields(type(plan))}
    return tuple(
        f"{name} {format_number(value.amount)} is read as {value}, a share of the original's "
        f"latency. It meant milliseconds before: write {format_number(value.amount)}ms for these."
        for name, value in values.items()
        if isinstance(value, TimeTarget) and value.bare
    )
