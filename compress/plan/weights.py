"""Plan section: pruning of weights; values for patterns and times of training."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compress.core.errors import InputError, one_line
from compress.core.quantities import number_text, parse_number, show_received
from compress.plan.channels import Shares
from compress.plan.data import AUTO
from compress.plan.fields import Choices, RemovedOption, option, require, settle
from compress.plan.forms import Given, Names, Written, real

Unit = Literal["share", "epochs", "steps"]
MOST_TIME = 1e9
_SIGNS: dict[Unit, str] = {"share": "%", "epochs": "e", "steps": ""}


@dataclass(frozen=True)
class TrainTime(Written):
    """A time of training: "50%" of it, after "2e" epochs or "400" steps.

    Attributes:
        value: Of a share in [0, 1]; else at least 0.
        unit: "share", "epochs" or "steps".

    Example:
        >>> TrainTime.parse("50%")
        TrainTime(value=0.5, unit='share')
    """

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, name: str = "a pruning time") -> Self:
        """Read a share of training ("50%", "0.5" or "0.5x"), epochs ("2e") or steps ("400").

        Raises:
            InputError: It is none of these, or out of range.
        """
        words = text.strip()
        unit: Unit = "epochs" if words.endswith("e") else "steps"
        value = parse_number(words.removesuffix(_SIGNS[unit]), "share")
        if unit == "steps" and value is not None and (words[-1:] in "%xX" or 0 < value < 1):
            unit = "share"
        if value is None or not 0 <= value <= (1 if unit == "share" else MOST_TIME):
            raise InputError(
                f"{name} must be a share of training (50%), epochs (2e) or steps (400). "
                f"Received: {show_received(text)}."
            )
        return cls(value, unit)

    @classmethod
    def of(cls, value: object, name: str = "a pruning time") -> Self:
        """Take a number too: a whole one counts steps, another below 1 is a share."""
        number = real(value)
        if number is None:
            return super().of(value, name)
        return cls.parse(number_text(number), name)

    def __str__(self) -> str:
        if self.unit != "share":
            return f"{number_text(self.value)}{_SIGNS[self.unit]}"
        return percent_text(self.value) or f"{number_text(self.value)}x"


def percent_text(share: float) -> str:
    """Return the shortest percentage that is read as exactly this share, of 0.07 "7%"; "": none."""
    percent = share * 100
    near = (round(percent, 9), percent, math.nextafter(percent, 0), math.nextafter(percent, 101))
    texts = (f"{number_text(number)}%" for number in near)
    return next((text for text in texts if parse_number(text, "share") == share), "")


MOST_PATTERN = 2**16
_RULE = (
    "be unstructured, N:M with N < M (2:4), or ROWSxCOLUMNS (1x4), of numbers up to "
    f"{MOST_PATTERN:,}"
)


@dataclass(frozen=True)
class PatternSpec(Written):
    """The pattern that a plan names; `compress.prune.weights.patterns.pattern_of` makes it.

    Attributes:
        kind: "unstructured", "n:m" (N of M along the inputs are kept) or "block".
        first, second: N and M, or rows (inputs) and columns (outputs) of a block; else 0.

    Example:
        >>> PatternSpec.parse("2:4")
        PatternSpec(kind='n:m', first=2, second=4)
    """

    kind: Literal["unstructured", "n:m", "block"] = "unstructured"
    first: int = 0
    second: int = 0

    @classmethod
    def parse(cls, text: str, name: str = "a pattern") -> Self:
        """Read "unstructured", "2:4" or "1x4".

        Raises:
            InputError: It is none of these, or N is not below M.
        """
        if text == "unstructured":
            return cls()
        found = re.fullmatch(r"(\d{1,9})([:x])(\d{1,9})", text, re.ASCII)
        if found:
            first, second = int(found[1]), int(found[3])
            between = found[2] == ":"
            valid = 1 <= first < second if between else min(first, second) >= 1
            if valid and max(first, second) <= MOST_PATTERN:
                return cls("n:m" if between else "block", first, second)
        raise InputError(f"{name} must {_RULE}. Received: {one_line(text)}.")

    def __str__(self) -> str:
        if self.kind == "unstructured":
            return self.kind
        return f"{self.first}{':' if self.kind == 'n:m' else 'x'}{self.second}"


WEIGHT_SCHEDULES = ("polynomial", "constant")
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
        "avg",
        "--prune-pooling",
        "how the weights of a block are combined: avg or max",
        choices=Choices("block pooling", ("avg", "max")),
    )
    scope: str = option(
        AUTO,
        "--prune-scope",
        "global: one ranking of all kernels; layer: the same sparsity everywhere; erk: by shape; "
        "auto: global of single weights, layer of N:M and blocks",
        left_open=AUTO,
        choices=Choices("pruning scope", (AUTO, *WEIGHT_SCOPES)),
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
        choices=Choices("kind of weights to prune too", PRUNED_TOO),
    )
    schedule: str = option(
        "polynomial",
        "--prune-schedule",
        "how sparsity grows: " + ", ".join(WEIGHT_SCHEDULES),
        choices=Choices("pruning schedule", WEIGHT_SCHEDULES),
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
        require(
            self.pattern.kind != "n:m" or self.ranking == "layer",
            "pruning scope",
            "be layer for an N:M pattern, which fixes the sparsity of every layer",
            self.scope,
        )
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
        """The pruning in names of models: "p80", "p2_4", "p90_1x4"."""
        pattern = self.pattern
        if pattern.kind == "n:m":
            return f"p{pattern.first}_{pattern.second}"
        share = f"p{self.sparsity * 100:g}".replace(".", "_")
        return share if pattern.kind == "unstructured" else f"{share}_{pattern}"
