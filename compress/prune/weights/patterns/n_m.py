"""N:M: at most N non-zero weights in every M consecutive ones along the input axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from compress.prune.weights.patterns._base import Pattern

if TYPE_CHECKING:
    from compress.prune.weights.targets import Target


@dataclass(frozen=True)
class NM(Pattern):
    """N kept of M consecutive weights along the input axis, the largest ones.

    The last M of an axis may be fewer; they keep up to N too. Of equal magnitudes the first
    is kept.

    Attributes:
        n: SkippedLayer, at least 1 and below `m`.
        m: Consecutive weights.

    Reference:
        Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", section 3. tfmot's
        `sparsity_m_by_n=(z, m)` counts zeros: it is N = m - z here.
    """

    n: int
    m: int
    decides: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """As in a plan."""
        return f"{self.n}:{self.m}"

    def check(self, target: Target) -> str:
        """Needs an input axis of at least M."""
        if target.view is None:
            return f"its kernel has no single input axis for {self.name}"
        inputs = target.view.inputs
        if inputs < self.m:
            return f"its input axis of {inputs} is shorter than the {self.m} of {self.name}"
        return ""

    def magnitudes(self, weight: Any, target: Target) -> Any:
        """Returns |w| in runs of M, (runs, M); missing ones count as zero."""
        import tensorflow as tf

        rows = target.matrix.matrices(tf.abs(weight))  # (positions, inputs, outputs)
        rows = tf.transpose(rows, (2, 0, 1))  # (outputs, positions, inputs)
        short = -target.matrix.inputs % self.m
        return tf.reshape(tf.pad(rows, ((0, 0), (0, 0), (0, short))), (-1, self.m))

    def kept(self, magnitudes: Any) -> Any:
        """Returns the N largest of each run as booleans, (runs, M)."""
        import tensorflow as tf

        _, places = tf.math.top_k(magnitudes, k=self.n, sorted=False)
        return tf.reduce_any(tf.one_hot(places, self.m, True, False, dtype=tf.bool), axis=1)

    def spread(self, kept: Any, target: Target) -> Any:
        """Returns runs as a mask of the weight's shape."""
        import tensorflow as tf

        view = target.matrix
        runs = tf.reshape(kept, (view.outputs, view.positions, -1))[:, :, : view.inputs]
        return view.weight(tf.transpose(runs, (1, 2, 0)))
