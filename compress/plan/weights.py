"""Plan section: pruning of single weights, N:M groups and blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.plan.channels import Shares
from compress.plan.data import AUTO
from compress.plan.fields import RemovedOption, option, require, require_choice, settle
from compress.plan.forms import Given, Names
from compress.plan.pattern import PatternSpec
from compress.plan.train_time import TrainTime

WEIGHT_SCHEDULES = ("polynomial", "constant")
POOLINGS = ("avg", "max")
WEIGHT_SCOPES = ("layer", "global", "erk")
PRUNED_TOO = ("ends", "biases", "normalization", "embeddings", "depthwise")
Time = Given[TrainTime, TrainTime | str | float]
"""A time of training: "50%", "2e" (epochs) or 400 (steps); a number below 1 is a share."""


@dataclass(frozen=True)
class WeightOptions:
    """Magnitude pruning of single weights, of N:M groups or of blocks."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "saliency": RemovedOption(
            "--prune-saliency",
            "Ranking weights by their inputs gained nothing measurable over their magnitude. Leave "
            "it out: weights are ranked by magnitude.",
            off=("magnitude",),
        ),
    }

    sparsity: float = option(
        0.8, "--sparsity", "share of each pruned kernel to set to zero; 0: none", unit="share"
    )
    pattern: Given[PatternSpec, PatternSpec | str] = option(
        PatternSpec(),
        "--prune-pattern",
        "unstructured; 2:4 (keep 2 of 4 along the inputs; any N:M); 1x4 (blocks of 1 input x 4 "
        "outputs; any size)",
    )
    pooling: str = option(
        "avg", "--prune-pooling", "how the weights of a block are combined: avg or max"
    )
    scope: str = option(
        AUTO,
        "--prune-scope",
        "global: one ranking of all kernels; layer: the same sparsity everywhere; erk: by shape; "
        "auto: global of single weights, layer of N:M and blocks",
        left_open=AUTO,
    )
    overrides: Shares = option(
        (),
        "--prune-overrides",
        "sparsity by layer name pattern: conv1*=0.5,head=0 (0 leaves a layer alone)",
    )
    include: Names = option(
        (),
        "--prune-also",
        "prune these too: " + ", ".join(PRUNED_TOO) + " (ends: first and last layer)",
        was="also",
    )
    schedule: str = option(
        "polynomial", "--prune-schedule", "how sparsity grows: " + ", ".join(WEIGHT_SCHEDULES)
    )
    initial_sparsity: float = option(
        0.0, "--initial-sparsity", "sparsity at the first update", unit="share"
    )
    begin: Time = option(
        TrainTime(0.0, "share"),
        "--prune-begin",
        "when pruning begins: 10% of the training, 1e (epochs) or 100 (steps)",
    )
    end: Time = option(
        TrainTime(0.5, "share"),
        "--prune-end",
        "when the final sparsity is reached, written in the same way",
    )
    power: float = option(3.0, "--prune-power", "exponent of the polynomial schedule")
    updates: int = option(
        50, "--prune-updates", "mask updates between begin and end, at most", least=1,
        most=100_000_000, why="no training has as many steps",
    )  # fmt: skip
    frequency: Given[TrainTime | None, TrainTime | str | float | None] = option(
        None,
        "--prune-frequency",
        "time between mask updates (100 or 0.1e), instead of their number",
    )
    freeze: bool = option(
        False, "--prune-freeze", "keep an N:M pattern's first masks, as tfmot does"
    )
    recalibrate: int = option(
        0,
        "--prune-recalibrate",
        "batches that re-estimate normalization statistics after pruning",
        least=0,
        most=1_000_000,
        why="statistics settle within hundreds",
    )

    def __post_init__(self) -> None:
        settle(self)
        for name in ("sparsity", "initial_sparsity"):
            value = getattr(self, name)
            require(0 <= value < 1, name, "be in [0, 1)", value)
        require(
            self.initial_sparsity <= self.sparsity,
            "initial_sparsity",
            f"be at most sparsity ({self.sparsity})",
            self.initial_sparsity,
        )
        require_choice("pruning scope", self.scope, (AUTO, *WEIGHT_SCOPES))
        require(
            self.pattern.kind != "n:m" or self.ranking == "layer",
            "pruning scope",
            "be layer for an N:M pattern, which fixes the sparsity of every layer",
            self.scope,
        )
        require_choice("block pooling", self.pooling, POOLINGS)
        require_choice("pruning schedule", self.schedule, WEIGHT_SCHEDULES)
        for item in self.include:
            require_choice("kind of weights to prune too", item, PRUNED_TOO)
        require(
            self.begin.unit != self.end.unit or self.begin.value < self.end.value,
            "prune_begin, prune_end",
            "satisfy begin < end",
            f"{self.begin}, {self.end}",
        )
        require(self.power > 0, "prune_power", "be above 0", self.power)
        for override in self.overrides:
            require(
                override.share < 1, "prune_overrides", "be pattern=sparsity, in [0, 1)", override
            )
        require(
            self.sparsity > 0 or not any(override.share > 0 for override in self.overrides),
            "sparsity",
            "be above 0 where overrides prune: they grow with it",
            self.sparsity,
        )

    @property
    def ranking(self) -> str:
        """The scope that is used: of `WEIGHT_SCOPES`."""
        if self.scope != AUTO:
            return self.scope
        return "global" if self.pattern.kind == "unstructured" else "layer"

    @property
    def label(self) -> str:
        """How names of models tell what was done: "p80", "p2_4", "p90_1x4"."""
        pattern = self.pattern
        if pattern.kind == "n:m":
            return f"p{pattern.first}_{pattern.second}"
        share = f"p{self.sparsity * 100:g}".replace(".", "_")
        return share if pattern.kind == "unstructured" else f"{share}_{pattern}"
