"""Seconds of a training step with tfmot on tf_keras; `benchmarks/step_speed.py` runs it.

    python benchmarks/peers/tfmot_speed.py CASE ROUNDS

Prints seconds a step by variant as JSON. It runs in a process of its own, because tfmot needs
Keras 2, whose switch is set here before anything is imported.
"""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import tensorflow_model_optimization as tfmot
import tf_keras as keras

from benchmarks.step_speed import CASES, NEVER, QUANTIZED, SPARSITY, Case, compiled, timed

layers = keras.layers
PRUNED = (layers.Conv2D, layers.Dense)


def resnet20() -> Any:
    """The network of `benchmarks/resnet20.py` in Keras 2, layer by layer."""
    inputs = keras.Input((28, 28, 1))

    def normalized(x: Any, width: int, size: int, stride: int, conv: str, norm: str) -> Any:
        x = layers.Conv2D(width, size, stride, "same", use_bias=False, name=conv)(x)
        return layers.BatchNormalization(name=norm)(x)

    x = layers.ReLU()(normalized(inputs, 16, 3, 1, "conv0", "bn0"))
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(1, 4):
            name, stride = f"s{stage}b{block}", 2 if stage > 1 and block == 1 else 1
            shortcut = x
            if stride != 1 or x.shape[-1] != width:
                shortcut = normalized(x, width, 1, stride, f"{name}_proj", f"{name}_proj_bn")
            x = layers.ReLU()(normalized(x, width, 3, stride, f"{name}_conv1", f"{name}_bn1"))
            x = normalized(x, width, 3, 1, f"{name}_conv2", f"{name}_bn2")
            x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Softmax()(x))


def mlp() -> Any:
    hidden = [layers.Dense(width, activation="relu") for width in (3072, 3072, 2560)]
    return keras.Sequential([keras.Input((784,)), *hidden, layers.Dense(10)])


def wrapped(model: Any, schedule: Any, skip: tuple[str, ...] = ()) -> Any:
    """Return the model with tfmot's wrapper around every convolution and dense layer."""

    def clone(layer: Any) -> Any:
        if isinstance(layer, PRUNED) and layer.name not in skip:
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)
        return layer

    return keras.models.clone_model(model, clone_function=clone)


def begin(model: Any) -> None:
    """Set the pruning step as tfmot's callback `UpdatePruningStep` does before training."""
    for layer in model.layers:
        if hasattr(layer, "pruning_step"):
            layer.pruning_step.assign(0)


def pruned_steps(case: Case) -> dict[str, Callable[[], Any]]:
    found = {}
    for variant, frequency in (("plain", 0), ("hold", NEVER), ("every", 1)):
        model = resnet20() if case.network == "resnet20" else mlp()
        if frequency:
            schedule = tfmot.sparsity.keras.ConstantSparsity(SPARSITY, 1, -1, frequency)
            model = wrapped(model, schedule)
            begin(model)
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=case.network == "mlp"),
        )
        found[variant] = compiled(model, case)
    return found


def quantized_steps(case: Case) -> dict[str, Callable[[], Any]]:
    found = {}
    for variant in ("plain", "moving"):
        model = resnet20()
        if variant == "moving":
            model = tfmot.quantization.keras.quantize_model(model)
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.SparseCategoricalCrossentropy()
        )
        found[variant] = compiled(model, case)
    return found


if __name__ == "__main__":
    name, rounds = sys.argv[1], int(sys.argv[2])
    make = quantized_steps if name == QUANTIZED else pruned_steps
    print(json.dumps(timed(CASES[name], rounds, make(CASES[name]))))
