"""Prunes the twin of a trained ResNet-20 with tfmot in tf_keras; see `weights_resnet20.py`.

    python benchmarks/peers/tfmot_resnet20.py FOLDER

Reads weights.npz, data.npz (inputs as the model takes them) and recipe.json from the folder,
trains one epoch over the data and writes pruned.npz. Weights are named "layer/place".
"""

from __future__ import annotations

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from benchmarks.peers.tfmot_speed import resnet20, wrapped


def main() -> None:
    folder = Path(sys.argv[1])
    recipe = json.loads((folder / "recipe.json").read_text("utf-8"))
    keras.utils.set_random_seed(recipe["seed"])
    with np.load(folder / "data.npz") as stored:
        x, y = stored["x"], stored["y"]
    model = resnet20()
    with np.load(folder / "weights.npz") as stored:
        weights = dict(stored)
    schedule = tfmot.sparsity.keras.PolynomialDecay(**recipe["schedule"])
    pruned = wrapped(model, schedule, skip=("conv0", "logits"))
    for layer in pruned.layers:
        inner = getattr(layer, "layer", layer)
        own = sorted(name for name in weights if name.rpartition("/")[0] == inner.name)
        inner.set_weights([weights[name] for name in own])
    steps = len(x) // recipe["batch"]
    rate = keras.optimizers.schedules.CosineDecay(recipe["learning_rate"], steps)
    pruned.compile(
        keras.optimizers.SGD(rate, momentum=0.9), keras.losses.SparseCategoricalCrossentropy()
    )
    order = np.random.default_rng(recipe["seed"]).permutation(len(x))[: steps * recipe["batch"]]
    pruned.fit(
        x[order], y[order], batch_size=recipe["batch"], epochs=1, shuffle=False, verbose=0,
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
    )  # fmt: skip
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    after = {
        f"{layer.name}/{place}": array
        for layer in stripped.layers
        for place, array in enumerate(layer.get_weights())
    }
    np.savez(folder / "pruned.npz", **after)


if __name__ == "__main__":
    main()
