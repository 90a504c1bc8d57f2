"""Weight pruning of a trained ResNet-20 by tfmot in tf_keras; `resnet20.Variants.theirs` runs it.

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
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from benchmarks.peers.tfmot_speed import resnet20, wrapped


class Given(NamedTuple):
    """The files of the folder: the recipe, inputs and labels, weights by name."""

    recipe: dict[str, Any]
    x: Any
    y: Any
    weights: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Given:
        """Read the folder and set the seed."""
        recipe = json.loads((folder / "recipe.json").read_text("utf-8"))
        keras.utils.set_random_seed(recipe["seed"])
        with np.load(folder / "data.npz") as data, np.load(folder / "weights.npz") as weights:
            return cls(recipe, data["x"], data["y"], dict(weights))

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.x) // self.recipe["batch"]

    def fit(self, model: Any, optimizer: Any, seed: Any, *callbacks: Any) -> None:
        """Train a model for one epoch."""
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy())
        batch = self.recipe["batch"]
        order = np.random.default_rng(seed).permutation(len(self.x))[: self.steps * batch]
        model.fit(
            self.x[order], self.y[order], batch_size=batch, epochs=1, shuffle=False, verbose=0,
            callbacks=list(callbacks),
        )  # fmt: skip


def pruned(given: Given) -> Any:
    """Return the twin, pruned while it is trained for an epoch."""
    recipe = given.recipe
    schedule = tfmot.sparsity.keras.PolynomialDecay(**recipe["schedule"])
    model = wrapped(resnet20(), schedule, skip=("conv0", "logits"))
    for layer in model.layers:
        inner = getattr(layer, "layer", layer)
        own = sorted(name for name in given.weights if name.rpartition("/")[0] == inner.name)
        inner.set_weights([given.weights[name] for name in own])
    rate = keras.optimizers.schedules.CosineDecay(recipe["learning_rate"], given.steps)
    given.fit(
        model, keras.optimizers.SGD(rate, momentum=0.9), recipe["seed"],
        tfmot.sparsity.keras.UpdatePruningStep(),
    )  # fmt: skip
    return tfmot.sparsity.keras.strip_pruning(model)


def main() -> None:
    folder = Path(sys.argv[1])
    after = {
        f"{layer.name}/{place}": array
        for layer in pruned(Given.of(folder)).layers
        for place, array in enumerate(layer.get_weights())
    }
    np.savez(folder / "pruned.npz", **after)


if __name__ == "__main__":
    main()
