"""Shrinks a trained model to half of its multiply-accumulates, and writes files of it.

    python shrink_my_model.py [MODEL.keras] [--epochs 8]

Without MODEL a small network is trained first, on scikit-learn's digits.
"""

from __future__ import annotations

import argparse

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import paretune as pt


def trained(x, y, epochs):
    """Return a small network, trained."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", help="a .keras file for inputs of 8 x 8 x 1")
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()

    digits = load_digits()
    # a model must be judged, and chosen, on images that it has not been trained on
    x, x_test, y, y_test = train_test_split(
        digits.images[..., None] / 16, digits.target, test_size=0.2, random_state=0
    )
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, random_state=0)
    options = {"val": (x_val, y_val), "test": (x_test, y_test), "latency_budget": "10s"}
    model = keras.saving.load_model(given.model) if given.model else trained(x, y, given.epochs)

    # half of the MACs; fine-tuned with the model as it was as the teacher
    result = pt.compress_model(
        model, (x, y), channels=0.5, sparsity=0, finetune_epochs=given.epochs, **options
    )
    print(result)
    print("to ship:", result.files["int8"])
