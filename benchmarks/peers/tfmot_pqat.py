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

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from benchmarks.peers.tfmot_resnet20 import Given, pruned


def main() -> None:
    folder = Path(sys.argv[1])
    given = Given.of(folder)
    model = tfmot.quantization.keras.quantize_apply(
        tfmot.quantization.keras.quantize_annotate_model(pruned(given)),
        tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme(),
    )
    rate = keras.optimizers.schedules.CosineDecay(given.recipe["whole_rate"], given.steps)
    given.fit(model, keras.optimizers.Adam(rate), [given.recipe["seed"], 1])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "pqat.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main()
