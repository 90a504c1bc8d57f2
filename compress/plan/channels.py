"""Plan section: channel pruning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compress.plan.conversion import ConvertedField, NameList
from compress.plan.data import AUTO
from compress.plan.fields import Choices, RemovedOption, option, require, validate_fields
from compress.plan.target import Target
from compress.plugins import CRITERIA

_CHANNELS_OF = RemovedOption(
    "--channels-of",
    "--channels is the share or number of MACs to keep. Leave it out. For parameters use paretune "
    "shrink --params 0.5x, or prune_channels(params=0.5) in Python; for the same share of each "
    "layer's channels, --channel-scope layer.",
    unused_values=("macs",),
)


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
            "Scopes output_error and auto measure output errors themselves, in a fifth of the time "
            "that choosing channels takes. Leave it out; in Python, sensitivity_map() measures "
            "once for several targets.",
            unused_values=(None, ""),
        ),
        "target_metric": _CHANNELS_OF,
        "of": _CHANNELS_OF,  # its name in the first release
        "aggregate": RemovedOption(
            "--channel-aggregate",
            "No figure showed that anything but mean gains. Leave it out, or give a criterion of "
            "your own that combines the scores of a channel's weights.",
            unused_values=("mean",),
        ),
        "normalize": RemovedOption(
            "--channel-normalize",
            "No figure showed that anything but mean gains. Leave it out, or give a criterion of "
            "your own that scales the scores of a group.",
            unused_values=("mean",),
        ),
        "limits": RemovedOption(
            "--channel-limits",
            "No figure showed a gain. Give --channel-exclude for layers that keep all channels, "
            "and --min-kept for the smallest share of a layer's channels.",
            unused_values=([], ""),
        ),
        "keep_all": RemovedOption(
            "--keep-channels",
            "Give --channels 1x, which keeps every channel.",
            unused_values=(False,),
        ),
        "steps": RemovedOption(
            "--channel-steps",
            "No figure showed that several steps gain anything. Leave it out; in Python, call "
            "prune_channels and train in turn.",
            unused_values=(1,),
        ),
        "recalibrate": RemovedOption(
            "--recalibrate",
            "Weight reconstruction corrects what pruning changes. Leave it out; in Python, "
            "paretune.recalibrate(model, data, batches) re-estimates normalization statistics.",
            unused_values=(0,),
        ),
    }

    target: ConvertedField[Target | None, Target | str | float | None] = option(
        None,
        "MACs to keep by channel pruning: 0.5x or 12M; 1x: all; default: all (paretune run: "
        "half where it saves time)",
        flat_name="channels",
    )
    criterion: str = option(
        AUTO,
        "importance criterion of channels, or package.module:function; auto: by --channel-scope",
        flat_name="channel_criterion",
        left_open=AUTO,
        choices=CRITERIA,
        extra_choices=(AUTO,),
    )
    scope: str = option(
        AUTO,
        "how channel counts are chosen: one ranking, equal shares, by output error; auto: the"
        " best of these",
        flat_name="channel_scope",
        left_open=AUTO,
        choices=Choices(
            "channel scope",
            (AUTO, "global", "layer", "output_error"),
            removed={"damage": "It is called output_error now."},
        ),
        former_values={"damage": "output_error"},
    )
    round_to: int = option(
        0,
        "channels kept are a multiple of this; 0: 16, 8 or 4, finer in small layers and deep cuts",
        least=0,
        most=2**16,
        why="no layer has as many channels",
    )
    min_kept: float = option(
        0.1, "minimum share of each layer's channels to keep, in [0, 1]", unit="share"
    )
    exclude: NameList = option(
        (),
        "layer name patterns whose channels are all kept, with commas",
        flat_name="channel_exclude",
    )
    blocks: bool = option(
        False,
        "also remove whole residual blocks (depth pruning); needs --channel-scope "
        "output_error or auto",
    )
    tries: int = option(
        16,
        "number of neighbouring configurations to reconstruct and evaluate; the best one is kept",
        flat_name="channel_tries",
        least=0,
        most=10_000,
        why="each is a repair",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(0 <= self.min_kept <= 1, "min_kept", "be in [0, 1]", self.min_kept)
        if self.target is not None:
            self._check_target(self.target)
        require(
            not self.blocks or self.scope == "output_error" or self.should_compare,
            "channel_scope",
            "be output_error, or auto without a criterion, where blocks may be removed: their "
            "output error is weighed against that of channels",
            self.scope,
        )

    @property
    def is_active(self) -> bool:
        """Whether any channels are to be removed."""
        return self.target is not None and self.target != Target(1.0, relative=True)

    @property
    def should_compare(self) -> bool:
        """Whether methods are compared on held-out examples, if there are data."""
        return self.scope == self.criterion == AUTO

    @property
    def ranking_criterion(self) -> str:
        """Criterion that ranks the channels of a layer."""
        if self.criterion != AUTO:
            return self.criterion
        return "reconstruction" if self.scope == "output_error" or self.should_compare else "l2"

    def select_single_method(self) -> ChannelOptions:
        """Return options with the one method that is used when none are compared."""
        if self.scope != AUTO:
            return replace(self, criterion=self.ranking_criterion)
        # blocks can only be ranked by output error
        single = replace(self, scope="output_error" if self.blocks else "global")
        return replace(single, criterion=single.ranking_criterion)

    @staticmethod
    def _check_target(target: Target) -> None:
        """Raise an error if a target is out of range."""
        if target.relative:
            rule = "keep a share in (0, 1], like 0.5x, or be '2x smaller'"
            require(0 < target.amount <= 1, "channels", rule, target)
        else:
            rule = "be a share like 0.5x or a count like 12M"
            require(target.amount >= 1, "channels", rule, target)
