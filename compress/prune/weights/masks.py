"""Masks of kept weights, computed from magnitudes and the sparsity of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.lazy_modules import tf
from compress.prune.weights.patterns import NMPattern, Pattern
from compress.prune.weights.targets import Target

SORTED = 1 << 15
"""Size up to which sorting is as fast as counting."""
_HALF = 1 << 16
_ROW = 256


def count_kept(size: int, sparsity: Any) -> Any:
    """Return the number of `size` units that are kept, at least one, as int32.

    It is computed in float32 with ties rounded to even, as in tfmot's `Pruning._update_mask`.
    """
    share = 1.0 - tf.cast(sparsity, tf.float32)
    return tf.cast(tf.maximum(tf.round(tf.cast(size, tf.float32) * share), 1.0), tf.int32)


def find_kth_largest(magnitudes: Any, count: Any, *, jit: bool = False) -> Any:
    """Return the exact `count`-th largest entry.

    Args:
        magnitudes: Non-negative values, (n,); sorted if they are not float32 or n is small.
        count: int32 in [1, n].
        jit: Whether XLA compiles this. Compiling the histograms takes half a minute, so the entries
            are sorted instead.
    """
    size = int(magnitudes.shape[0])
    if jit or size <= SORTED or magnitudes.dtype != tf.float32:
        return tf.sort(magnitudes)[size - count]
    # non-negative floats have the order of their bits: count by the upper half, then by the lower
    # (XLA cannot infer the shape of tf.math.bincount)
    bits, counts = tf.bitcast(magnitudes, tf.int32), tf.raw_ops.DenseBincount
    upper, lower = tf.bitwise.right_shift(bits, 16), tf.bitwise.bitwise_and(bits, _HALF - 1)
    high, above = _find_bin(counts(input=upper, size=_HALF, weights=tf.ones((0,), tf.int32)), count)
    inside = tf.cast(tf.equal(upper, high), tf.int32)
    low, _ = _find_bin(counts(input=lower, size=_HALF, weights=inside), count - above)
    return tf.bitcast(tf.bitwise.left_shift(high, 16) + low, tf.float32)


def _find_bin(counts: Any, rank: Any) -> tuple[Any, Any]:
    """Return the bin of the `rank`-th largest entry, and the number of entries in higher bins.

    The row of 256 bins is found first, then the bin, because XLA fuses long cumulative sums into
    everything that follows them.
    """
    rows = tf.reshape(counts, (-1, _ROW))
    row, above = _find_last_reaching(tf.reduce_sum(rows, axis=1), rank, 0)
    column, above = _find_last_reaching(rows[row], rank, above)
    return row * _ROW + column, above


def _find_last_reaching(counts: Any, rank: Any, above: Any) -> tuple[Any, Any]:
    """Return the last bin with at least `rank` entries in it and after it, and those after it.

    The `above` entries, which are larger than all in `counts`, count as entries after the last bin.
    """
    from_top = tf.cumsum(counts, reverse=True) + above
    chosen = tf.reduce_sum(tf.cast(from_top >= rank, tf.int32)) - 1
    return chosen, from_top[chosen] - counts[chosen]


def compute_running_sum(values: Any) -> Any:
    """Return the cumulative sum, (n,).

    It is computed in rows, and recursively over the totals of the rows: XLA's cumulative sum takes
    quadratic time on a CPU.
    """
    size = int(values.shape[0])
    if size <= _ROW:
        return tf.cumsum(values)
    rows = tf.reshape(tf.pad(values, ((0, -size % _ROW),)), (-1, _ROW))
    inside = tf.cumsum(rows, axis=1)
    totals = inside[:, -1]
    before = compute_running_sum(totals) - totals
    return tf.reshape(inside + before[:, tf.newaxis], (-1,))[:size]


def compute_layer_mask(magnitudes: Any, sparsity: Any, *, jit: bool = False) -> Any:
    """Return the mask of one layer's kept units: those at least as large as the k-th largest.

    All units that are equal to the k-th largest are kept.

    Args:
        magnitudes: Magnitudes of the units, any shape.
        sparsity: Share of zeros, in [0, 1).
        jit: Whether XLA compiles this.

    Returns:
        Booleans of the magnitudes' shape.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", section 3; tfmot 0.8.1's
        `Pruning._update_mask`, bit by bit.
    """
    flat = tf.reshape(magnitudes, (-1,))
    return magnitudes >= find_kth_largest(flat, count_kept(int(flat.shape[0]), sparsity), jit=jit)


def compute_exact_masks(magnitudes: Sequence[Any], count: Any, *, jit: bool = False) -> list[Any]:
    """Return the masks of several layers' kept units: the `count` largest of all together.

    If several units are equal to the smallest kept one, the first ones are kept, in the order of
    the layers and then in memory order.

    Args:
        magnitudes: One tensor for each layer, any shapes.
        count: Number of kept units, int32, at least 1.
        jit: Whether XLA compiles this.

    Returns:
        Booleans of the magnitudes' shapes.
    """
    flat = tf.concat([tf.reshape(part, (-1,)) for part in magnitudes], axis=0)
    threshold = find_kth_largest(flat, count, jit=jit)
    larger, equal = flat > threshold, tf.equal(flat, threshold)
    tie_count = count - tf.reduce_sum(tf.cast(larger, tf.int32))
    kept = larger | (equal & (compute_running_sum(tf.cast(equal, tf.int32)) <= tie_count))
    parts = tf.split(kept, [part.shape.num_elements() for part in magnitudes])
    return [tf.reshape(part, whole.shape) for part, whole in zip(parts, magnitudes, strict=True)]


class Ranking:
    """Ranking of weights, from which the masks of kept weights are computed.

    Args:
        targets: Weights to prune.
        pattern: Pattern of units that are kept or removed together.
        scope: "layer", "global" or "erk".
        final: Final sparsity of the schedule, in [0, 1). Overrides and ERK's ratios are reached in
            proportion to it.
        floors: Initial share of zeros of each target; masks never have fewer zeros (in the scope
            "global": all targets together). N:M patterns ignore it.

    Attributes:
        final_sparsities: Final sparsity of each target, (targets,).
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
        self._free = [index for index, t in enumerate(targets) if t.sparsity is None]
        final_sparsities = np.array(
            [final if t.sparsity is None else t.sparsity for t in targets], float
        )
        if scope == "erk" and self._free:
            shapes = [tuple(targets[index].variable.shape) for index in self._free]
            final_sparsities[self._free] = compute_erk_sparsities(shapes, final)
        self.final_sparsities = final_sparsities

    def compute_masks(
        self, weights: Sequence[Any], sparsity: Any, *, jit: bool = False
    ) -> list[Any]:
        """Return booleans of the weights' shapes, True for kept weights; can run in a graph.

        Args:
            weights: Current values, in the order of the targets.
            sparsity: Current sparsity of the schedule, a scalar.
            jit: Whether XLA compiles this.
        """
        pairs = list(zip(weights, self._targets, strict=True))
        magnitudes = [self._pattern.compute_magnitudes(weight, target) for weight, target in pairs]
        if isinstance(self._pattern, NMPattern):
            kept = [self._pattern.select_kept(part) for part in magnitudes]
        else:
            kept = self._rank_units(magnitudes, sparsity, jit)
        return [
            self._pattern.expand_mask(part, target)
            for part, target in zip(kept, self._targets, strict=True)
        ]

    def _rank_units(self, magnitudes: list[Any], sparsity: Any, jit: bool) -> list[Any]:
        sparsity = tf.cast(sparsity, tf.float32)
        kept: list[Any] = [None] * len(magnitudes)
        together = self._free if self._scope == "global" else []
        for index, part in enumerate(magnitudes):
            if index in together:
                continue
            share = self._compute_share(index, sparsity)
            if self._scope == "layer":
                kept[index] = compute_layer_mask(part, share, jit=jit)
            else:
                count = count_kept(part.shape.num_elements(), share)
                (kept[index],) = compute_exact_masks([part], count, jit=jit)
        if together:
            units = [magnitudes[index] for index in together]
            size = sum(part.shape.num_elements() for part in units)
            floor = sum(
                self._floors[index] * part.shape.num_elements()
                for index, part in zip(together, units, strict=True)
            )
            share = tf.maximum(sparsity, floor / size)
            for index, part in zip(
                together,
                compute_exact_masks(units, count_kept(size, share), jit=jit),
                strict=True,
            ):
                kept[index] = part
        return kept

    def _compute_share(self, index: int, sparsity: Any) -> Any:
        """Return the sparsity of a target for the current sparsity of the schedule."""
        final_sparsity, floor = float(self.final_sparsities[index]), self._floors[index]
        # the quotient is skipped if it is 1: s * f / f is not always s
        share = (
            sparsity
            if final_sparsity == self._final
            else sparsity * np.float32(final_sparsity / self._final)
        )
        return tf.maximum(share, np.float32(floor)) if floor else share


