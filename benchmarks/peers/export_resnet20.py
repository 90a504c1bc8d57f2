"""Writes a trained Keras network and its data as NumPy archives, for frameworks without Keras.

Run it from the root of the repository, with paretune's own Python:

    python -m benchmarks.peers.export_resnet20 \\
        --model dense.keras --out resnet20.npz --data fashion.npz

`torch_pruning_resnet20.py` beside it reads both files.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.resnet20 import load_fashion
from compress.data import Dataset
from compress.train.predict import predict_logits

if TYPE_CHECKING:
    import keras

CHECKED = 256
"""Validation examples whose logits are stored, to check a port against."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a .keras file of resnet20")
    parser.add_argument("--out", type=Path, required=True, help="archive of weights to write")
    parser.add_argument("--data", type=Path, required=True, help="archive of examples to write")
    arguments = parser.parse_args()
    import keras

    model = keras.saving.load_model(arguments.model, compile=False)
    data = load_fashion()
    np.savez(arguments.out, **weights(model), **references(model, data))
    np.savez_compressed(arguments.data, **examples(data))


def weights(model: keras.Model) -> dict[str, Any]:
    """Returns every variable of a model by its path, such as "conv0/kernel"."""
    return {variable.path: variable.numpy() for variable in model.variables}


def references(model: keras.Model, data: Dataset) -> dict[str, Any]:
    """Returns what a port of the model must reproduce.

    Returns:
        "reference/logits" of the first `CHECKED` validation examples, and the accuracies
        "reference/val" and "reference/test".
    """
    logits = {part: predict_logits(model, data, part) for part in ("val", "test")}
    accuracies = {
        f"reference/{part}": (logits[part].argmax(-1) == data.split(part).y).mean()
        for part in logits
    }
    return {"reference/logits": logits["val"][:CHECKED], **accuracies}


def examples(data: Dataset) -> dict[str, Any]:
    """Returns model inputs "{part}/x", (n, height, width, 1), and labels "{part}/y"."""
    parts = ("train", "val", "test")
    return {
        **{f"{part}/x": data.inputs(part) for part in parts},
        **{f"{part}/y": data.split(part).y for part in parts},
    }


if __name__ == "__main__":
    main()
