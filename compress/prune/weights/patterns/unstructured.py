"""Unstructured: every weight stands alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.prune.weights.patterns._base import Pattern

if TYPE_CHECKING:
    from compress.prune.weights.targets import Target


class Unstructured(Pattern):
    """Single weights, by |w|."""

    @property
    def name(self) -> str:
        """As in a plan."""
        return "unstructured"

    def check(self, target: Target) -> str:
        """Fits every kernel."""
        return ""

    def magnitudes(self, weight: Any, target: Target) -> Any:
        """Returns |w|, in the weight's shape."""
        import tensorflow as tf

        return tf.abs(weight)

    def spread(self, kept: Any, target: Target) -> Any:
        """Returns the mask as it is."""
        return kept
