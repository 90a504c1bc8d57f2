"""Trains a small network twice: from labels alone, and with a bigger network as its teacher.

python distil.py [--epochs 15]
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import paretune as pt


def network(width):
    """Return a small convolutional network that ends in logits."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(width, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=15)
    epochs = parser.parse_args().epochs

    digits = load_digits()
    x, x_test, y, y_test = train_test_split(
        digits.images[..., None] / 16, digits.target, test_size=0.2, random_state=0
    )
    # the teacher must not have been trained on what chooses the students' epochs
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, random_state=0)
    teacher = network(32)
    teacher.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(x, y, epochs=epochs, verbose=0)

    # weight is the teacher's share of the loss: the same training without and with it
    recipe = {"val": (x_val, y_val), "epochs": epochs, "batch_size": 32, "temperature": 4}
    alone = pt.distill(network(8), teacher, (x, y), weight=0, **recipe)
    taught = pt.distill(network(8), teacher, (x, y), weight=0.7, **recipe)
    print(taught)
    models = {"teacher": teacher, "labels": alone.model, "taught": taught.model}
    for name, model in models.items():
        right = np.mean(model.predict(x_test, verbose=0).argmax(1) == y_test)
        print(f"{name:8} {pt.count_macs(model).macs:10,} MACs, {right:.1%} of the test images")
