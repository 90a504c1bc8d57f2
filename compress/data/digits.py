"""scikit-learn's digits: 1,797 grey images of 8 x 8 pixels, part of the package itself."""

from __future__ import annotations

import numpy as np

from compress.data.parts import RawData, Split


def load(_source: str) -> RawData:
    """Returns the digits, one part, pixel values 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[..., np.newaxis]  # (1797, 8, 8, 1)
    return RawData(Split(images, bunch.target.astype(np.int64)), max_value=16.0)
