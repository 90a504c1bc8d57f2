"""Channel criteria: functions (group, context) -> (units,) scores, higher = keep."""

from compress.plugins import CRITERIA
from compress.prune.channels.criteria._base import (
    Context,
    Criterion,
    Scores,
    Slice,
    resolve_criterion,
)

NEEDS_DATA = ("taylor", "activation", "reconstruction")  # built-in ones
WITHOUT_LABELS = ("l1", "l2", "activation", "reconstruction", "random")
"""Built-in criteria that need no labels; custom criteria may need them."""

__all__ = [
    "CRITERIA",
    "NEEDS_DATA",
    "WITHOUT_LABELS",
    "Context",
    "Criterion",
    "Scores",
    "Slice",
    "resolve_criterion",
]
