"""Seconds of a training epoch: keras `fit`, our loop, our loop with fused normalization.

    python -m benchmarks.train_loop [--rounds 10]

All three train the same convolutional network (28 x 28 x 1, batch normalization after each
convolution) on the same arrays with Adam at batch 64, and validate after the epoch. They take
turns in one process; the last of three epochs is timed, so that tracing does not count.
Inputs are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, ratio, table, told_ratio
from benchmarks._stored import Stored
from compress.core.device import Device, quiet_tensorflow, setup
from compress.data import Dataset, Preprocessing, Split
from compress.plan import TrainSettings
from compress.train import loop as training

EXAMPLES, BATCH, EPOCHS = 6400, 64, 3


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


def by_fit(dataset: Dataset, device: Device) -> float:
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


def by_loop(dataset: Dataset, device: Device) -> float:
    settings = TrainSettings(epochs=EPOCHS, batch_size=BATCH, schedule="constant")
    return training.train(network(), dataset, settings, device=device).history[-1].seconds


@contextlib.contextmanager
def nothing_fused(model: Any) -> Iterator[int]:
    yield 0


def by_plain_loop(dataset: Dataset, device: Device) -> float:
    with mock.patch.object(training, "fused_normalization", nothing_fused):
        return by_loop(dataset, device)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Times the ways in turns."""
    quiet_tensorflow()
    device, dataset = setup("cpu"), data()
    ways: dict[str, Callable[[Dataset, Device], float]] = {
        "fit": by_fit, "loop_plain": by_plain_loop, "loop": by_loop,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = np.random.default_rng(0)
    for _ in range(given.rounds):
        for name in order.permutation(list(ways)):
            seconds[name].append(ways[name](dataset, device))
    result = {
        "seconds_per_epoch": seconds,
        "examples": EXAMPLES,
        "device": device.describe(),
        "fit/loop": ratio(seconds["fit"], seconds["loop"]),
        "fit/loop_plain": ratio(seconds["fit"], seconds["loop_plain"]),
        "loop_plain/loop": ratio(seconds["loop_plain"], seconds["loop"]),
    }
    stored.save(**result)


def epoch(result: dict[str, Any]) -> str:
    """Ratios of the seconds of an epoch."""
    labels = {
        "fit/loop": "Keras `fit`, validating in batches of 1,024 / paretune's loop",
        "fit/loop_plain": "the same / the loop without fused normalization",
        "loop_plain/loop": "the loop without / with fused normalization",
    }
    return table(["an epoch", "old/new time"],
                 [[label, told_ratio(result[key])] for key, label in labels.items()])  # fmt: skip


BENCHMARK = Benchmark("train_loop", __doc__, run, {"epoch": epoch}, arguments)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
