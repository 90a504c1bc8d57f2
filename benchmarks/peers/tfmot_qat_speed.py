"""What `benchmarks/quantize_speed.py` measures, of tfmot's quantization-aware training on tf_keras.

    python benchmarks/peers/tfmot_qat_speed.py ROUNDS

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

from benchmarks.peers.tfmot_speed import resnet20
from benchmarks.quantize_speed import CASE
from benchmarks.weights_speed import compiled, timed


def steps_of() -> dict[str, Callable[[], Any]]:
    found = {}
    for variant in ("plain", "moving"):
        model = resnet20()
        if variant == "moving":
            model = tfmot.quantization.keras.quantize_model(model)
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(),
        )
        found[variant] = compiled(model, CASE)
    return found


if __name__ == "__main__":
    print(json.dumps(timed(CASE, int(sys.argv[1]), steps_of())))
