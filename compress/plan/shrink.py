"""The plan of `shrink`: a goal, and defaults that a goal needs no words for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

from compress.plan import ChannelOptions, Plan, TrainSettings, WeightOptions
from compress.plan.fields import require
from compress.plan.goal import GOAL_RUNTIMES, GoalOptions
from compress.plan.output import MIXED

_OF_CHANNELS = {item.name: item for item in fields(ChannelOptions)}
_OF_TRAINING = {item.name: item for item in fields(TrainSettings)}
_OF_WEIGHTS = {item.name: item for item in fields(WeightOptions)}


@dataclass(frozen=True)
class ShrinkChannels(ChannelOptions):
    """How channels are removed on the way to a goal: by the best method, whole blocks too."""

    blocks: bool = field(default=True, metadata=_OF_CHANNELS["blocks"].metadata)
    # half of what a single pruning tries: the files of several choices are measured here
    tries: int = field(default=8, metadata=_OF_CHANNELS["tries"].metadata)


@dataclass(frozen=True)
class ShrinkTraining(TrainSettings):
    """How nets are fine-tuned on the way to a goal: repaired, and nothing is pruned meanwhile."""

    epochs: int | None = field(
        default=None,
        metadata={
            **_OF_TRAINING["epochs"].metadata,
            "help": "epochs of fine-tuning; default: enough for 1,000 steps, at least 2; 0: none",
        },
    )
    least_epochs: ClassVar[int] = 2


@dataclass(frozen=True)
class ShrinkWeights(WeightOptions):
    """Single weights stay: zeros alone save no time."""

    sparsity: float = field(default=0.0, metadata=_OF_WEIGHTS["sparsity"].metadata)


@dataclass(frozen=True)
class ShrinkPlan(Plan):
    """Everything that `paretune shrink` and `shrink` do."""

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
            self.channels.scope == "damage" or self.channels.compares,
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
        self._check_files()

    def _check_files(self) -> None:
        formats, goal = self.export.steering, self.goal
        kinds = tuple(dict.fromkeys(GOAL_RUNTIMES.values()))
        require(
            bool(formats) and any(set(formats) <= set(kind) for kind in kinds),
            "formats",
            f"be among {' or among '.join(map(', '.join, kinds))} on the way to a goal "
            f"(beside {MIXED}, which is made at its end)",
            ",".join(self.export.formats),
            "`paretune compress` makes the others.",
        )
        timed = goal.latency is not None or not goal.costs
        first = self.latency.runtimes[0]
        require(
            not timed or first in self._able,
            "runtimes",
            f"begin with one that runs {formats[0]} files ({', '.join(self._able)}), where a time "
            "is the goal: it is measured there",
            ",".join(self.latency.runtimes),
            "Give --formats onnx or onnx_int8 for onnx and openvino.",
        )
        require(
            goal.peak_memory is None or "litert" in self._able,
            "peak_memory", "be of LiteRT files: it is that of LiteRT's arena", ",".join(formats),
        )  # fmt: skip
        require(
            goal.latency_table is None or "litert" in self._able,
            "latency_table", "be of LiteRT files", ",".join(formats),
        )  # fmt: skip

    @property
    def _able(self) -> tuple[str, ...]:
        """Runtimes that run the files."""
        return tuple(
            name for name, kinds in GOAL_RUNTIMES.items() if self.export.steering[0] in kinds
        )

    @property
    def qat_epochs(self) -> int:
        """Epochs of a training for whole numbers; 0: they are calibrated alone."""
        return 0 if self.goal.no_train else self.quantize.epochs

    @property
    def runtime(self) -> str:
        """What times files on the way: the first of the runtimes that runs them."""
        return next((name for name in self.latency.runtimes if name in self._able), self._able[0])

    @property
    def first(self) -> str:
        """The format that goals which are shares are shares of: the one without rounding."""
        return GOAL_RUNTIMES[self.runtime][0]
