"""Plan of a compression: the frozen record of all options of the compress stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from compress.core.device import DEVICES
from compress.core.memory_budget import MIN_BUDGET_BYTES
from compress.core.quantities import MAX_SEED, MAX_SEED_REASON, MAX_THREADS, MAX_THREADS_REASON
from compress.core.registry import build_renamed_getattr
from compress.plan.channels import ChannelOptions
from compress.plan.conversion import NameList, OptionalPath
from compress.plan.data import DataOptions
from compress.plan.distill import AUTO, DistillOptions, LayerPair, TeacherChoice
from compress.plan.fields import Choices, option, require, validate_fields
from compress.plan.output import (
    FORMATS,
    ONNX_FORMATS,
    QAT,
    ExportOptions,
    LatencyOptions,
)
from compress.plan.target import Target
from compress.plan.training import (
    OPTIMIZERS,
    SCHEDULES,
    QuantizeOptions,
    TrainSettings,
)
from compress.plan.weights import (
    LayerShare,
    PatternSpec,
    TrainTime,
    WeightOptions,
)
from compress.plugins import LOGS

__all__ = [
    "AUTO",
    "ChannelOptions",
    "DataOptions",
    "DistillOptions",
    "ExportOptions",
    "FORMATS",
    "LatencyOptions",
    "LayerPair",
    "LayerShare",
    "ONNX_FORMATS",
    "OPTIMIZERS",
    "PatternSpec",
    "QAT",
    "Plan",
    "QuantizeOptions",
    "SCHEDULES",
    "Target",
    "TeacherChoice",
    "TrainSettings",
    "TrainTime",
    "WeightOptions",
]


@dataclass(frozen=True)
class Plan:
    """All options of the compress stage, for `paretune compress` and `compress_model`."""

    if not TYPE_CHECKING:  # a type checker must refuse unknown attributes
        __getattr__ = build_renamed_getattr({"qat": "uses_qat", "trained_formats": "qat_formats"})

    command: ClassVar[str] = "compress"
    """Subcommand of `paretune` that uses this plan."""

    FORMER_PATHS: ClassVar[dict[str, str]] = {
        "distill.hints": "distill.feature_losses",
        "distill.hint_weight": "distill.feature_weight",
        "distill.pairs": "distill.feature_pairs",
        "finetune.schedule": "finetune.learning_rate_schedule",
        "weights.also": "weights.include",
        "weights.end": "weights.sparsity_end",
        "goal.min_quality": "goal.min_metric",
    }
    """Present paths of fields, by path in plans of earlier versions (TOML and run folders)."""

    data: DataOptions = field(default_factory=DataOptions)
    finetune: TrainSettings = field(default_factory=TrainSettings)
    channels: ChannelOptions = field(default_factory=ChannelOptions)
    weights: WeightOptions = field(default_factory=WeightOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    export: ExportOptions = field(default_factory=ExportOptions)
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    seed: int = option(
        0,
        "random seed of splits, weights, shuffling and sampling",
        least=0,
        most=MAX_SEED,
        why=MAX_SEED_REASON,
        like="an integer, like 0",
    )
    device: str = option(
        "auto",
        "device that trains",
        extendable=True,
        choices=Choices("device", DEVICES),
    )
    threads: int | None = option(
        None,
        "CPU threads of a training; default: all cores, shared among workers",
        extendable=True,
        least=1,
        most=MAX_THREADS,
        why=MAX_THREADS_REASON,
    )
    memory: int | None = option(
        None,
        "memory limit of all processes together, in bytes or like 4GB; default: 90 % of what "
        "is free",
        extendable=True,
        least=MIN_BUDGET_BYTES,
        most=10**15,
        why="no machine has more",
        unit="bytes",
        like="a size, like 4GB",
    )
    out: OptionalPath = option(
        None, "folder for the results; default: a new one in runs/", extendable=True
    )
    repair: int = option(
        1000,
        "calibration examples for weight reconstruction after pruning (no labels needed), at least "
        "20; 0: none",
        least=0,
        most=1_000_000,
        why="thousands add nothing",
    )
    log: NameList = option(
        (),
        "experiment trackers that record the run too, with commas",
        extendable=True,
        choices=LOGS,
    )
    plugins: NameList = option((), "modules with plug-ins to import first, with commas")

    @property
    def uses_qat(self) -> bool:
        """Whether a model is trained with quantization-aware training."""
        return bool(self.export.qat_formats)

    @property
    def qat_formats(self) -> tuple[str, ...]:
        """Export formats that need quantization-aware training."""
        return self.export.qat_formats

    def __post_init__(self) -> None:
        validate_fields(self)
        require(
            not (self.finetune.own_train_step and self.distill.teacher.files),
            "teacher",
            "be none where the model's own train_step trains",
            self.distill.teacher,
        )
