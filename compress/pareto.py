"""Non-domination: which of several trade-offs form the front."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def front_mask(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Marks the rows that no other row dominates.

    A row dominates another when it is nowhere worse and somewhere better. Of equal rows
    all are marked.

    Args:
        losses: (n, objectives), lower is better.

    Returns:
        (n,), True on the front.
    """
    # (n, n): does row i dominate row j?
    no_worse = (losses[:, np.newaxis, :] <= losses[np.newaxis, :, :]).all(axis=-1)
    better = (losses[:, np.newaxis, :] < losses[np.newaxis, :, :]).any(axis=-1)
    return np.asarray(~(no_worse & better).any(axis=0), np.bool_)
