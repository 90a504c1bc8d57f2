"""Seconds of a step that distils, over the student's own: paretune beside keras.distillation.

    python -m benchmarks.distill_speed [--rounds 10]

A ResNet-20 teaches one of half its widths, batch 128, SGD with momentum: on logits alone, and on
logits and one pair of features (FitNets for ours; for Keras, which knows no projection, the mean
squared difference of the channel means). Keras's Distiller runs its own training function; ours
runs the steps of compress.train, with the teacher cached and live. All take turns in blocks in
one process; each is divided by the student alone in the same framework and round. Inputs are
random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, ratio, table, told_ratio
from benchmarks._stored import Stored
from benchmarks.resnet20 import build
from compress.core.device import quiet_tensorflow, setup
from compress.data import Dataset, Preprocessing, Split
from compress.plan import DistillOptions, TrainSettings

BATCH, STEPS = 128, 8
HALF = (8, 16, 32)
LAYER = "s2b3_relu2"
SETTINGS = TrainSettings(
    epochs=1, optimizer="momentum", learning_rate=0.01, batch_size=BATCH, schedule="constant"
)


def random_data() -> Dataset:
    """Returns 1,024 training examples in the shape of Fashion-MNIST."""
    rng = np.random.default_rng(0)

    def part(count: int) -> Split:
        x = rng.integers(0, 256, (count, 28, 28, 1)).astype(np.uint8)
        return Split(x, np.arange(count) % 10)

    names = tuple(str(label) for label in range(10))
    return Dataset("random", part(1024), part(128), part(128), names, Preprocessing(1 / 255))


def keras_steps(data: Dataset) -> dict[str, Callable[[], Any]]:
    """Returns blocks of steps of Keras: the student alone, and the Distiller's."""
    import keras
    import tensorflow as tf

    def optimizer() -> Any:
        return keras.optimizers.SGD(0.01, momentum=0.9)

    def means(teacher: Any, student: Any) -> Any:
        return keras.ops.mean(
            keras.ops.square(keras.ops.mean(teacher, -1) - keras.ops.mean(student, -1))
        )

    logits = keras.distillation.LogitsDistillation(temperature=4.0)
    features = keras.distillation.FeatureDistillation(
        loss=means, teacher_layer_name=LAYER, student_layer_name=LAYER
    )
    models = {"keras alone": build(HALF)}
    for name, losses in (("keras logits", [logits]), ("keras features", [logits, features])):
        models[name] = keras.distillation.Distiller(build(), build(HALF), losses)
    batch = (data.inputs("train")[:BATCH], data.train.y[:BATCH])
    found = {}
    for name, model in models.items():
        model.compile(optimizer(), "sparse_categorical_crossentropy")
        iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
        model.make_train_function()

        def run(function: Any = model.train_function, iterator: Any = iterator) -> None:
            for _ in range(STEPS):
                function(iterator)

        found[name] = run
    return found


def our_steps(data: Dataset, stack: ExitStack) -> dict[str, Callable[[], Any]]:
    """Returns blocks of steps of compress.train; `stack` holds what they need open."""
    import tensorflow as tf

    from compress.distillation.setup import teaching
    from compress.model.fused_batchnorm import fused_normalization
    from compress.model.logits import logits_view
    from compress.train import LabelObjective
    from compress.train.loop import Training
    from compress.train.records import TrainContext

    plans = {
        "alone": None,
        "logits, cached": DistillOptions(),
        "features, cached": DistillOptions(hints=("fitnets",), pairs=(f"{LAYER}={LAYER}",)),
        "logits, live": DistillOptions(cache="off"),
        "features, live": DistillOptions(
            hints=("fitnets",), pairs=(f"{LAYER}={LAYER}",), cache="off"
        ),
    }
    device = setup("cpu")
    index = np.arange(STEPS * BATCH, dtype=np.int32).reshape(STEPS, BATCH) % len(data.train)
    found = {}
    for name, options in plans.items():
        student, objective = build(HALF), LabelObjective(data.task)
        if options is not None:
            objective, *_ = stack.enter_context(
                teaching(student, [build()], data, options, SETTINGS)
            )
        context = TrainContext(data, SETTINGS, objective, (), device, 0, "accuracy")
        training = Training(student, context)
        view = stack.enter_context(logits_view(student, data.task, objective.feature_layers))
        stack.enter_context(fused_normalization(student))
        training.start(view, None)

        def run(steps: Any = training.run) -> None:
            steps(tf.constant(index))

        found[name] = run
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Times all in turns."""
    quiet_tensorflow()
    data = random_data()
    with ExitStack() as stack:
        blocks = {**keras_steps(data), **our_steps(data, stack)}
        for block in blocks.values():
            block()
        rng = np.random.default_rng(0)
        seconds: dict[str, list[float]] = {name: [] for name in blocks}
        for _ in range(given.rounds):
            for name in rng.permutation(list(blocks)):
                began = time.perf_counter()
                blocks[name]()
                seconds[name].append((time.perf_counter() - began) / STEPS)
    result: dict[str, Any] = {
        "seconds a step": {name: float(np.median(found)) for name, found in seconds.items()},
        "device": setup("cpu").describe(),
    }
    for name, found in seconds.items():
        alone = "keras alone" if name.startswith("keras") else "alone"
        if name != alone:
            result[f"{name} / {alone}"] = ratio(found, seconds[alone])
    result["keras alone / alone"] = ratio(seconds["keras alone"], seconds["alone"])
    stored.save(**result)


def steps(result: dict[str, Any]) -> str:
    """A step that distils over the student's own, each in its framework."""
    rows = []
    for label, ours in (("logits", "logits"), ("logits and one pair of features", "features")):
        keys = (f"{ours}, cached / alone", f"{ours}, live / alone",
                f"keras {ours} / keras alone")  # fmt: skip
        rows.append([label, *(told_ratio(result[key]) for key in keys)])
    head = ["", "paretune, cached teacher", "paretune, live teacher",
            "keras.distillation.Distiller (live)"]  # fmt: skip
    return table(head, rows)


def alone(result: dict[str, Any]) -> str:
    """The student's own step: Keras's training function over paretune's."""
    got = [told_ratio(result["keras alone / alone"])]
    return table(["the student's own step, Keras's training function / paretune's"], [got])


BENCHMARK = Benchmark(
    "distill_speed", __doc__, run, {"steps": steps, "alone": alone}, arguments,
    peers=("keras Distiller",),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
