"""tfmot's pruning, then training in whole numbers that keeps its zeros; see `quantize_pruned.py`.

    python benchmarks/peers/tfmot_pqat.py FOLDER

Reads weights.npz, data.npz (inputs as the model takes them) and recipe.json from the folder,
prunes for one epoch over the data as tfmot_resnet20.py does, trains another in whole numbers by
`Default8BitPrunePreserveQuantizeScheme`, and writes pqat.tflite, int8 in and out.
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
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from benchmarks.peers.tfmot_speed import resnet20, wrapped


def main() -> None:
    folder = Path(sys.argv[1])
    recipe = json.loads((folder / "recipe.json").read_text("utf-8"))
    keras.utils.set_random_seed(recipe["seed"])
    with np.load(folder / "data.npz") as stored:
        x, y = stored["x"], stored["y"]
    with np.load(folder / "weights.npz") as stored:
        weights = dict(stored)
    steps = len(x) // recipe["batch"]
    order = np.random.default_rng(recipe["seed"])

    def fitted(model: keras.Model, optimizer: keras.optimizers.Optimizer, *hooks: object) -> None:
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy())
        picks = order.permutation(len(x))[: steps * recipe["batch"]]
        model.fit(
            x[picks], y[picks], batch_size=recipe["batch"], shuffle=False, verbose=0,
            callbacks=list(hooks),
        )  # fmt: skip

    schedule = tfmot.sparsity.keras.PolynomialDecay(**recipe["schedule"])
    pruned = wrapped(resnet20(), schedule, skip=("conv0", "logits"))
    for layer in pruned.layers:
        inner = getattr(layer, "layer", layer)
        own = sorted(name for name in weights if name.rpartition("/")[0] == inner.name)
        inner.set_weights([weights[name] for name in own])
    rate = keras.optimizers.schedules.CosineDecay(recipe["learning_rate"], steps)
    fitted(
        pruned, keras.optimizers.SGD(rate, momentum=0.9), tfmot.sparsity.keras.UpdatePruningStep()
    )
    stripped = tfmot.sparsity.keras.strip_pruning(pruned)
    whole = tfmot.quantization.keras.quantize_apply(
        tfmot.quantization.keras.quantize_annotate_model(stripped),
        tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme(),
    )
    fitted(
        whole,
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(recipe["whole_rate"], steps)),
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(whole)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "pqat.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main()
