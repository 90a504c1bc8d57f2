"""10,000 training and 5,000 validation images of Fashion-MNIST: what searches are judged on.

A data source of the kind `module:function` (`--data benchmarks.fashion_small:load`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compress import load_data
from compress.data import Dataset, Split

TRAIN, VAL = 10_000, 5_000
FEW, FEW_VAL = 3_000, 3_000


def load() -> Dataset:
    """Returns the data set; which examples it holds never changes."""
    whole = load_data("fashion_mnist", seed=0)
    # the split is shuffled and stratified already: the first ones are a sample of each part
    return replace(
        whole,
        name="fashion_small",
        train=whole.train.take(np.arange(TRAIN)),
        val=whole.val.take(np.arange(VAL)),
        notes=(*whole.notes, f"{TRAIN:,} training and {VAL:,} validation images"),
    )


def few() -> Dataset:
    """Returns the first 3,000 training and validation images of `load`."""
    whole = load()
    return replace(
        whole,
        name="fashion_few",
        train=whole.train.take(np.arange(FEW)),
        val=whole.val.take(np.arange(FEW_VAL)),
    )


def rotated() -> Dataset:
    """Returns another 3,000 training images and 2,000 to validate, turned by 90 degrees."""
    whole = load()

    def turned(part: Split, rows: slice) -> Split:
        index = np.arange(len(part))[rows]
        chosen = part.take(index)
        return replace(chosen, x=np.ascontiguousarray(np.rot90(chosen.x, axes=(1, 2))))

    return replace(
        whole,
        name="fashion_rotated",
        train=turned(whole.train, slice(FEW, 2 * FEW)),
        val=turned(whole.val, slice(FEW_VAL, None)),
        test=turned(whole.test, slice(None)),
    )
