"""A front of files as one makes it by hand: Optuna's TPE with Keras's fit, then tfmot and int8.

    python benchmarks/peers/tpe_tfmot.py FOLDER SECONDS SEED

Reads data.npz (x_train, y_train, x_val, y_val, scaled) from the folder. For 60 % of the time TPE
samples candidates of front_net.py's space, which fit trains with Adam for `EPOCHS` epochs, or as
many, or as large a part of one, as lets `TRIALS` of half the baseline's time fit. Then the
candidates of its front by validation accuracy and MACs, the best one first, are pruned by tfmot to
half of their weights during two more such epochs, or as many as fit into their part of the time
that is left; each is written in float32 and int8, pruned and not.
"""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from front_net import baseline, build_net, count_net_macs

SEARCH_SHARE, TRIALS, EPOCHS, PRUNED_EPOCHS, BATCH, SPARSITY = 0.6, 8, 6, 2, 64, 0.5
PRUNED_SLOWDOWN = 1.3
"""Time of an epoch that prunes, with its compilation, over one of the search."""
PROBED = 20 * BATCH
"""Examples that are trained on to find out how long an epoch takes."""


def write_files(model: Any, x: Any, stem: Path) -> None:
    """Write a model in float32 and in int8, calibrated on 200 images."""

    def examples() -> Any:
        for image in x[:200]:
            yield [image[np.newaxis]]

    for kind in ("float32", "int8"):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if kind == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = examples
        Path(f"{stem}.{kind}.tflite").write_bytes(converter.convert())


def main() -> None:
    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    began = time.monotonic()
    keras.utils.set_random_seed(seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with np.load(folder / "data.npz") as file:
        data = dict(file)
    shape, classes = data["x_train"].shape[1:], int(data["y_train"].max()) + 1
    models: dict[int, Any] = {}

    total = len(data["x_train"])

    def fit(
        model: Any, rate: float, epochs: int, *callbacks: Any, examples: int, until: float
    ) -> float:
        def check_time(batch: int, logs: Any) -> None:
            model.stop_training = time.monotonic() - began > until

        model.compile(
            keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
        )  # fmt: skip
        history = model.fit(
            data["x_train"][:examples], data["y_train"][:examples], batch_size=BATCH,
            epochs=epochs, verbose=0, validation_data=(data["x_val"], data["y_val"]),
            callbacks=[*callbacks, keras.callbacks.LambdaCallback(on_batch_end=check_time)],
        )  # fmt: skip
        return float(history.history["val_accuracy"][-1])

    probe = build_net(optuna.trial.FixedTrial(baseline), shape, classes, keras)
    fit(probe, 1e-3, 1, examples=PROBED, until=seconds)  # the compilation
    before = time.monotonic()
    probe.fit(data["x_train"][:PROBED], data["y_train"][:PROBED], batch_size=BATCH, verbose=0)
    epoch_seconds = (time.monotonic() - before) * total / PROBED
    fitting = SEARCH_SHARE * seconds / TRIALS / (0.5 * epoch_seconds)
    epochs = max(1, min(EPOCHS, int(fitting)))
    examples = total if fitting >= 1 else max(PROBED, int(fitting * total))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        model = build_net(trial, shape, classes, keras)
        rate = trial.suggest_float("rate", 3e-4, 1e-2, log=True)
        start = time.monotonic()
        accuracy = fit(model, rate, epochs, examples=examples, until=SEARCH_SHARE * seconds)
        trial.set_user_attr("epoch_seconds", (time.monotonic() - start) / epochs)
        models[trial.number] = model
        return accuracy, count_net_macs(model)

    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed)
    )
    study.optimize(objective, timeout=SEARCH_SHARE * seconds - (time.monotonic() - began))
    front = sorted(study.best_trials, key=lambda trial: -trial.values[0])
    (folder / "files").mkdir(exist_ok=True)
    for trial in front:
        write_files(models[trial.number], data["x_train"], folder / "files" / f"{trial.number}")
    steps = -(-examples // BATCH)
    for number, trial in enumerate(front):
        left = 0.95 * seconds - (time.monotonic() - began)
        if left < 0:
            break
        part = left / (len(front) - number) / PRUNED_SLOWDOWN
        pruned_epochs = max(PRUNED_EPOCHS, int(part / trial.user_attrs["epoch_seconds"]))
        schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, SPARSITY, 0, pruned_epochs * steps)
        pruned = tfmot.sparsity.keras.prune_low_magnitude(models[trial.number], schedule)
        fit(pruned, trial.params["rate"] / 3, pruned_epochs,
            tfmot.sparsity.keras.UpdatePruningStep(), examples=examples,
            until=0.95 * seconds)  # fmt: skip
        stripped = tfmot.sparsity.keras.strip_pruning(pruned)
        write_files(stripped, data["x_train"], folder / "files" / f"{trial.number}-pruned")


if __name__ == "__main__":
    main()
