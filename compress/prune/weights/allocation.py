"""How a sparsity is shared out among layers: the same for all, or by the layers' shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def erk(shapes: Sequence[tuple[int, ...]], sparsity: float) -> npt.NDArray[np.float64]:
    """Returns each layer's sparsity by the Erdos-Renyi-Kernel rule, (layers,).

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
