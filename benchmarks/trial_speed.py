"""Seconds of one trial: Keras `fit`, default and tuned, a loop by hand, and paretune's loop.

A trial is 8 epochs on 10,000 images of Fashion-MNIST with 5,000 to validate after each, from
building the model on, on one core; three candidates of the space `cnn`. All train the same model
with Adam at batch 64 and take turns in one process, in random order. Default `fit` is called with
nothing but the batch size, so it validates in batches of 32; tuned `fit` runs 10 steps an execution
and validates in batches of 1,000. The minimal loop is what a user writes to go without `fit`: one
compiled step with NumPy batches, validation in batches of 1,000. Also shown: the share of the core
that stands idle meanwhile.

    python -m benchmarks.trial_speed [--rounds 10]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, ratio, table, told_ratio
from benchmarks._stored import Stored
from benchmarks.resnet20 import load_small
from compress.core.device import Device, setup_device, silence_tensorflow
from compress.data import Dataset
from compress.measure import count_macs
from compress.plan import TrainSettings
from compress.train import train
from search.spaces import SPACES

EPOCHS, BATCH = 8, 64
STEPS_PER_EXECUTION, VALIDATION_BATCH = 10, 1000
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
    """Train by default `fit`."""
    return fitted(choices, data, {}, {})


def by_tuned_fit(choices: dict[str, Any], data: Dataset, device: Device) -> float:
    """`fit` with what its documentation offers to speed it up."""
    return fitted(
        choices, data, {"steps_per_execution": STEPS_PER_EXECUTION},
        {"validation_batch_size": VALIDATION_BATCH},
    )  # fmt: skip


def fitted(
    choices: dict[str, Any], data: Dataset, compiled: dict[str, Any], fit: dict[str, Any]
) -> float:
    """Return the best validation accuracy of `fit`; both take more arguments."""
    model = build(choices, data)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], **compiled)
    history = model.fit(
        data.inputs("train"), data.train.y, batch_size=BATCH, epochs=EPOCHS, verbose=0,
        validation_data=(data.inputs("val"), data.val.y), **fit,
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
            predict(tf.constant(val_x[start : start + VALIDATION_BATCH])).numpy().argmax(-1)
            for start in range(0, len(val_x), VALIDATION_BATCH)
        ]
        best = max(best, float((np.concatenate(found) == val_y).mean()))
    return best


def by_ours(choices: dict[str, Any], data: Dataset, device: Device) -> float:
    settings = TrainSettings(epochs=EPOCHS, batch_size=BATCH, learning_rate_schedule="constant")
    return train(build(choices, data), data, settings, device=device).val["accuracy"]


OTHERS = {"fit": "default `fit`", "tuned": "tuned `fit`", "hand": "minimal loop"}
"""What paretune is measured beside, and how it is called."""
WAYS: dict[str, Callable[..., float]] = {
    "fit": by_fit, "tuned": by_tuned_fit, "hand": by_hand, "ours": by_ours,
}  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Time all ways in turns, candidate after candidate."""
    os.sched_setaffinity(0, {0})
    silence_tensorflow()
    device, data = setup_device("cpu", 1), load_small()
    data.inputs("train")
    rng = np.random.default_rng(0)
    results: dict[str, Any] = {}
    stored.result.update(epochs=EPOCHS, batch=BATCH, rounds=given.rounds)
    for name, choices in CANDIDATES.items():
        macs = count_macs(build(choices, data)).macs
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        idle: dict[str, list[float]] = {way: [] for way in WAYS}
        accuracy: dict[str, float] = {}
        for _ in range(given.rounds):
            for way in rng.permutation(list(WAYS)):
                wall, busy = time.perf_counter(), time.process_time()
                accuracy[way] = WAYS[way](choices, data, device)
                wall, busy = time.perf_counter() - wall, time.process_time() - busy
                seconds[way].append(wall)
                idle[way].append(max(0.0, 1 - busy / wall))
        results[name] = {
            "macs": macs, "seconds": seconds, "idle": idle, "accuracy": accuracy,
            # new/old: ours as a share of the other
            **{f"ours/{way}": ratio(seconds["ours"], seconds[way]) for way in OTHERS},
        }  # fmt: skip
        middle = {way: f"{np.median(found):.1f} s" for way, found in seconds.items()}
        print(name, middle, flush=True)
        stored.save(results=results)


def seconds(result: dict[str, Any]) -> str:
    """Return the table of seconds of a trial, and of paretune's over each other way's."""
    head = ["candidate", *OTHERS.values(), "paretune",
            *(f"paretune / {label}" for label in OTHERS.values()),
            "core idle: default `fit`, paretune"]  # fmt: skip
    rows = []
    for name, row in result["results"].items():
        found, idle = row["seconds"], row["idle"]
        rows.append([
            f"{name}, {row['macs']:,} MACs",
            *(f"{np.median(found[way]):.1f} s" if way in found else "not measured"
              for way in (*OTHERS, "ours")),
            *(told_ratio(ratio(found["ours"], found[way])) if way in found else "not measured"
              for way in OTHERS),
            ", ".join(f"{np.median(idle[way]):.0%}" for way in ("fit", "ours")),
        ])  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark("trial_speed", __doc__, run, {"seconds": seconds}, arguments)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