def compute_erk_sparsities(
    shapes: Sequence[tuple[int, ...]], sparsity: float
) -> npt.NDArray[np.float64]:
    """Return the sparsity of each layer by the Erdos-Renyi-Kernel rule, (layers,).

    The density of a layer is proportional to the sum of its kernel's sizes over their product, so
    small layers are denser. A layer whose density would exceed 1 is not pruned, and the other
    layers compensate for it.

    Args:
        shapes: Shapes of the kernels.
        sparsity: Sparsity of all kernels together, in [0, 1).

    Reference:
        Evci et al. 2020, "Rigging the Lottery", section 3 (Mocanu et al. 2018 for matrices).
    """
    sizes = np.array([np.prod(shape) for shape in shapes], float)
    densities = np.array([np.sum(shape) for shape in shapes], float) / sizes
    unpruned = np.zeros(len(shapes), bool)
    budget = (1.0 - sparsity) * sizes.sum()
    while not unpruned.all():
        pruned = ~unpruned
        factor = (
            max(0.0, budget - sizes[unpruned].sum()) / (densities[pruned] * sizes[pruned]).sum()
        )
        exceeds_one = pruned & (densities * factor > 1.0)
        if not exceeds_one.any():
            return np.where(unpruned, 0.0, 1.0 - densities * factor)
        unpruned |= exceeds_one
    return np.zeros(len(shapes))
