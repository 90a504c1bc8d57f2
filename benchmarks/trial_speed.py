"""Seconds of one trial: Keras `fit`, a minimal loop written by hand, and paretune's loop.

A trial is 8 epochs on 10,000 images of Fashion-MNIST with 5,000 to validate after each, from
building the model on, on one core; three candidates of the space `cnn`. All three train the
same model with Adam at batch 64 and take turns in one process, in random order. The minimal
loop is what a user writes to go without `fit`: one compiled step with NumPy batches, validation
in batches of 1,000. Also shown: the share of the core that stands idle meanwhile.

    python -m benchmarks.trial_speed [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import ratio, save
from benchmarks.fashion_small import load
from compress.data import Dataset
from compress.device import Device, quiet_tensorflow, setup
from compress.measure import count_macs
from compress.plan import TrainSettings
from compress.train import train
from search.spaces import SPACES

EPOCHS, BATCH = 8, 64
SMALL = {
    "stages": 2, "residual": False, "stem.width": 8, "stem.stride": 2, "stage1.width": 8,
    "stage1.blocks": 1, "stage1.kind": "separable", "stage1.kernel": 3, "stage2.width": 16,
    "stage2.blocks": 1, "stage2.kind": "separable", "stage2.kernel": 3, "dropout": 0.0,
}  # fmt: skip
MEDIUM = {
    "stages": 2, "residual": True, "stem.width": 16, "stem.stride": 2, "stage1.width": 16,
    "stage1.blocks": 1, "stage1.kind": "plain", "stage2.width": 32, "stage2.blocks": 1,
    "stage2.kind": "plain", "dropout": 0.0,
}  # fmt: skip
LARGE = {
    "stages": 3, "residual": True, "stem.width": 16, "stem.stride": 2, "stage1.width": 24,
    "stage1.blocks": 1, "stage1.kind": "plain", "stage2.width": 32, "stage2.blocks": 2,
    "stage2.kind": "plain", "stage3.width": 64, "stage3.blocks": 1, "stage3.kind": "plain",
    "dropout": 0.0,
}  # fmt: skip
CANDIDATES = {"small": SMALL, "medium": MEDIUM, "large": LARGE}


def build(choices: dict[str, Any], data: Dataset) -> Any:
    import keras
    import optuna

    keras.utils.set_random_seed(0)
    return SPACES["cnn"].build(optuna.trial.FixedTrial(choices), data)


def by_fit(choices: dict[str, Any], data: Dataset, device: Device) -> float:
    model = build(choices, data)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        data.inputs("train"), data.train.y, batch_size=BATCH, epochs=EPOCHS, verbose=0,
        validation_data=(data.inputs("val"), data.val.y),
    )  # fmt: skip
    return float(max(history.history["val_accuracy"]))


def by_hand(choices: dict[str, Any], data: Dataset, device: Device) -> float:
    import keras
    import tensorflow as tf

    model = build(choices, data)
    optimizer = keras.optimizers.Adam()
    loss_of = keras.losses.SparseCategoricalCrossentropy()
    x, y = data.inputs("train"), data.train.y
    val_x, val_y = data.inputs("val"), data.val.y
    rng = np.random.default_rng(0)

    @tf.function(reduce_retracing=True)
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        return loss

    predict = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    best = 0.0
    for _ in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            step(tf.constant(x[rows]), tf.constant(y[rows]))
        found = [
            predict(tf.constant(val_x[start : start + 1000])).numpy().argmax(-1)
            for start in range(0, len(val_x), 1000)
        ]
        best = max(best, float((np.concatenate(found) == val_y).mean()))
    return best


def by_ours(choices: dict[str, Any], data: Dataset, device: Device) -> float:
    settings = TrainSettings(epochs=EPOCHS, batch_size=BATCH, schedule="constant")
    return train(build(choices, data), data, settings, device=device).val["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.sched_setaffinity(0, {0})
    quiet_tensorflow()
    device, data = setup("cpu", 1), load()
    data.inputs("train")
    ways: dict[str, Callable[..., float]] = {"fit": by_fit, "hand": by_hand, "ours": by_ours}
    rng = np.random.default_rng(0)
    results = {}
    for name, choices in CANDIDATES.items():
        macs = count_macs(build(choices, data)).macs
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        idle: dict[str, list[float]] = {way: [] for way in ways}
        accuracy: dict[str, float] = {}
        for _ in range(rounds):
            for way in rng.permutation(list(ways)):
                wall, busy = time.perf_counter(), time.process_time()
                accuracy[way] = ways[way](choices, data, device)
                wall, busy = time.perf_counter() - wall, time.process_time() - busy
                seconds[way].append(wall)
                idle[way].append(max(0.0, 1 - busy / wall))
        # new/old: ours as a share of the other
        shares = {way: ratio(seconds["ours"], seconds[way]) for way in ("fit", "hand")}
        results[name] = {
            "macs": macs, "seconds": seconds, "idle": idle, "accuracy": accuracy,
            "ours/fit": shares["fit"], "ours/hand": shares["hand"],
        }  # fmt: skip
        print(
            f"{name}, {macs:,} MACs: fit {np.median(seconds['fit']):.1f} s, by hand "
            f"{np.median(seconds['hand']):.1f} s, ours {np.median(seconds['ours']):.1f} s; "
            f"ours/fit {shares['fit']['ratio']:.2f} "
            f"[{shares['fit']['low']:.2f}, {shares['fit']['high']:.2f}], ours/hand "
            f"{shares['hand']['ratio']:.2f}; idle fit {np.median(idle['fit']):.0%}, by hand "
            f"{np.median(idle['hand']):.0%}, ours {np.median(idle['ours']):.1%}",
            flush=True,
        )
    save("trial_speed", {"epochs": EPOCHS, "batch": BATCH, "rounds": rounds, "results": results})


if __name__ == "__main__":
    main()
