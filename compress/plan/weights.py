"""Plan section: pruning of single weights, N:M groups and blocks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from compress.plan.channels import parsed_share
from compress.plan.fields import option, require, require_choice, settle

WEIGHT_SCHEDULES = ("polynomial", "constant")
POOLINGS = ("avg", "max")
WEIGHT_SCOPES = ("layer", "global", "erk")
PRUNED_TOO = ("ends", "biases", "normalization", "embeddings", "depthwise")
MOST_PATTERN = 2**16
MOST_TIME = 1e9
TIME_UNITS = {"%": "share", "e": "epochs", "": "steps"}


def parsed_time(text: str) -> tuple[float, str]:
    """Reads a time of training: "50%" of it, "2e" epochs, "400" steps.

    Returns:
        The number (of "50%": 0.5) and its unit: "share", "epochs" or "steps".

    Raises:
        InputError: It is none of these, or negative.
    """
    digits, unit = (text[:-1], text[-1:]) if text[-1:] in ("%", "e") else (text, "")
    try:
        value = float(digits)
    except ValueError:
        value = math.nan
    require(
        0 <= value <= MOST_TIME and (unit != "%" or value <= 100),
        "a pruning time",
        "be a share of training (50%), epochs (2e) or steps (400)",
        repr(text),
    )
    return value / 100 if unit == "%" else value, TIME_UNITS[unit]


@dataclass(frozen=True)
class WeightOptions:
    """Magnitude pruning of single weights, of N:M groups or of blocks."""

    sparsity: float = option(0.8, "--sparsity", "share of each pruned kernel set to zero; 0: none")
    pattern: str = option(
        "unstructured",
        "--prune-pattern",
        "unstructured; 2:4 (2 kept of 4 along the inputs, any N:M); 1x4 (blocks of 1 input x 4 "
        "outputs, any size)",
    )
    pooling: str = option("avg", "--prune-pooling", "what a block counts by: avg or max")
    scope: str = option(
        "layer",
        "--prune-scope",
        "layer: the same sparsity everywhere; global: one ranking of all kernels; erk: by shape",
    )
    overrides: tuple[str, ...] = option(
        (), "--prune-overrides", "sparsity by layer name pattern: conv1*=0.5,head=0 (0 keeps it)"
    )
    also: tuple[str, ...] = option(
        (), "--prune-also", "prune these too: " + ", ".join(PRUNED_TOO) + " (first and last layer)"
    )
    schedule: str = option(
        "polynomial", "--prune-schedule", "sparsity over time: " + ", ".join(WEIGHT_SCHEDULES)
    )
    initial_sparsity: float = option(0.0, "--initial-sparsity", "sparsity at the first update")
    begin: str = option(
        "0%", "--prune-begin", "when pruning begins: 10% of training, 1e (epochs) or 100 (steps)"
    )
    end: str = option("50%", "--prune-end", "when the final sparsity is reached, likewise")
    power: float = option(3.0, "--prune-power", "exponent of the polynomial schedule")
    updates: int = option(
        50, "--prune-updates", "mask updates between begin and end, at most", least=1,
        most=100_000_000, why="no training has as many steps",
    )  # fmt: skip
    frequency: str = option(
        "", "--prune-frequency", "distance of mask updates (100 or 0.1e), instead of their number"
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
        require_choice("pruning scope", self.scope, WEIGHT_SCOPES)
        kind = self.parsed_pattern()[0]
        require(
            kind != "n:m" or self.scope == "layer",
            "pruning scope",
            "be layer for an N:M pattern, which fixes the sparsity of every layer",
            self.scope,
        )
        require_choice("block pooling", self.pooling, POOLINGS)
        require_choice("pruning schedule", self.schedule, WEIGHT_SCHEDULES)
        for item in self.also:
            require_choice("kind of weights to prune too", item, PRUNED_TOO)
        times = [parsed_time(text) for text in (self.begin, self.end)]
        require(
            times[0][1] != times[1][1] or times[0][0] < times[1][0],
            "prune_begin, prune_end",
            "satisfy begin < end",
            f"{self.begin}, {self.end}",
        )
        if self.frequency:
            parsed_time(self.frequency)
        require(self.power > 0, "prune_power", "be above 0", self.power)
        overridden = any(share > 0 for _, share in self.parsed_overrides())
        require(
            self.sparsity > 0 or not overridden,
            "sparsity",
            "be above 0 where overrides prune: they grow with it",
            self.sparsity,
        )

    @property
    def label(self) -> str:
        """How names of models tell what was done: "p80", "p2_4", "p90_1x4"."""
        kind, first, second = self.parsed_pattern()
        if kind == "n:m":
            return f"p{first}_{second}"
        share = f"p{self.sparsity * 100:g}".replace(".", "_")
        return share if kind == "unstructured" else f"{share}_{first}x{second}"

    def parsed_pattern(self) -> tuple[str, int, int]:
        """Returns ("unstructured", 0, 0), ("n:m", N, M) or ("block", rows, columns).

        Raises:
            InputError: It is none of these, or N is not below M.
        """
        if self.pattern == "unstructured":
            return "unstructured", 0, 0
        found = re.fullmatch(r"(\d{1,9})([:x])(\d{1,9})", self.pattern)
        rule = (
            "be unstructured, N:M with N < M (2:4), or ROWSxCOLUMNS (1x4), of numbers up to "
            f"{MOST_PATTERN:,}"
        )
        first, second = (int(found[1]), int(found[3])) if found else (0, 0)
        kind = "n:m" if found and found[2] == ":" else "block"
        valid = 1 <= first < second if kind == "n:m" else min(first, second) >= 1
        valid = valid and max(first, second) <= MOST_PATTERN
        require(valid, "prune_pattern", rule, self.pattern)
        return kind, first, second

    def parsed_overrides(self) -> tuple[tuple[str, float], ...]:
        """Returns (pattern of layer names, sparsity in [0, 1)).

        Raises:
            InputError: There is no pattern, or the sparsity is out of range.
        """
        found = tuple(parsed_share(text) for text in self.overrides)
        for text, (pattern, share) in zip(self.overrides, found, strict=True):
            valid = bool(pattern) and 0 <= share < 1
            require(valid, "pruning override", "be pattern=sparsity, in [0, 1)", text)
        return found
