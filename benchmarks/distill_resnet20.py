"""Which distillation helps on Fashion-MNIST: a half-width and a pruned ResNet-20, three seeds.

    python -m benchmarks.distill_resnet20 [--dense MODEL.keras] [--methods labels,kd]
        [--students "half width,channels"] [--seeds 0,1,2] [--resume FILE]

The dense net of benchmarks.resnet20 teaches. Students: the same network with half its widths, from
scratch (learning rate 0.1); the dense net with its channels pruned to a quarter of its MACs, and
with 90 % of its weights pruned meanwhile (both 0.02). Each trains three epochs, SGD with momentum,
batch 128, a cosine, no augmentation, with the defaults of `compress.distill`. Validation data
select the epoch; test data are read once a student. A seed fixes initial weights (from scratch)
and the order of examples.
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

from benchmarks._common import Benchmark, Mean, seed_list, table, verdict
from benchmarks._stored import Stored
from benchmarks.resnet20 import build, dense_net, load_fashion
from compress.core.errors import InputError
from compress.plan import ChannelOptions, DistillOptions, TrainSettings, WeightOptions

RECIPE = TrainSettings(epochs=3, optimizer="momentum", learning_rate=0.02, batch_size=128)
METHODS: dict[str, DistillOptions | None] = {
    "labels": None,
    "kd": DistillOptions(),
    "dkd": DistillOptions(loss="dkd"),
    "fitnets + kd": DistillOptions(hints=("fitnets",)),
}
STUDENTS = ("half width", "channels", "weights")


def arguments(parser: argparse.ArgumentParser) -> None:
    def names(text: str) -> tuple[str, ...]:
        return tuple(text.split(","))

    parser.add_argument("--dense", type=Path, help="a trained net of benchmarks.resnet20")
    parser.add_argument("--methods", type=names, default=tuple(METHODS))
    parser.add_argument("--students", type=names, default=STUDENTS[:2])
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Trains the students that are missing."""
    from compress.core.device import quiet_tensorflow, setup

    quiet_tensorflow()
    device, data = setup("cpu"), load_fashion()
    net = dense_net(given.dense, data, device)
    if stored.result.setdefault("dense_sha256", net.sha256) != net.sha256:
        raise InputError("the dense net must be the one that the result began with (--dense).")
    runs: dict[str, Any] = stored.result.setdefault("runs", {})
    for seed in given.seeds:
        for student in given.students:
            for method in given.methods:
                key = f"{student}, {method}, seed {seed}"
                if key not in runs:
                    runs[key] = one(student, method, seed, data, net.model, device)
                    print(key, json.dumps(runs[key]), flush=True)
                    stored.save(runs=runs)


def one(student: str, method: str, seed: int, data: Any, dense: Any, device: Any) -> Any:
    """Trains one student and returns its accuracies and seconds."""
    import keras

    from compress.distillation import distill
    from compress.model.copies import copy_model
    from compress.prune.channels import prune_channels
    from compress.prune.weights import WeightPruner
    from compress.train import train
    from compress.train.predict import predict_logits

    keras.utils.set_random_seed(seed)
    recipe, hooks = RECIPE, []
    if student == "half width":
        model, recipe = build((8, 16, 32)), replace(RECIPE, learning_rate=0.1)
    elif student == "channels":
        model = prune_channels(dense, ChannelOptions(target="0.25x")).model
    else:
        model, hooks = copy_model(dense), [WeightPruner(WeightOptions(sparsity=0.9, scope="layer"))]
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


def students(result: dict[str, Any]) -> str:
    """Test accuracy by student and method, and whether it differs from labels alone."""
    found: dict[str, dict[str, list[float]]] = {}
    for key, run in result["runs"].items():
        student, method, _ = key.split(", ")
        found.setdefault(student, {}).setdefault(method, []).append(run["test"])
    titles = {
        "half width": "half of its widths, from scratch",
        "channels": "its channels pruned to a quarter of the MACs",
        "weights": "90 % of its weights pruned",
    }
    kinds = [kind for kind in STUDENTS if kind in found]
    head = ["taught by"]
    for kind in kinds:
        head += [titles[kind], "points against labels"]
    rows = []
    for method in METHODS:
        if not any(method in found[kind] for kind in kinds):
            continue
        label = "labels alone" if method == "labels" else f"`{method}`"
        row = [label + (" (the default)" if method == "kd" else "")]
        for kind in kinds:
            values = found[kind].get(method)
            mean = Mean.of(values) if values else None
            row += [mean.percent() if mean else "",
                    verdict(mean, Mean.of(found[kind]["labels"]))
                    if mean and method != "labels" else ""]  # fmt: skip
        rows.append(row)
    return table(head, rows)


BENCHMARK = Benchmark(
    "distill_resnet20", __doc__, run, {"students": students}, arguments,
    resumable=True, grows=("seeds", "students", "methods"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
