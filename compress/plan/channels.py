"""Plan section: channel pruning, and shares by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from compress.core.errors import InputError, to_one_line
from compress.core.quantities import format_number, parse_number
from compress.plan.conversion import ConvertedField, NameList, TextValue
from compress.plan.data import AUTO
from compress.plan.fields import Choices, RemovedOption, option, require, validate_fields
from compress.plan.target import Target
from compress.plugins import CRITERIA


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


AGGREGATES = ("mean", "sum", "max", "norm")
SCORE_SCALES = ("mean", "max", "none")


Shares = ConvertedField[tuple[LayerShare, ...], Iterable[str | LayerShare] | Mapping[str, float]]
"""Shares by pattern of layer names: {"conv1*": 0.3}, ("conv1*=0.3",) or "conv1*=0.3,head=0"."""


@dataclass(frozen=True)
class ChannelOptions:
    """Structured pruning of channels, neurons and attention heads.

    In Python, a target of at most 1 is a share: `target=0.5` keeps half of the MACs, `12e6` is an
    absolute count.
    """

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "cost_aware": RemovedOption(
            "--channel-cost-aware",
            "No figure showed a gain, and a target of MACs or latency weighs what channels cost. "
            "Leave it out.",
            unused_values=(False,),
        ),
        "sensitivity": RemovedOption(
            "--channel-sensitivity",
            "Scopes damage and auto measure output errors themselves, in a fifth of the time that "
            "choosing channels takes. Leave it out; in Python, sensitivity_map() measures once for "
            "several targets.",
            unused_values=(None, ""),
        ),
    }

    target: ConvertedField[Target | None, Target | str | float | None] = option(
        None,
        "--channels",
        "what to keep: 0.5x (half of the model's MACs; also: 2x smaller) or an absolute 12M; "
        "empty: every channel",
    )
    target_metric: str = option(
        "macs",
        "--channels-of",
        "unit of --channels: macs or params (to keep, of the model), or amount (share of each "
        "layer's channels to remove)",
        choices=Choices("channel target", ("macs", "params", "amount")),
    )
    criterion: str = option(
        AUTO,
        "--channel-criterion",
        "how channels are ranked: auto (l2, or reconstruction with scope damage), "
        + ", ".join(CRITERIA)
        + ", or your own package.module:function",
        left_open=AUTO,
        choices=CRITERIA,
        extra_choices=(AUTO,),
    )
    scope: str = option(
        AUTO,
        "--channel-scope",
        "how channel counts are chosen: global (one ranking), layer (the same share of each), "
        "damage (measured output error) or auto (with data the best of the three, else global)",
        left_open=AUTO,
        choices=Choices("channel scope", (AUTO, "global", "layer", "damage")),
    )
    aggregate: str = option(
        "mean",
        "--channel-aggregate",
        "how the scores of a channel's weights are combined: " + ", ".join(AGGREGATES),
        choices=Choices("channel aggregation", AGGREGATES),
    )
    normalize: str = option(
        "mean",
        "--channel-normalize",
        "what the scores of a group are divided by: " + ", ".join(SCORE_SCALES),
        choices=Choices("channel normalization", SCORE_SCALES),
    )
    round_to: int = option(
        0,
        "--round-to",
        "keep a multiple of this many channels; 0: of 16 from 32 channels on, 8 from 9 on, else 4",
        least=0,
        most=2**16,
        why="no layer has as many channels",
    )
    min_kept: float = option(
        0.1, "--min-kept", "smallest share of a layer's channels to keep", unit="share"
    )
    limits: Shares = option(
        (),
        "--channel-limits",
        "the largest share to remove, by layer name pattern: conv1*=0.3,head=0",
    )
    exclude: NameList = option(
        (), "--channel-exclude", "patterns of layer names whose channels all stay"
    )
    blocks: bool = option(
        False,
        "--blocks",
        "also remove whole residual blocks (depth pruning); with --channel-scope damage or auto",
    )
    tries: int = option(
        16,
        "--channel-tries",
        "number of neighbouring configurations to reconstruct and evaluate, the best one is kept; "
        "with --channel-scope damage or auto",
        least=0,
        most=10_000,
        why="each is a repair",
    )
    steps: int = option(
        1, "--channel-steps", "prune in this many steps, with fine-tuning after each", least=1,
        most=10_000, why="each prunes and trains",
    )  # fmt: skip
    recalibrate: int = option(
        0, "--recalibrate", "batches that re-estimate normalization statistics after pruning",
        least=0, most=1_000_000, why="statistics settle within hundreds",
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate_fields(self)
        require(0 <= self.min_kept <= 1, "min_kept", "be in [0, 1]", self.min_kept)
        if self.target is not None:
            object.__setattr__(self, "target", self._validate_target(self.target))
        require(
            not self.blocks or self.scope == "damage" or self.should_compare,
            "channel scope",
            "be damage, or auto without a criterion, where blocks may be removed: their output "
            "error is weighed against that of channels",
            self.scope,
        )
        require(
            self.scope != "damage" or self.target_metric != "amount",
            "channel scope",
            "be global or layer where an amount of every layer is removed",
            self.scope,
        )

    @property
    def is_active(self) -> bool:
        """Whether any channels are to be removed."""
        return self.target is not None

    @property
    def should_compare(self) -> bool:
        """Whether methods are compared on held-out examples, if there are data."""
        return self.scope == self.criterion == AUTO and self.target_metric != "amount"

    @property
    def ranking_criterion(self) -> str:
        """Criterion that ranks the channels of a layer."""
        if self.criterion != AUTO:
            return self.criterion
        return "reconstruction" if self.scope == "damage" or self.should_compare else "l2"

    def select_single_method(self) -> ChannelOptions:
        """Return options with the one method that is used when none are compared."""
        if self.scope != AUTO:
            return replace(self, criterion=self.ranking_criterion)
        # blocks can only be ranked by output error
        single = replace(self, scope="damage" if self.blocks else "global")
        return replace(single, criterion=single.ranking_criterion)

    def _validate_target(self, target: Target) -> Target:
        """Return the target after checking its range.

        Raises:
            InputError: It is out of range.
        """
        name = f"channels ({self.target_metric})"
        if self.target_metric == "amount":
            target = Target(target.amount, relative=False)
            require(0 <= target.amount < 1, "amount", "be in [0, 1)", target)
            return target
        if target.relative:
            rule = "keep a share in (0, 1], like 0.5x, or be '2x smaller'"
            require(0 < target.amount <= 1, name, rule, target)
        else:
            rule = "be a share like 0.5x or a count like 12M"
            require(target.amount >= 1, name, rule, target)
        return target
