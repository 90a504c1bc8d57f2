"""Masks of kept weights, from their ranking and the share of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import tf
from compress.prune.weights.patterns import Pattern
from compress.prune.weights.targets import Target

SORTED = 1 << 15
"""Up to here sorting is as fast as counting."""
_HALF = 1 << 16
_ROW = 256


def keep_count(size: int, sparsity: Any) -> Any:
    """Return the number of `size` units that are kept, at least one, int32.

    In float32 and with ties to even, as tfmot's `Pruning._update_mask` counts.
    """
    share = 1.0 - tf.cast(sparsity, tf.float32)
    return tf.cast(tf.maximum(tf.round(tf.cast(size, tf.float32) * share), 1.0), tf.int32)


def kth_largest(magnitudes: Any, count: Any, *, jit: bool = False) -> Any:
    """Return the `count`-th largest entry, exactly.

    Args:
        magnitudes: (n,), at least 0, float32 where n is large.
        count: int32 in [1, n].
        jit: XLA compiles this: it takes half a minute for the histograms, so it sorts.
    """
    size = int(magnitudes.shape[0])
    if jit or size <= SORTED or magnitudes.dtype != tf.float32:
        return tf.sort(magnitudes)[size - count]
    # non-negative floats are ordered as their bits: count by the upper, then by the lower half
    # (tf.math.bincount has a shape that XLA does not know)
    bits, counts = tf.bitcast(magnitudes, tf.int32), tf.raw_ops.DenseBincount
    upper, lower = tf.bitwise.right_shift(bits, 16), tf.bitwise.bitwise_and(bits, _HALF - 1)
    high, above = _bin(counts(input=upper, size=_HALF, weights=tf.ones((0,), tf.int32)), count)
    inside = tf.cast(tf.equal(upper, high), tf.int32)
    low, _ = _bin(counts(input=lower, size=_HALF, weights=inside), count - above)
    return tf.bitcast(tf.bitwise.left_shift(high, 16) + low, tf.float32)


def _bin(counts: Any, rank: Any) -> tuple[Any, Any]:
    """Return the bin that holds the `rank`-th largest, and how many lie in bins above.

    First the row of 256 bins, then the bin: XLA fuses long cumulative sums into everything
    behind them.
    """
    rows = tf.reshape(counts, (-1, _ROW))
    row, above = _last_reaching(tf.reduce_sum(rows, axis=1), rank, 0)
    place, above = _last_reaching(rows[row], rank, above)
    return row * _ROW + place, above


def _last_reaching(counts: Any, rank: Any, above: Any) -> tuple[Any, Any]:
    """Return the last place at and behind which (with `above` more) `rank` entries lie."""
    from_top = tf.cumsum(counts, reverse=True) + above
    chosen = tf.reduce_sum(tf.cast(from_top >= rank, tf.int32)) - 1
    return chosen, from_top[chosen] - counts[chosen]


def running_sum(values: Any) -> Any:
    """Return the sums of the first 1, 2, ... n entries, (n,).

    In rows, and the rows' totals likewise: XLA's cumulative sum on a CPU takes quadratic time.
    """
    size = int(values.shape[0])
    if size <= _ROW:
        return tf.cumsum(values)
    rows = tf.reshape(tf.pad(values, ((0, -size % _ROW),)), (-1, _ROW))
    inside = tf.cumsum(rows, axis=1)
    totals = inside[:, -1]
    before = running_sum(totals) - totals
    return tf.reshape(inside + before[:, tf.newaxis], (-1,))[:size]


def of_layer(magnitudes: Any, sparsity: Any, *, jit: bool = False) -> Any:
    """Return the mask of one layer's kept units: those at least as large as the k-th largest.

    Units that tie with the k-th largest all stay.

    Args:
        magnitudes: Of the units, any shape.
        sparsity: Share of zeros, in [0, 1).
        jit: XLA compiles this.

    Returns:
        Booleans of the magnitudes' shape.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", section 3; tfmot 0.8.1's
        `Pruning._update_mask`, bit by bit.
    """
    flat = tf.reshape(magnitudes, (-1,))
    return magnitudes >= kth_largest(flat, keep_count(int(flat.shape[0]), sparsity), jit=jit)


def exactly(magnitudes: Sequence[Any], count: Any, *, jit: bool = False) -> list[Any]:
    """Return the masks of several layers' kept units: the `count` largest of all together.

    Of units that tie with the smallest that stays, the first stay: in the order of the
    layers, then in the order in which a weight's entries lie in memory.

    Args:
        magnitudes: One tensor a layer, any shapes.
        count: int32, at least 1.
        jit: XLA compiles this.

    Returns:
        Booleans of the magnitudes' shapes.
    """
    flat = tf.concat([tf.reshape(part, (-1,)) for part in magnitudes], axis=0)
    threshold = kth_largest(flat, count, jit=jit)
    larger, equal = flat > threshold, tf.equal(flat, threshold)
    room = count - tf.reduce_sum(tf.cast(larger, tf.int32))
    kept = larger | (equal & (running_sum(tf.cast(equal, tf.int32)) <= room))
    parts = tf.split(kept, [part.shape.num_elements() for part in magnitudes])
    return [tf.reshape(part, whole.shape) for part, whole in zip(parts, magnitudes, strict=True)]


class Ranking:
    """Ranking of weights, and the masks of those that are kept.

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

    def masks(self, weights: Sequence[Any], sparsity: Any, *, jit: bool = False) -> list[Any]:
        """Return booleans of the weights' shapes: True stays (graph code).

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
        sparsity = tf.cast(sparsity, tf.float32)
        kept: list[Any] = [None] * len(magnitudes)
        together = self._free if self._scope == "global" else []
        for place, part in enumerate(magnitudes):
            if place in together:
                continue
            share = self._share(place, sparsity)
            if self._scope == "layer":
                kept[place] = of_layer(part, share, jit=jit)
            else:
                count = keep_count(part.shape.num_elements(), share)
                (kept[place],) = exactly([part], count, jit=jit)
        if together:
            units = [magnitudes[place] for place in together]
            size = sum(part.shape.num_elements() for part in units)
            floor = sum(
                self._floors[place] * part.shape.num_elements()
                for place, part in zip(together, units, strict=True)
            )
            share = tf.maximum(sparsity, floor / size)
            for place, part in zip(
                together, exactly(units, keep_count(size, share), jit=jit), strict=True
            ):
                kept[place] = part
        return kept

    def _share(self, place: int, sparsity: Any) -> Any:
        """Return a target's own sparsity when the schedule's is `sparsity`."""
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
