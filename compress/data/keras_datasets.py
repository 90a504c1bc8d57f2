"""Image sets by name: those of `keras.datasets` and scikit-learn's digits."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from compress.core.errors import InputError
from compress.data import idx
from compress.data.parts import RawData, Split, as_examples, as_labels

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

_CLASS_NAMES = {
    "fashion_mnist": "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    "cifar10": "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck",
}


def load(source: str) -> RawData:
    """Returns a data set of `keras.datasets` with its own test part.

    `fashion_mnist` is read from the files of Debian's package dataset-fashion-mnist
    where they are installed, which needs no network.

    Raises:
        InputError: Neither cached nor to be downloaded.
    """
    names = tuple(_CLASS_NAMES[source].split(",")) if source in _CLASS_NAMES else None
    if source == "fashion_mnist" and DEBIAN_FASHION_MNIST.is_dir():
        raw = idx.load(str(DEBIAN_FASHION_MNIST))
        return RawData(raw.train, test=raw.test, class_names=names, max_value=255.0)
    module = importlib.import_module(f"keras.datasets.{source}")
    try:
        train, test = (
            Split(as_examples(x, f"{source} x"), as_labels(y, f"{source} y"))
            for x, y in module.load_data()
        )
    except Exception as error:  # keras wraps every network failure in a bare Exception
        raise InputError(
            f"Data set '{source}' must be in Keras's cache or downloadable "
            f"({str(error).splitlines()[0]}). Give a folder or an .npz file with --data instead."
        ) from None
    return RawData(train, test=test, class_names=names, max_value=255.0)


def read_digits(_source: str) -> RawData:
    """Returns the digits, one part, pixel values 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[..., np.newaxis]  # (1797, 8, 8, 1)
    return RawData(Split(images, bunch.target.astype(np.int64)), max_value=16.0)
