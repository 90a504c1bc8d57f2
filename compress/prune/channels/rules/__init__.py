"""Rules: what each layer does to slots. One file a family; `register_rule` adds yours."""

from compress.prune.channels.rules import (
    activation,
    applications,
    convolution,
    dense,
    merging,
    normalization,
    shaping,
    spatial,
)
from compress.prune.channels.rules._base import Rule, apply, known, names, register_rule, rule_for

__all__ = [
    "Rule",
    "activation",
    "applications",
    "apply",
    "convolution",
    "dense",
    "known",
    "merging",
    "names",
    "normalization",
    "register_rule",
    "rule_for",
    "shaping",
    "spatial",
]
