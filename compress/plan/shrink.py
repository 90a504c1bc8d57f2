"""Plan of `shrink`: goals, defaults for goals, and goals as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from compress.core.errors import InputError, build_unknown_name_error, to_one_line
from compress.core.quantities import format_number
from compress.plan import ChannelOptions, Plan, TrainSettings, WeightOptions
from compress.plan.conversion import (
    ConvertedField,
    OptionalPath,
    TextValue,
    format_value,
    split_items,
)
from compress.plan.fields import list_plan_fields, option, read_field, require, validate_fields
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
"""Cost goals, as fields of `GoalOptions`."""


@dataclass(frozen=True)
class GoalOptions:
    """Goals: limits of costs, of the metric, of both, or none (a Pareto front from 1x to 0.1x)."""

    latency: ConvertedField[TimeTarget | None, TimeTarget | str | float | None] = option(
        None,
        "--latency",
        "time of one inference: 0.5x (of the model's float32 file; also: 2x faster) or 3ms; "
        "measured with the first of --runtimes (litert, onnx or openvino) and --latency-threads",
    )
    latency_table: OptionalPath = option(
        None,
        "--latency-table",
        "times of another device, which the latency is of: a file of paretune latency-table import",
    )
    size: ConvertedField[SizeTarget | None, SizeTarget | str | float | None] = option(
        None, "--size", "size of the file: 0.25x (of the model's float32 file) or 200KB"
    )
    peak_memory: ConvertedField[SizeTarget | None, SizeTarget | str | float | None] = option(
        None,
        "--peak-memory",
        "most memory for the activations of one inference (LiteRT's arena): 64KB, or 0.5x (of the "
        "arena of the model's float32 file)",
    )
    macs: ConvertedField[Target | None, Target | str | float | None] = option(
        None, "--macs", "multiply-accumulates of one inference: 0.5x or 12M"
    )
    params: ConvertedField[Target | None, Target | str | float | None] = option(
        None, "--params", "parameters: 0.5x or 200k"
    )
    max_drop: float | None = option(
        None,
        "--max-drop",
        "maximum drop of the metric, in percentage points, at least 0: 1 is from 93 % to 92 %",
    )
    min_quality: float | None = option(
        None,
        "--min-quality",
        "least value of the metric, as the metric counts: 0.92",
    )
    budget: ConvertedField[float | None, float | str | None] = option(
        None,
        "--budget",
        "seconds (or 30m) within which all is to be done; default: as long as it takes",
        unit="seconds",
    )
    no_train: bool = option(
        False, "--no-train", "repair alone, no fine-tuning: minutes, and no labels are needed"
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        for name in COST_GOALS:
            target = getattr(self, name)
            if target is None:
                continue
            rule = "be above 0; a share at most 1"
            ok = target.amount > 0 and (target.amount <= 1 or not target.relative)
            require(ok, name, rule, target)
        require(
            self.latency_table is None or self.latency is not None,
            "latency_table", "stand beside a latency, which it is of", f"'{self.latency_table}'",
            "Give --latency.",
        )  # fmt: skip
        require(
            self.max_drop is None or self.min_quality is None,
            "max_drop",
            "be left out beside min_quality: each says how good the model must stay",
            self.max_drop,
        )
        if self.max_drop is not None:
            require(self.max_drop >= 0, "max_drop", "be at least 0 points", self.max_drop)
        if self.budget is not None:
            require(self.budget > 0, "budget", "be above 0 seconds", self.budget)

    @property
    def costs(self) -> dict[str, Target]:
        """Cost goals that were given, by name."""
        targets = {name: getattr(self, name) for name in COST_GOALS}
        return {name: target for name, target in targets.items() if target is not None}

    @property
    def label(self) -> str:
        """Text of the goal for file names: "latency0_5x-drop1", "front"."""
        parts = [f"{name.partition('_')[2] or name}{target}" for name, target in self.costs.items()]
        if self.max_drop is not None:
            parts.append(f"drop{format_number(self.max_drop)}")
        if self.min_quality is not None:
            parts.append(f"quality{format_number(self.min_quality)}")
        parts += ["untrained"] if self.no_train else []
        return "-".join(parts or ["front"]).replace(".", "_")

    @property
    def has_metric_goal(self) -> bool:
        """Whether the goal limits the metric."""
        return self.max_drop is not None or self.min_quality is not None


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
            "help": "epochs of fine-tuning; default: enough for 1,000 steps, at least 2; 0: none",
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

    goal: GoalOptions = field(default_factory=GoalOptions)
    finetune: ShrinkTraining = field(default_factory=ShrinkTraining)
    channels: ShrinkChannels = field(default_factory=ShrinkChannels)
    weights: ShrinkWeights = field(default_factory=ShrinkWeights)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.channels.target is None,
            "channels",
            "be left out: the goal says how many leave",
            self.channels.target,
            "Give --macs, --params, --size or --latency.",
        )
        require(
            self.channels.scope == "damage" or self.channels.should_compare,
            "channel scope",
            "be damage, or auto without a criterion: a goal is met by what single layers are worth",
            self.channels.scope,
        )
        require(
            self.channels.steps == 1, "channel steps", "be 1 on the way to a goal",
            self.channels.steps,
        )  # fmt: skip
        require(
            not self.weights.sparsity, "sparsity", "be 0 on the way to a goal",
            self.weights.sparsity, "Prune the result with `paretune compress`.",
        )  # fmt: skip
        require(
            not self.finetune.as_long, "as_long", "be left out on the way to a goal", True,
            "`paretune compress` trains the dense model as long.",
        )  # fmt: skip
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
            "peak_memory", "be of LiteRT files: it is that of LiteRT's arena", ",".join(formats),
        )  # fmt: skip
        require(
            goal.latency_table is None or "litert" in self._usable_runtimes,
            "latency_table", "be of LiteRT files", ",".join(formats),
        )  # fmt: skip

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


GOAL_NAMES = tuple(item.name for item in fields(GoalOptions))


@dataclass(frozen=True)
class ShrinkGoal(TextValue):
    """Goal with a text form: "latency=0.5x,max_drop=1".

    Attributes:
        goal: The options of the goal.

    Example:
        >>> ShrinkGoal.parse("macs=0.25x,no_train").goal.no_train
        True
        >>> str(ShrinkGoal.parse("macs = 0.25x, no-train"))
        'macs=0.25x,no_train'
    """

    goal: GoalOptions

    @classmethod
    def parse(cls, text: str, name: str = "shrink_to") -> Self:
        """Return the goal of a text: comma-separated options of `paretune shrink` with values.

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: A name is unknown, a value violates a rule, or no goal is given.
        """
        values: dict[str, Any] = {}
        for item in split_items(text):
            key, sign, value = (part.strip() for part in item.partition("="))
            key = key.replace("-", "_")
            if key not in GOAL_NAMES:
                raise build_unknown_name_error(f"goal of {name}", key, GOAL_NAMES)
            if not sign and key != "no_train":
                raise InputError(f"{name} must give {key} a value. Received: {to_one_line(text)}.")
            if key == "no_train" and sign:
                if value.lower() not in ("true", "false"):
                    raise InputError(
                        f"{name} must hold no_train alone, without a value. Received: "
                        f"{to_one_line(item)}."
                    )
                if value.lower() == "false":
                    continue
            values[key] = True if key == "no_train" else value
        return cls._from_values(values, name)

    @classmethod
    def from_value(cls, value: object, name: str = "shrink_to") -> Self:
        """Return the goal of a text, of a dictionary, or of `GoalOptions`.

        Args:
            value: The text, dictionary, options or goal.
            name: Name of the value in errors.

        Raises:
            InputError: See `parse`.
        """
        if isinstance(value, GoalOptions):
            return cls(value)
        if isinstance(value, Mapping):
            for key in value:
                if key not in GOAL_NAMES:
                    raise build_unknown_name_error(f"goal of {name}", str(key), GOAL_NAMES)
            return cls._from_values(dict(value), name)
        return super().from_value(value, name)

    @classmethod
    def _from_values(cls, values: dict[str, Any], name: str) -> Self:
        goal = GoalOptions(**values)
        if goal.latency_table is not None:
            raise InputError(
                f"{name} must be good for each model of a run. Received: latency_table, which is "
                "of one. Give it to paretune shrink."
            )
        if not goal.costs and not goal.has_metric_goal:
            raise InputError(
                f"{name} must name a cost or a quality, like latency=0.5x or max_drop=1. Received: "
                f"{', '.join(values) or 'nothing'}."
            )
        return cls(goal)

    def __str__(self) -> str:
        parts = []
        for item in fields(GoalOptions):
            value = getattr(self.goal, item.name)
            if value != item.default:
                parts.append(item.name if value is True else f"{item.name}={format_value(value)}")
        return ",".join(parts)


def explain_bare_latencies(plan: Any) -> tuple[str, ...]:
    """Return a note for each latency that was given as text without a unit.

    Such a number meant milliseconds in earlier versions; now it means a share of the original's
    latency.
    """
    values = {leaf.flags[0]: read_field(plan, leaf) for leaf in list_plan_fields(type(plan))}
    for flag, value in tuple(values.items()):
        if isinstance(value, ShrinkGoal):
            values[f"latency of {flag}"] = value.goal.latency
    return tuple(
        f"{name} {format_number(value.amount)} is read as {value}, a share of the original's "
        f"latency. It meant milliseconds before: write {format_number(value.amount)}ms for these."
        for name, value in values.items()
        if isinstance(value, TimeTarget) and value.bare
    )
