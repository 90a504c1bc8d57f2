"""Criteria: `score(group, context) -> (units,)`, higher = keep. One file each."""

from compress.core.plugins import CRITERIA
from compress.prune.channels.criteria._base import Context, Criterion, Scores, Slice, named

NEEDS_DATA = ("taylor", "activation")

__all__ = ["CRITERIA", "NEEDS_DATA", "Context", "Criterion", "Scores", "Slice", "named"]
