"""Plan section: weight pruning, with values for patterns and training times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compress.core.errors import InputError, to_one_line
from compress.core.quantities import format_number, format_received, parse_number
from compress.plan.conversion import ConvertedField, NameList, TextValue, to_float
from compress.plan.data import AUTO
from compress.plan.fields import Choices, RemovedOption, option, require, validate_fields

Unit = Literal["share", "epochs", "steps"]
MAX_TIME = 1e9
_UNIT_SIGNS: dict[Unit, str] = {"share": "%", "epochs": "e", "steps": ""}


@dataclass(frozen=True)
class TrainTime(TextValue):
    """Time during training: "50%" of it, after "2e" epochs or after "400" steps.

    Attributes:
        value: A share in [0, 1], or a number of epochs or steps, at least 0.
        unit: "share", "epochs" or "steps".

    Example:
        >>> TrainTime.parse("50%")
        TrainTime(value=0.5, unit='share')
    """

    value: float
    unit: Unit

    @classmethod
    def parse(cls, text: str, name: str = "a pruning time") -> Self:
        """Return the time of a text: a share ("50%", "0.5", "0.5x"), epochs ("2e") or steps.

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: The text has another form, or is out of range.
        """
        words = text.strip()
        unit: Unit = "epochs" if words.endswith("e") else "steps"
        value = parse_number(words.removesuffix(_UNIT_SIGNS[unit]), "share")
        if unit == "steps" and value is not None and (words[-1:] in "%xX" or 0 < value < 1):
            unit = "share"
        if value is None or not 0 <= value <= (1 if unit == "share" else MAX_TIME):
            raise InputError(
                f"{name} must be a share of training (50%), epochs (2e) or steps (400). "
                f"Received: {format_received(text)}."
            )
        return cls(value, unit)

    @classmethod
    def from_value(cls, value: object, name: str = "a pruning time") -> Self:
        """Return the time of a text or number; a number in (0, 1) is a share, others count steps.

        Args:
            value: The text, number or time.
            name: Name of the value in errors.

        Raises:
            InputError: See `parse`.
        """
        number = to_float(value)
        if number is None:
            return super().from_value(value, name)
        return cls.parse(format_number(number), name)

    def __str__(self) -> str:
        if self.unit != "share":
            return f"{format_number(self.value)}{_UNIT_SIGNS[self.unit]}"
        return format_percent(self.value) or f"{format_number(self.value)}x"


def format_percent(share: float) -> str:
    """Return the shortest percentage that is parsed as exactly this share, or "" for none.

    For 0.07 it is "7%".
    """
    percent = share * 100
    near = (round(percent, 9), percent, math.nextafter(percent, 0), math.nextafter(percent, 101))
    texts = (f"{format_number(number)}%" for number in near)
    return next((text for text in texts if parse_number(text, "share") == share), "")


MAX_PATTERN_SIZE = 2**16
_PATTERN_RULE = (
    "be unstructured, N:M with N < M (2:4), or ROWSxCOLUMNS (1x4), of numbers up to "
    f"{MAX_PATTERN_SIZE:,}"
)


@dataclass(frozen=True)
class PatternSpec(TextValue):
    """Sparsity pattern of a plan, built by `compress.prune.weights.patterns.create_pattern`.

    Attributes:
        kind: "unstructured", "n:m" (N of M weights along the inputs are kept) or "block".
        first, second: N and M, or rows (inputs) and columns (outputs) of a block, otherwise 0.

    Example:
        >>> PatternSpec.parse("2:4")
        PatternSpec(kind='n:m', first=2, second=4)
    """

    kind: Literal["unstructured", "n:m", "block"] = "unstructured"
    first: int = 0
    second: int = 0

    @classmethod
    def parse(cls, text: str, name: str = "a pattern") -> Self:
        """Return the pattern of a text: "unstructured", "2:4" or "1x4".

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: The text has another form, or N is not below M.
        """
        if text == "unstructured":
            return cls()
        match = re.fullmatch(r"(\d{1,9})([:x])(\d{1,9})", text, re.ASCII)
        if match:
            first, second = int(match[1]), int(match[3])
            is_n_of_m = match[2] == ":"
            is_valid = 1 <= first < second if is_n_of_m else min(first, second) >= 1
            if is_valid and max(first, second) <= MAX_PATTERN_SIZE:
                return cls("n:m" if is_n_of_m else "block", first, second)
        raise InputError(f"{name} must {_PATTERN_RULE}. Received: {to_one_line(text)}.")

    def __str__(self) -> str:
        if self.kind == "unstructured":
            return self.kind
        return f"{self.first}{':' if self.kind == 'n:m' else 'x'}{self.second}"


@dataclass(frozen=True)
class LayerShare(TextValue):
    """Share for all layers that match a pattern.

    Attributes:
        pattern: Shell pattern of layer names ("conv1*").
        share: Share in [0, 1].

    Example:
        >>> LayerShare.parse("conv1*=0.3")
        LayerShare(pattern='conv1*', share=0.3)
    """

    pattern: str
    share: float

    @classmethod
    def parse(cls, text: str, name: str = "a share of layers") -> Self:
        """Return the layer share of a text like "pattern=0.3" or "pattern=30%".

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: There is no pattern, or the share is not in [0, 1].
        """
        pattern, _, digits = text.rpartition("=")
        share = parse_number(digits, "share")
        if not pattern or share is None or not 0 <= share <= 1:
            raise InputError(
                f"{name} must be pattern=share, a share in [0, 1], like conv1*=0.3. "
                f"Received: {to_one_line(text)}."
            )
        return cls(pattern, share)

    @classmethod
    def from_value(cls, value: object, name: str = "a share of layers") -> Self:
        """Return the layer share of a text or of a pair (pattern, share).

        Args:
            value: The text, pair or layer share.
            name: Name of the value in errors.

        Raises:
            InputError: See `parse`.
        """
        if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str):
            value = f"{value[0]}={to_one_line(value[1])}"
        return super().from_value(value, name)

    def __str__(self) -> str:
        return f"{self.pattern}={format_number(self.share)}"


Shares = ConvertedField[tuple[LayerShare, ...], Iterable[str | LayerShare] | Mapping[str, float]]
"""Shares by pattern of layer names: {"conv1*": 0.3}, ("conv1*=0.3",) or "conv1*=0.3,head=0"."""


WEIGHT_SCOPES = ("layer", "global", "erk")
OPTIONAL_WEIGHT_KINDS = ("ends", "biases", "normalization", "embeddings", "depthwise")
_OTHER_COURSE = (
    "For another course, give prune_weights or WeightPruner a schedule= in Python, such as tfmot's "
    "PolynomialDecay or ConstantSparsity."
)
_NO_GAIN = f"No figure showed a gain over the default course. {_OTHER_COURSE}"


@dataclass(frozen=True)
class WeightOptions:
    """Magnitude pruning of single weights, of N:M groups or of blocks."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "saliency": RemovedOption(
            "--prune-saliency",
            "Ranking weights by their inputs gained nothing measurable over their magnitude. Leave "
            "it out: weights are ranked by magnitude.",
            unused_values=("magnitude",),
        ),
        "pooling": RemovedOption(
            "--prune-pooling",
            "No figure showed a gain over the mean. Leave it out: blocks are ranked by the mean "
            "magnitude of their weights.",
            unused_values=("avg",),
        ),
        "schedule": RemovedOption(
            "--prune-schedule",
            "On a ResNet-20, all zeros from the first step on gained nothing measurable at 80 and "
            f"90 % zeros and lost 0.26 pp at 95 %. {_OTHER_COURSE}",
            unused_values=("polynomial",),
        ),
        "initial_sparsity": RemovedOption("--initial-sparsity", _NO_GAIN, unused_values=(0.0,)),
        "begin": RemovedOption("--prune-begin", _NO_GAIN, unused_values=("0%",)),
        "power": RemovedOption("--prune-power", _NO_GAIN, unused_values=(3.0,)),
        "updates": RemovedOption("--prune-updates", _NO_GAIN, unused_values=(50,)),
        "frequency": RemovedOption("--prune-frequency", _NO_GAIN, unused_values=(None, "")),
        "freeze": RemovedOption(
            "--prune-freeze",
            "No figure showed a gain over masks made anew at every update. To keep an N:M "
            "pattern's first masks, give a schedule= with one update in Python.",
            unused_values=(False,),
        ),
        "recalibrate": RemovedOption(
            "--prune-recalibrate",
            "No figure showed a gain. In Python, call recalibrate(model, data, batches) on the "
            "pruned model.",
            unused_values=(0,),
        ),
    }

    sparsity: float = option(0.8, "share of the weights to set to zero, in [0, 1)", unit="share")
    pattern: ConvertedField[PatternSpec, PatternSpec | str] = option(
        PatternSpec(),
        "sparsity pattern: unstructured, N:M (2:4 keeps 2 of 4 inputs) or blocks (1x4: inputs"
        " x outputs)",
        flat_name="weight_pattern",
    )
    scope: str = option(
        AUTO,
        "ranking of weights: global, layer (equal sparsity), erk (by shape); auto: global if "
        "unstructured, else layer",
        flat_name="weight_scope",
        left_open=AUTO,
        choices=Choices("pruning scope", (AUTO, *WEIGHT_SCOPES)),
    )
    overrides: Shares = option(
        (),
        "sparsity by layer name pattern, in [0, 1): conv1*=0.5,head=0",
        flat_name="weight_overrides",
    )
    include: NameList = option(
        (),
        "kinds of weights to prune too, with commas (ends: first and last layer)",
        flat_name="weight_include",
        choices=Choices("kind of weights to prune too", OPTIONAL_WEIGHT_KINDS),
    )
    sparsity_end: ConvertedField[TrainTime, TrainTime | str | float] = option(
        TrainTime(0.5, "share"),
        "share of fine-tuning (50%), epochs (2e) or steps (400) until the full sparsity is reached",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(0 <= self.sparsity < 1, "sparsity", "be in [0, 1)", self.sparsity)
        require(
            self.pattern.kind != "n:m" or self.effective_scope == "layer",
            "weight_scope",
            "be layer for an N:M pattern, which fixes the sparsity of every layer",
            self.scope,
        )
        require(
            self.sparsity_end.unit != "share" or self.sparsity_end.value > 0,
            "sparsity_end",
            "be above 0%",
            self.sparsity_end,
        )
        for override in self.overrides:
            require(
                override.share < 1, "weight_overrides", "be pattern=sparsity, in [0, 1)", override
            )
        require(
            self.sparsity > 0 or not any(override.share > 0 for override in self.overrides),
            "sparsity",
            "be above 0 where overrides prune: they grow with it",
            self.sparsity,
        )

    @property
    def effective_scope(self) -> str:
        """Scope after resolving "auto", one of `WEIGHT_SCOPES`."""
        if self.scope != AUTO:
            return self.scope
        return "global" if self.pattern.kind == "unstructured" else "layer"

    @property
    def label(self) -> str:
        """Text of the pruning for model names: "p80", "p2_4", "p90_1x4"."""
        pattern = self.pattern
        if pattern.kind == "n:m":
            return f"p{pattern.first}_{pattern.second}"
        share = f"p{self.sparsity * 100:g}".replace(".", "_")
        return share if pattern.kind == "unstructured" else f"{share}_{pattern}"
