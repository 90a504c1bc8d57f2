"""Criteria: `score(group, context) -> (units,)`, higher = keep."""

from compress.plugins import CRITERIA
from compress.prune.channels.criteria._base import Context, Criterion, Scores, Slice, named

NEEDS_DATA = ("taylor", "activation", "reconstruction")
WITHOUT_LABELS = ("l1", "l2", "bn_scale", "fpgm", "activation", "reconstruction", "random")
"""Those of ours that look at no labels; what others look at is not known."""

__all__ = [
    "CRITERIA",
    "NEEDS_DATA",
    "WITHOUT_LABELS",
    "Context",
    "Criterion",
    "Scores",
    "Slice",
    "named",
]
