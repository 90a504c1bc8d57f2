"""Prunes tf_keras layers with tfmot itself and writes every mask; runs in a process of its own.

    python tfmot_twin.py CASES.json WEIGHTS.npz MASKS.npz

A case is driven: before each step its kernel is set to the given values, then the wrapped layer
runs forward in training mode, which is when tfmot updates its mask. A case with "train" is
trained on the given examples instead, by plain SGD.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras


def layer_of(case: dict[str, Any]) -> Any:
    return getattr(keras.layers, case["layer"])(**case["settings"], name="layer")


def wrapped(layer: Any, case: dict[str, Any]) -> Any:
    schedule = getattr(tfmot.sparsity.keras, case["schedule"])(**case["times"])
    settings = {"pruning_schedule": schedule}
    if "block" in case:
        settings["block_size"] = tuple(case["block"])
    if "zeros_of" in case:
        settings["sparsity_m_by_n"] = tuple(case["zeros_of"])
    return tfmot.sparsity.keras.prune_low_magnitude(layer, **settings)


def driven(case: dict[str, Any], weights: np.ndarray) -> np.ndarray:
    inner = layer_of(case)
    layer = wrapped(inner, case)
    model = keras.Sequential([keras.Input(case["input"]), layer])
    if not layer.pruning_vars:  # tfmot prunes nothing of this layer
        return np.zeros((0,), np.float32)
    ((kernel, mask, _),) = layer.pruning_vars
    layer.pruning_step.assign(0)
    x = tf.zeros((1, *case["input"]))
    step = tf.function(lambda: model(x, training=True))
    masks = []
    for value in weights:
        kernel.assign(value)
        step()
        masks.append(mask.numpy())
    return np.stack(masks)


def trained(case: dict[str, Any], arrays: dict[str, np.ndarray]) -> np.ndarray:
    inner = layer_of(case)
    layer = wrapped(inner, case)
    model = keras.Sequential([keras.Input(case["input"]), layer])
    inner.set_weights([arrays["kernel"], arrays["bias"]])
    model.compile(keras.optimizers.SGD(case["train"]), "mse")
    layer.pruning_step.assign(0)
    masks = []
    for x, y in zip(arrays["x"], arrays["y"], strict=True):
        model.train_on_batch(x, y)
        masks.append(layer.pruning_vars[0][1].numpy())
    return np.stack(masks)


def main() -> None:
    cases, source, target = sys.argv[1:]
    with open(cases, encoding="utf-8") as file, np.load(source) as stored:
        arrays = dict(stored)
        masks = {}
        for name, case in json.load(file).items():
            own = {
                key.removeprefix(f"{name}/"): value
                for key, value in arrays.items()
                if key.startswith(f"{name}/")
            }
            masks[name] = trained(case, own) if "train" in case else driven(case, own["weights"])
    np.savez(target, **masks)


if __name__ == "__main__":
    main()
