"""10,000 training and 5,000 validation images of Fashion-MNIST: what searches are judged on.

A data source of the kind `module:function` (`--data benchmarks.fashion_small:load`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compress import load_data
from compress.data import Dataset

TRAIN, VAL = 10_000, 5_000


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
