"""Seconds of a training epoch: keras `fit`, our loop, our loop with fused normalization.

All three train the same convolutional network (28 x 28 x 1, batch normalization after each
convolution) on the same arrays with Adam at batch 64, and validate after the epoch. They take
turns in one process; the last of three epochs is timed, so that tracing does not count.
Inputs are random: time does not depend on them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import ratio, save
from compress.data import Dataset, Preprocessing, Split
from compress.device import quiet_tensorflow, setup
from compress.plan import TrainSettings
from compress.train import loop as training

EXAMPLES, BATCH, EPOCHS, ROUNDS = 6400, 64, 3, 7


def data() -> Dataset:
    rng = np.random.default_rng(0)

    def part(count: int) -> Split:
        x = rng.integers(0, 256, (count, 28, 28, 1)).astype(np.uint8)
        return Split(x, np.arange(count) % 10)

    names = tuple(str(label) for label in range(10))
    scaling = Preprocessing(1 / 255)
    return Dataset("random", part(EXAMPLES), part(1024), part(64), names, scaling)


def network() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((28, 28, 1))
    for width, stride in ((16, 1), (16, 1), (32, 2), (64, 2)):
        x = keras.layers.Conv2D(width, 3, stride, "same", use_bias=False)(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(10)(x)))


def by_fit(dataset: Dataset) -> float:
    import keras

    seconds: list[float] = []

    class Stopwatch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.began)

    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        dataset.inputs("train"), dataset.train.y, batch_size=BATCH, epochs=EPOCHS, verbose=0,
        validation_data=(dataset.inputs("val"), dataset.val.y), validation_batch_size=1024,
        callbacks=[Stopwatch()],
    )  # fmt: skip
    return seconds[-1]


def by_loop(dataset: Dataset) -> float:
    settings = TrainSettings(epochs=EPOCHS, batch_size=BATCH, schedule="constant")
    return training.train(network(), dataset, settings, device=DEVICE).history[-1].seconds


@contextlib.contextmanager
def nothing_fused(model: Any) -> Iterator[int]:
    yield 0


def by_plain_loop(dataset: Dataset) -> float:
    with mock.patch.object(training, "fused_normalization", nothing_fused):
        return by_loop(dataset)


DEVICE = setup("cpu")


def main() -> None:
    quiet_tensorflow()
    dataset = data()
    ways: dict[str, Callable[[Dataset], float]] = {
        "fit": by_fit, "loop_plain": by_plain_loop, "loop": by_loop,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for name in order.permutation(list(ways)):
            seconds[name].append(ways[name](dataset))
    result = {
        "seconds_per_epoch": seconds,
        "examples": EXAMPLES,
        "device": DEVICE.describe(),
        "fit/loop": ratio(seconds["fit"], seconds["loop"]),
        "fit/loop_plain": ratio(seconds["fit"], seconds["loop_plain"]),
        "loop_plain/loop": ratio(seconds["loop_plain"], seconds["loop"]),
    }
    save("train_loop", result)
    for name in ("fit/loop", "fit/loop_plain", "loop_plain/loop"):
        got = result[name]
        print(f"{name}: {got['ratio']:.2f}x [{got['low']:.2f}, {got['high']:.2f}]")


if __name__ == "__main__":
    main()
