"""Rules, which follow slots through each layer. One file a family; `register_rule` adds yours."""

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
    all_rules,
    apply,
    known,
    names,
    register_rule,
    rule_for,
)

__all__ = [
    "all_rules",
    "apply",
    "arithmetic",
    "attention",
    "contraction",
    "joining",
    "kernels",
    "known",
    "names",
    "normalization",
    "recurrent",
    "register_rule",
    "rule_for",
    "shaping",
    "spatial",
]
