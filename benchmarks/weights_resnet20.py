"""A ResNet-20 on Fashion-MNIST at 80, 90 and 95 % zeros: paretune beside tfmot.

    python -m benchmarks.weights_resnet20 --dense MODEL.keras [--sparsities 0.8,0.9,0.95]

MODEL is a trained net of benchmarks.resnet20 (benchmarks.prune_resnet20 --save-dense makes one).
Every variant begins with its weights and trains two epochs with flips (one epoch over the
training part doubled by its mirror images), SGD with momentum, batch 128, a cosine from 0.02;
masks follow the same polynomial schedule, updated every 8 steps over the first half. tfmot
(benchmarks/peers/tfmot_resnet20.py, a process of its own) does so in tf_keras, in an order of
examples of its own. All kernels but the first and the last are pruned. Accuracies are of the test
part, read once a variant, as trained and with normalization statistics re-estimated on 20
training batches. Files and times are of paretune's variants, in blocks, all together.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import save
from benchmarks.prune_resnet20 import RECIPE
from benchmarks.resnet20 import load_fashion, with_flips
from compress.plan import DistillOptions, LatencyOptions, WeightOptions

PEER = Path(__file__).parent / "peers" / "tfmot_resnet20.py"
BATCHES = 20
LATENCY = LatencyOptions(budget=90.0)


class Bench:
    """Data, device and dense net that all variants share."""

    def __init__(self, dense: Path) -> None:
        from compress.device import quiet_tensorflow, setup
        from compress.io import load_model

        quiet_tensorflow()
        self.device = setup("cpu")
        self.data = load_fashion()
        self.flipped = with_flips(self.data)
        self.dense = load_model(dense)
        self.models: dict[str, Any] = {"dense": self.dense}
        self.rows: list[dict[str, Any]] = []

    def ours(self, options: WeightOptions, *, taught: bool) -> None:
        """Prunes while training on labels, or while the dense net teaches."""
        from compress.distill import distill
        from compress.io import copy_model
        from compress.prune.weights import WeightPruner
        from compress.train import train

        student, pruner = copy_model(self.dense), WeightPruner(options)
        if taught:
            distill(
                student, self.dense, self.flipped, DistillOptions(), finetune=RECIPE,
                device=self.device, hooks=[pruner],
            )  # fmt: skip
        else:
            train(student, self.flipped, RECIPE, device=self.device, hooks=[pruner])
        report = pruner.strip()
        how = "taught" if taught else "labels"
        name = f"{options.label} {how}"
        self.add(name, student, report.sparsity)
        self.models[name] = student

    def theirs(self, options: WeightOptions, folder: Path) -> None:
        """Lets tfmot prune the same weights by the same schedule, and judges what comes out."""
        from compress.io import copy_model
        from compress.prune.weights.schedules import planned, update_times

        steps = len(self.flipped.train) // RECIPE.batch_size
        schedule: Any = planned(options, update_times(options, steps))
        record = {
            "schedule": schedule.get_config()["config"],
            "learning_rate": RECIPE.learning_rate, "batch": RECIPE.batch_size,
        }  # fmt: skip
        (folder / "recipe.json").write_text(json.dumps(record), "utf-8")
        weights = {
            f"{layer.name}/{place}": array
            for layer in self.dense.layers
            for place, array in enumerate(layer.get_weights())
        }
        np.savez(folder / "weights.npz", **weights)
        inputs = self.flipped.preprocess(self.flipped.train.x)
        np.savez(folder / "data.npz", x=inputs, y=self.flipped.train.y)
        subprocess.run([sys.executable, str(PEER), str(folder)], check=True)
        model = copy_model(self.dense)
        with np.load(folder / "pruned.npz") as stored:
            for layer in model.layers:
                count = len(layer.get_weights())
                layer.set_weights([stored[f"{layer.name}/{place}"] for place in range(count)])
        kernels = [w.numpy() for w in model.weights if w.path.endswith("/kernel")][1:-1]
        zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
        self.add(f"{options.label} tfmot", model, zeros / sum(k.size for k in kernels))

    def add(self, name: str, model: Any, sparsity: float) -> None:
        """Records accuracies as trained and with statistics re-estimated (on a copy)."""
        from compress.io import copy_model
        from compress.prune.recalibrate import recalibrate

        again = copy_model(model)
        recalibrate(again, self.data, BATCHES)
        self.rows.append({
            "name": name,
            "sparsity": sparsity,
            "val": self.accuracy(model, "val"),
            "test": self.accuracy(model, "test"),
            "test with re-estimated statistics": self.accuracy(again, "test"),
        })  # fmt: skip
        print(json.dumps(self.rows[-1]), flush=True)

    def accuracy(self, model: Any, part: str) -> float:
        """Returns the accuracy on a part of the data."""
        from compress.predict import predict_logits

        truth = self.data.split(part).y
        return self.data.task.quality(truth, predict_logits(model, self.data, part))["accuracy"]

    def files(self, folder: Path) -> dict[str, Any]:
        """Sizes of the files and times on every runtime at hand."""
        from compress.export.litert import export_litert
        from compress.export.mnn import export_mnn
        from compress.measure import count_macs, measure_latency
        from compress.measure.size import file_sizes

        paths: dict[str, dict[str, Path]] = {"litert": {}, "litert sparse": {}, "mnn": {}}
        found: dict[str, Any] = {}
        for name, model in self.models.items():
            stem = folder / name.replace(" ", "_")
            for kind in paths:
                suffix = ".mnn" if kind == "mnn" else f".{kind.replace(' ', '_')}.tflite"
                paths[kind][name] = stem.with_name(stem.name + suffix)
            export_litert(model, paths["litert"][name])
            export_litert(model, paths["litert sparse"][name], "sparse")
            export_mnn(paths["litert"][name], paths["mnn"][name])
            counted = count_macs(model)
            found[name] = {
                "macs": counted.macs,
                "sparse_macs": counted.sparse_macs,
                "nonzero": counted.nonzero,
                **{kind: asdict(file_sizes(files[name])) for kind, files in paths.items()},
            }
        baselines = dict.fromkeys(self.models, "dense")
        for kind, files in paths.items():
            runtime = "mnn" if kind == "mnn" else "litert"
            timed = measure_latency(files, LATENCY, baselines=baselines, runtime=runtime)
            for name, latency in timed.items():
                found[name][f"{kind} latency"] = latency.to_json()
        return found


def main() -> None:
    """Runs all variants and writes benchmarks/results/weights_resnet20.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", type=Path, required=True)
    parser.add_argument("--sparsities", default="0.8,0.9,0.95")
    arguments = parser.parse_args()
    bench = Bench(arguments.dense)
    bench.add("dense", bench.dense, 0.0)
    for place, sparsity in enumerate(map(float, arguments.sparsities.split(","))):
        options = WeightOptions(sparsity=sparsity)
        bench.ours(options, taught=False)
        if place == 0:  # what a teacher adds is shown once
            bench.ours(options, taught=True)
        with tempfile.TemporaryDirectory() as folder:
            bench.theirs(options, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        files = bench.files(Path(folder))
    save("weights_resnet20", {"results": bench.rows, "files": files})


if __name__ == "__main__":
    main()
