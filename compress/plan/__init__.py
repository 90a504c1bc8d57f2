"""The plan: the frozen record of all options of the compress stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from compress.core.device import DEVICES
from compress.core.memory_budget import LEAST
from compress.core.quantities import MORE_THREADS, MOST_SEED, MOST_THREADS, SEED_BITS
from compress.plan.channels import (
    AGGREGATES,
    ChannelOptions,
    LayerShare,
)
from compress.plan.data import DataOptions
from compress.plan.distill import AUTO, DistillOptions, LayerPair, Ramp, TeacherChoice
from compress.plan.fields import Choices, option, require, settle
from compress.plan.forms import Names, Place
from compress.plan.output import (
    FORMATS,
    LEVELS,
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
    PatternSpec,
    TrainTime,
    WeightOptions,
)
from compress.plugins import LOGS

__all__ = [
    "AGGREGATES",
    "AUTO",
    "ChannelOptions",
    "DataOptions",
    "DistillOptions",
    "ExportOptions",
    "FORMATS",
    "LEVELS",
    "LatencyOptions",
    "LayerPair",
    "LayerShare",
    "ONNX_FORMATS",
    "OPTIMIZERS",
    "PatternSpec",
    "QAT",
    "Plan",
    "QuantizeOptions",
    "Ramp",
    "SCHEDULES",
    "Target",
    "TeacherChoice",
    "TrainSettings",
    "TrainTime",
    "WeightOptions",
]


@dataclass(frozen=True)
class Plan:
    """All options of the compress stage; `paretune compress` and `compress_model` take them."""

    command: ClassVar[str] = "compress"
    """What does all this to one model: `paretune compress`."""

    data: DataOptions = field(default_factory=DataOptions)
    finetune: TrainSettings = field(default_factory=TrainSettings)
    channels: ChannelOptions = field(default_factory=ChannelOptions)
    weights: WeightOptions = field(default_factory=WeightOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    export: ExportOptions = field(default_factory=ExportOptions)
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    seed: int = option(
        0, "--seed", "seeds splits, initial weights, shuffling and sampling", least=0,
        most=MOST_SEED, why=SEED_BITS, like="a whole number, like 0",
    )  # fmt: skip
    device: str = option(
        "auto",
        "--device",
        "auto, cpu or gpu",
        extendable=True,
        choices=Choices("device", DEVICES),
    )
    threads: int | None = option(
        None,
        "--threads",
        "CPU threads of a training; default: every core, shared among a run's workers",
        extendable=True,
        least=1,
        most=MOST_THREADS,
        why=MORE_THREADS,
    )
    memory: int | None = option(
        None,
        "--memory",
        "memory that all processes of a run may occupy together, like 4GB; batches are as large as "
        "it allows; default: 90 % of what the machine or container has free",
        extendable=True,
        least=LEAST,
        most=10**15,
        why="no machine has more",
        unit="bytes",
        like="a size, like 4GB",
    )
    out: Place = option(
        None, "--out", "folder for the results; default: one in runs/", extendable=True
    )
    repair: int = option(
        1000,
        "--repair",
        "training examples on which what pruning broke is solved for, layer by layer, before any "
        "fine-tuning; labels are not used; 0: no repair",
        least=0,
        most=1_000_000,
        why="thousands add nothing",
    )
    log: Names = option(
        (),
        "--log",
        "where epochs, candidates and files are logged beside the run's folder, with commas: "
        "tensorboard, mlflow, wandb",
        extendable=True,
        choices=LOGS,
    )
    plugins: Names = option(
        (), "--plugins", "modules to import first, with commas: they register plug-ins of yours"
    )

    @property
    def qat(self) -> bool:
        """Whether files of whole numbers are trained for."""
        return self.quantize.qat or bool(self.export.trained)

    @property
    def trained_formats(self) -> tuple[str, ...]:
        """The formats of these files."""
        return self.export.trained or ((QAT,) if self.quantize.qat else ())

    def __post_init__(self) -> None:
        settle(self)
        require(
            not (self.finetune.own_train_step and self.distill.teacher.files),
            "teacher",
            "be none where the model's own train_step trains",
            self.distill.teacher,
        )
