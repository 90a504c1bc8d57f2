"""Patterns of weight pruning, one file each; `pattern_of` reads a plan."""

from __future__ import annotations

from compress.plan import WeightOptions
from compress.prune.weights.patterns._base import Pattern
from compress.prune.weights.patterns.block import Block
from compress.prune.weights.patterns.n_m import NM
from compress.prune.weights.patterns.unstructured import Unstructured

__all__ = ["NM", "Block", "Pattern", "Unstructured", "pattern_of"]


def pattern_of(options: WeightOptions) -> Pattern:
    """Returns the pattern that a plan names."""
    named = options.pattern
    if named.kind == "n:m":
        return NM(named.first, named.second)
    if named.kind == "block":
        return Block(named.first, named.second, options.pooling)
    return Unstructured()
