"""Which distillation helps on Fashion-MNIST: a half-width and a pruned ResNet-20, three seeds.

    python -m benchmarks.distill_resnet20 --dense MODEL.keras [--methods labels,kd] [--seeds 0,1,2]

MODEL is a trained net of benchmarks.resnet20 (benchmarks.prune_resnet20 --save-dense makes one);
it teaches. Students: the same network with half its widths, from scratch (learning rate 0.1), and
the dense net with its channels pruned to a quarter of its MACs, and with 90 % of its weights
pruned meanwhile (both 0.02). Each trains three epochs, SGD with momentum, batch 128, a cosine, no
augmentation, with the defaults of `compress.distill`. Validation data select the epoch; test data
are read once a student. A seed fixes initial weights (from scratch) and the order of examples.
Runs that are in the results already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import RESULTS, save
from benchmarks.resnet20 import build, load_fashion
from compress.files import read_json
from compress.plan import ChannelOptions, DistillOptions, TrainSettings, WeightOptions

NAME = "distill_resnet20"
RECIPE = TrainSettings(epochs=3, optimizer="momentum", learning_rate=0.02, batch_size=128)
METHODS: dict[str, DistillOptions | None] = {
    "labels": None,
    "kd": DistillOptions(),
    "dkd": DistillOptions(loss="dkd"),
    "dist": DistillOptions(loss="dist"),
    "fitnets + kd": DistillOptions(hints=("fitnets",)),
    "attention + kd": DistillOptions(hints=("attention",)),
    "similarity + kd": DistillOptions(hints=("similarity",)),
    "relational + kd": DistillOptions(hints=("relational",)),
}
STUDENTS = ("half width", "channels", "weights")


def main() -> None:
    """Runs what is missing and writes benchmarks/results/distill_resnet20.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--students", default=",".join(STUDENTS))
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    from compress.device import quiet_tensorflow, setup
    from compress.io import load_model

    quiet_tensorflow()
    device, data, dense = setup("cpu"), load_fashion(), load_model(given.dense)
    file = RESULTS / f"{NAME}.json"
    runs: dict[str, Any] = read_json(file)["runs"] if file.exists() else {}
    for seed in (int(text) for text in given.seeds.split(",")):
        for student in given.students.split(","):
            for method in given.methods.split(","):
                key = f"{student}, {method}, seed {seed}"
                if key not in runs:
                    runs[key] = one(student, method, seed, data, dense, device)
                    print(key, json.dumps(runs[key]), flush=True)
                    save(NAME, {"runs": runs, "summary": summary(runs)})


def one(student: str, method: str, seed: int, data: Any, dense: Any, device: Any) -> Any:
    """Trains one student and returns its accuracies and seconds."""
    import keras

    from compress.distill import distill
    from compress.io import copy_model
    from compress.predict import predict_logits
    from compress.prune.channels import prune_channels
    from compress.prune.weights import WeightPruner
    from compress.train import train

    keras.utils.set_random_seed(seed)
    recipe, hooks = RECIPE, []
    if student == "half width":
        model, recipe = build((8, 16, 32)), replace(RECIPE, learning_rate=0.1)
    elif student == "channels":
        model = prune_channels(dense, ChannelOptions(target="0.25x")).model
    else:
        model, hooks = copy_model(dense), [WeightPruner(WeightOptions(sparsity=0.9))]
    began = time.perf_counter()
    options = METHODS[method]
    common: dict[str, Any] = {"device": device, "seed": seed, "hooks": hooks}
    if options is None:
        training = train(model, data, recipe, **common)
    else:
        result = distill(model, dense, data, options, finetune=recipe, **common)
        training = result.training
    for hook in hooks:
        hook.strip()
    test = data.task.quality(data.test.y, predict_logits(model, data, "test"))
    return {
        "val": training.val["accuracy"],
        "test": test["accuracy"],
        "seconds": time.perf_counter() - began,
    }


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    """Returns mean, standard deviation and number of the test accuracies, by student and method."""
    groups: dict[str, list[float]] = {}
    for key, run in runs.items():
        groups.setdefault(key.rpartition(", seed")[0], []).append(run["test"])
    return {
        name: {
            "mean": float(np.mean(values)),
            "standard deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "runs": len(values),
        }
        for name, values in groups.items()
    }


if __name__ == "__main__":
    main()
