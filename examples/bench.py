"""Times a model against a smaller one, on LiteRT and TensorFlow.

python bench.py [--runtimes litert,tensorflow] [--budget 5]
"""

from __future__ import annotations

import argparse

import keras

import paretune as pt


def network(width, name):
    """Return an untrained network: its latency does not depend on training."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(width, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(2 * width, 3, strides=2, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ],
        name=name,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtimes", default="litert,tensorflow")
    parser.add_argument("--budget", type=float, default=5, help="seconds of timing")
    given = parser.parse_args()

    big, small = network(32, "big"), network(16, "small")
    result = pt.bench(
        [big, small],  # or .keras, .tflite and .onnx files
        runtimes=given.runtimes.split(","),
        compare=["big", "small"],
        threads=[1, 2],
        budget=given.budget,
    )
    print(result)
    for verdict in result.verdicts():  # is small faster than big, and by how much
        print(verdict)
