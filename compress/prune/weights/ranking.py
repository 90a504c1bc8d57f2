"""New masks for all targets at once: the pattern's units ranked within a layer or together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.prune.weights import masks
from compress.prune.weights.patterns import Pattern
from compress.prune.weights.targets import Target


class Ranking:
    """Chooses which weights stay.

    Args:
        targets: What is pruned.
        pattern: How.
        scope: "layer", "global" or "erk".
        final: The sparsity that the schedule comes to; overrides and ERK's ratios are reached
            in proportion to it.
        floors: Share of zeros that each target began with: masks are never denser.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        pattern: Pattern,
        scope: str,
        final: float,
        floors: Sequence[float],
    ) -> None:
        self._targets, self._pattern, self._scope = targets, pattern, scope
        self._floors, self._final = floors, final
        self._free = [place for place, t in enumerate(targets) if t.sparsity is None]
        own = np.array([final if t.sparsity is None else t.sparsity for t in targets], float)
        if scope == "erk" and self._free:
            shapes = [tuple(targets[place].variable.shape) for place in self._free]
            own[self._free] = erk(shapes, final)
        self.final = own

    def begun(self, place: int) -> bool:
        """Tells whether a target began with zeros that stay."""
        return self._floors[place] > 0

    def masks(self, weights: Sequence[Any], sparsity: Any, *, jit: bool = False) -> list[Any]:
        """Returns booleans of the weights' shapes: True stays (graph code).

        Args:
            weights: Current values, in the order of the targets.
            sparsity: The schedule's, a scalar.
            jit: XLA compiles this.
        """
        pairs = list(zip(weights, self._targets, strict=True))
        magnitudes = [self._pattern.magnitudes(weight, target) for weight, target in pairs]
        if self._pattern.decides:
            kept = [self._pattern.kept(part) for part in magnitudes]
        else:
            kept = self._ranked(magnitudes, sparsity, jit)
        return [
            self._pattern.spread(part, target)
            for part, target in zip(kept, self._targets, strict=True)
        ]

    def _ranked(self, magnitudes: list[Any], sparsity: Any, jit: bool) -> list[Any]:
        import tensorflow as tf

        sparsity = tf.cast(sparsity, tf.float32)
        kept: list[Any] = [None] * len(magnitudes)
        together = self._free if self._scope == "global" else []
        for place, part in enumerate(magnitudes):
            if place in together:
                continue
            share = self._share(place, sparsity)
            if self._scope == "layer":
                kept[place] = masks.of_layer(part, share, jit=jit)
            else:
                count = masks.keep_count(part.shape.num_elements(), share)
                (kept[place],) = masks.exactly([part], count, jit=jit)
        if together:
            units = [magnitudes[place] for place in together]
            size = sum(part.shape.num_elements() for part in units)
            floor = sum(
                self._floors[place] * part.shape.num_elements()
                for place, part in zip(together, units, strict=True)
            )
            share = tf.maximum(sparsity, floor / size)
            for place, part in zip(
                together, masks.exactly(units, masks.keep_count(size, share), jit=jit), strict=True
            ):
                kept[place] = part
        return kept

    def _share(self, place: int, sparsity: Any) -> Any:
        """Returns a target's own sparsity when the schedule's is `sparsity`."""
        import tensorflow as tf

        own, floor = float(self.final[place]), self._floors[place]
        # no factor where there is none: s * f / f is not always s
        share = sparsity if own == self._final else sparsity * np.float32(own / self._final)
        return tf.maximum(share, np.float32(floor)) if floor else share


def erk(shapes: Sequence[tuple[int, ...]], sparsity: float) -> npt.NDArray[np.float64]:
    """Return each layer's sparsity by the Erdos-Renyi-Kernel rule, (layers,).

    A layer's density is proportional to the sum of its kernel's sizes over their product, so
    that small layers stay denser. Layers whose density would exceed 1 stay dense, and the
    others make up for them.

    Args:
        shapes: Of the kernels.
        sparsity: Of all kernels together, in [0, 1).

    Reference:
        Evci et al. 2020, "Rigging the Lottery", section 3 (Mocanu et al. 2018 for matrices).
    """
    sizes = np.array([np.prod(shape) for shape in shapes], float)
    raw = np.array([np.sum(shape) for shape in shapes], float) / sizes
    dense = np.zeros(len(shapes), bool)
    budget = (1.0 - sparsity) * sizes.sum()
    while not dense.all():
        free = ~dense
        factor = max(0.0, budget - sizes[dense].sum()) / (raw[free] * sizes[free]).sum()
        over = free & (raw * factor > 1.0)
        if not over.any():
            return np.where(dense, 0.0, 1.0 - raw * factor)
        dense |= over
    return np.zeros(len(shapes))
