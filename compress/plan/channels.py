"""Plan section: removal of whole channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from compress.core.counts import amount
from compress.core.plugins import CRITERIA
from compress.plan.fields import option, require, require_choice, settle

CHANNEL_COSTS = ("macs", "params", "amount")
CHANNEL_SCOPES = ("global", "layer")
AGGREGATES = ("mean", "sum", "max", "norm")
SCORE_SCALES = ("mean", "max", "none")
MOST_STEPS = 10_000
MOST_ROUND_TO = 2**16


def parsed_share(text: str) -> tuple[str, float]:
    """Splits "pattern=0.3"; the number is NaN where there is none."""
    pattern, _, digits = text.rpartition("=")
    try:
        return pattern, float(digits)
    except ValueError:
        return pattern, math.nan


@dataclass(frozen=True)
class ChannelOptions:
    """Removal of whole channels, neurons and heads."""

    target: str = option(
        "",
        "--channels",
        "what to keep: 0.5x (of the model's MACs) or an absolute 12M; empty: every channel",
    )
    of: str = option(
        "macs",
        "--channels-of",
        "what the target counts: macs, params, or amount (share of each layer removed: 0.5)",
    )
    criterion: str = option(
        "l2",
        "--channel-criterion",
        ", ".join(CRITERIA) + ", or your own package.module:function",
    )
    scope: str = option(
        "global", "--channel-scope", "global: one ranking of all layers; layer: one share for all"
    )
    aggregate: str = option(
        "mean", "--channel-aggregate", "how a channel's weights are put together: mean, sum, ..."
    )
    normalize: str = option(
        "mean", "--channel-normalize", "scores within a group are divided by their mean, max, none"
    )
    cost_aware: bool = option(
        False, "--channel-cost-aware", "rank by score per MAC that a channel costs"
    )
    round_to: int = option(
        0,
        "--round-to",
        "kept channels are multiples of this; 0: 16 from 32 channels on, 8 below, else 4",
        least=0,
        most=MOST_ROUND_TO,
        why="no layer has as many channels",
    )
    min_kept: float = option(0.1, "--min-kept", "smallest share of a layer's channels to keep")
    limits: tuple[str, ...] = option(
        (), "--channel-limits", "most to remove by layer name pattern: conv1*=0.3,head=0"
    )
    exclude: tuple[str, ...] = option(
        (), "--channel-exclude", "patterns of layer names whose channels stay"
    )
    sensitivity: str = option(
        "",
        "--channel-sensitivity",
        "a folder of sensitivity maps: rank by loss of accuracy, measured once a model",
    )
    steps: int = option(
        1, "--channel-steps", "prune in so many steps, fine-tuning after each", least=1,
        most=MOST_STEPS, why="each prunes and trains",
    )  # fmt: skip
    recalibrate: int = option(
        0, "--recalibrate", "batches that re-estimate normalization statistics after pruning",
        least=0, most=1_000_000, why="statistics settle within hundreds",
    )  # fmt: skip

    def __post_init__(self) -> None:
        settle(self)
        require_choice("channel target", self.of, CHANNEL_COSTS)
        CRITERIA.require(self.criterion)
        require_choice("channel scope", self.scope, CHANNEL_SCOPES)
        require_choice("channel aggregation", self.aggregate, AGGREGATES)
        require_choice("channel normalization", self.normalize, SCORE_SCALES)
        require(0 <= self.min_kept <= 1, "min_kept", "be in [0, 1]", self.min_kept)
        if self.target:
            self.parsed()
        for limit in self.limits:
            self.parsed_limit(limit)

    @property
    def active(self) -> bool:
        """Whether any channel is to be removed."""
        return bool(self.target)

    def parsed(self) -> tuple[float, bool]:
        """Returns the target's number and whether it is a share of the original.

        Raises:
            InputError: It is no number, or out of range.
        """
        text = self.target.strip()
        share = text.endswith("x") or self.of == "amount"
        number = amount(text.removesuffix("x"))
        value = math.nan if number is None else number
        name = f"channels ({self.of})"
        if self.of == "amount":
            require(0 <= value < 1, "amount", "be in [0, 1)", self.target)
        elif share:
            require(0 < value <= 1, name, "keep a share in (0, 1], like 0.5x", self.target)
        else:
            require(
                1 <= value < math.inf, name, "be a share like 0.5x or a count like 12M", self.target
            )
        return value, share

    @staticmethod
    def parsed_limit(limit: str) -> tuple[str, float]:
        """Splits "pattern=0.3".

        Raises:
            InputError: There is no pattern, or the share is not in [0, 1].
        """
        pattern, share = parsed_share(limit)
        require(bool(pattern) and 0 <= share <= 1, "channel limit", "be pattern=share", limit)
        return pattern, share
