"""Criteria: `score(group, context) -> (units,)`, higher = keep. One file each."""

from compress.prune.channels.criteria import (
    activation,
    bn_scale,
    fpgm,
    magnitude,
    random,
    taylor,
)
from compress.prune.channels.criteria._base import (
    CRITERIA,
    Context,
    Criterion,
    Scores,
    Slice,
    named,
)

NEEDS_DATA = ("taylor", "activation")

__all__ = [
    "CRITERIA",
    "NEEDS_DATA",
    "Context",
    "Criterion",
    "Scores",
    "Slice",
    "activation",
    "bn_scale",
    "fpgm",
    "magnitude",
    "named",
    "random",
    "taylor",
]
