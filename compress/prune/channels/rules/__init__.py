"""Rules, which propagate slots through each layer; one module for each family of layers.

`register_rule` adds the rule of a custom layer.
"""

from compress.prune.channels.rules import (
    arithmetic,
    attention,
    contraction,
    joining,
    kernels,
    normalization,
    recurrent,
    shaping,
    spatial,
)
from compress.prune.channels.rules._base import (
    apply_rule,
    find_rule,
    has_rule,
    list_rules,
    register_rule,
)

__all__ = [
    "list_rules",
    "apply_rule",
    "arithmetic",
    "attention",
    "contraction",
    "joining",
    "kernels",
    "has_rule",
    "normalization",
    "recurrent",
    "register_rule",
    "find_rule",
    "shaping",
    "spatial",
]
