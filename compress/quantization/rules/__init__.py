"""Rules: how each layer is computed in whole numbers. One file a family; add yours by
`register_quantization`."""

from compress.quantization.rules import (
    activations,
    arithmetic,
    attention,
    floats,
    kernels,
    merging,
    normalization,
    pooling,
    shaping,
)
from compress.quantization.rules._base import (
    Rule,
    names,
    register_quantization,
    rule_for,
)

__all__ = [
    "Rule",
    "activations",
    "arithmetic",
    "attention",
    "floats",
    "kernels",
    "merging",
    "names",
    "normalization",
    "pooling",
    "register_quantization",
    "rule_for",
    "shaping",
]
