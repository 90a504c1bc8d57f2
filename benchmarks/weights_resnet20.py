"""A ResNet-20 on Fashion-MNIST at 80, 90 and 95 % zeros: paretune beside tfmot.

    python -m benchmarks.weights_resnet20 [--dense MODEL.keras] [--seeds 0,1,2] [--resume FILE]
        [--sparsities 0.8,0.9,0.95]

Every variant begins with the weights of one dense net (benchmarks.resnet20) and trains two epochs
with flips (one epoch over the training part doubled by its mirror images), SGD with momentum,
batch 128, a cosine from 0.02; masks follow the same polynomial schedule, updated every 8 steps
over the first half. A seed fixes the order of examples. tfmot (benchmarks/peers/tfmot_resnet20.py,
a process of its own) does so in tf_keras, in orders of its own. All kernels but the first and the
last are pruned. Accuracies are of the test part, read once a variant and seed, as trained and with
normalization statistics re-estimated on 20 training batches. Files and times are of paretune's
variants of the first seed, in blocks, all together.
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

from benchmarks._common import Benchmark, Mean, seed_list, table, verdict
from benchmarks._latency import told_latency
from benchmarks._peers import not_run
from benchmarks._stored import Stored, was_run
from benchmarks.prune_resnet20 import RECIPE
from benchmarks.resnet20 import dense_net, load_fashion, with_flips
from compress.core.errors import InputError
from compress.plan import DistillOptions, LatencyOptions, WeightOptions

PEER = Path(__file__).parent / "peers" / "tfmot_resnet20.py"
BATCHES = 20
LATENCY = LatencyOptions(budget=90.0)


class Variants:
    """Data, device and dense net that all variants share."""

    def __init__(self, dense: Path | None) -> None:
        from compress.core.device import quiet_tensorflow, setup

        quiet_tensorflow()
        self.device = setup("cpu")
        self.data = load_fashion()
        self.flipped = with_flips(self.data)
        self.net = dense_net(dense, self.data, self.device)
        self.dense = self.net.model

    def ours(
        self, options: WeightOptions, seed: int, *, taught: bool, start: Any = None
    ) -> tuple[Any, float]:
        """Prunes while training on labels, or while the dense net teaches.

        Args:
            options: Sparsity and times.
            seed: Of the order of examples.
            taught: By the dense net.
            start: What the training begins with; default: the dense net.
        """
        from compress.distillation import distill
        from compress.model.copies import copy_model
        from compress.prune.weights import WeightPruner
        from compress.train import train

        student, pruner = copy_model(start or self.dense), WeightPruner(options)
        if taught:
            distill(
                student, self.dense, self.flipped, DistillOptions(), finetune=RECIPE,
                device=self.device, seed=seed, hooks=[pruner],
            )  # fmt: skip
        else:
            train(student, self.flipped, RECIPE, device=self.device, seed=seed, hooks=[pruner])
        return student, pruner.strip().sparsity

    def handed_over(self, options: WeightOptions, seed: int, folder: Path, **more: float) -> None:
        """Writes what a peer in tf_keras begins with: weights, data, recipe, schedule.

        Args:
            options: Sparsity and times.
            seed: Of the recipe.
            folder: Of the files.
            **more: Numbers of the recipe.
        """
        from compress.prune.weights.schedules import planned, update_times

        steps = len(self.flipped.train) // RECIPE.batch_size
        schedule: Any = planned(options, update_times(options, steps))
        record = {
            "schedule": schedule.get_config()["config"],
            "learning_rate": RECIPE.learning_rate, "batch": RECIPE.batch_size,
            "seed": seed, **more,
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

    def theirs(self, options: WeightOptions, seed: int, folder: Path) -> tuple[Any, float]:
        """Lets tfmot prune the same weights by the same schedule, and judges what comes out."""
        from compress.model.copies import copy_model

        self.handed_over(options, seed, folder)
        subprocess.run([sys.executable, str(PEER), str(folder)], check=True)
        model = copy_model(self.dense)
        with np.load(folder / "pruned.npz") as stored:
            for layer in model.layers:
                count = len(layer.get_weights())
                layer.set_weights([stored[f"{layer.name}/{place}"] for place in range(count)])
        kernels = [w.numpy() for w in model.weights if w.path.endswith("/kernel")][1:-1]
        zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
        return model, zeros / sum(k.size for k in kernels)

    def record(self, model: Any, sparsity: float) -> dict[str, Any]:
        """Returns accuracies as trained and with statistics re-estimated (on a copy)."""
        from compress.model.copies import copy_model
        from compress.prune.recalibrate import recalibrate

        again = copy_model(model)
        recalibrate(again, self.data, BATCHES)
        return {
            "sparsity": sparsity,
            "val": self.accuracy(model, "val"),
            "test": self.accuracy(model, "test"),
            "test with re-estimated statistics": self.accuracy(again, "test"),
        }

    def accuracy(self, model: Any, part: str) -> float:
        """Returns the accuracy on a part of the data."""
        from compress.train.predict import predict_logits

        truth = self.data.split(part).y
        return self.data.task.quality(truth, predict_logits(model, self.data, part))["accuracy"]

    def files(self, models: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Sizes of the files and times on every runtime at hand."""
        from compress.exporting.litert import export_litert
        from compress.exporting.mnn import export_mnn
        from compress.measure import count_macs, measure_latency
        from compress.measure.footprint import file_sizes

        paths: dict[str, dict[str, Path]] = {"litert": {}, "litert sparse": {}, "mnn": {}}
        found: dict[str, Any] = {}
        for name, model in models.items():
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
        baselines = dict.fromkeys(models, "dense")
        for kind, files in paths.items():
            runtime = "mnn" if kind == "mnn" else "litert"
            timed = measure_latency(files, LATENCY, baselines=baselines, runtime=runtime)
            for name, latency in timed.items():
                found[name][f"{kind} latency"] = latency.to_json()
        return found


def arguments(parser: argparse.ArgumentParser) -> None:
    def numbers(text: str) -> tuple[float, ...]:
        return tuple(float(word) for word in text.split(","))

    parser.add_argument("--dense", type=Path, help="a trained net of benchmarks.resnet20")
    parser.add_argument("--sparsities", type=numbers, default=(0.8, 0.9, 0.95))
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Trains what is missing, then measures all files."""
    variants, state = Variants(given.dense), stored.provenance["peers"]["tfmot"]
    sha256 = stored.result.setdefault("dense_sha256", variants.net.sha256)
    if sha256 != variants.net.sha256:
        raise InputError("the dense net must be the one that the result began with (--dense).")
    runs = stored.result.setdefault("runs", {})
    models = {"dense": variants.dense}
    if "dense, seed 0" not in runs:
        runs["dense, seed 0"] = variants.record(variants.dense, 0.0)
    for seed in given.seeds:
        for place, sparsity in enumerate(given.sparsities):
            # as tfmot prunes: the same share of each layer
            options = WeightOptions(sparsity=sparsity, scope="layer")
            for how in ("labels", "taught", "tfmot"):
                # what a teacher adds is shown once
                if (how == "taught" and place) or (how == "tfmot" and not was_run(state)):
                    continue
                key, name = f"{options.label} {how}, seed {seed}", f"{options.label} {how}"
                timed = how != "tfmot" and seed == given.seeds[0]
                if key in runs and not timed:
                    continue
                if how == "tfmot":
                    with tempfile.TemporaryDirectory() as folder:
                        model, zeros = variants.theirs(options, seed, Path(folder))
                else:
                    model, zeros = variants.ours(options, seed, taught=how == "taught")
                models |= {name: model} if timed else {}
                runs[key] = variants.record(model, zeros)
                print(key, json.dumps(runs[key]), flush=True)
                stored.save(runs=runs)
    with tempfile.TemporaryDirectory() as folder:
        files = variants.files(models, Path(folder))
    peer = {} if was_run(state) else not_run(state)
    stored.save(files=files, tfmot=_stored_peer(stored, peer))


def _stored_peer(stored: Stored, new: dict[str, str]) -> dict[str, str]:
    """A measured peer stays measured, when it goes on where tfmot is missing."""
    measured = any(key.split(",")[0].endswith("tfmot") for key in stored.result["runs"])
    return {} if measured else new


def zeros(result: dict[str, Any]) -> str:
    """Accuracy, sizes and times by share of zeros."""
    tests: dict[str, list[float]] = {}
    for key, record in result["runs"].items():
        tests.setdefault(key.rpartition(", seed")[0], []).append(record["test"])
    names = sorted({name.rpartition(" ")[0] for name in tests} - {""})
    labels = {"": "0", **{name: f"{name.removeprefix('p')} %" for name in names}}
    missing = result.get("tfmot", {}).get("not run")
    rows = []
    for name, label in labels.items():
        cells = [label]
        for how in ("labels", "taught", "tfmot"):
            found = tests.get(f"{name} {how}" if name else "dense" if how == "labels" else "?")
            cells.append(Mean.of(found).percent() if found else "")
        if name:
            ours, theirs = (tests.get(f"{name} {how}") for how in ("labels", "tfmot"))
            cells.append(
                verdict(Mean.of(ours), Mean.of(theirs)) if ours and theirs
                else f"tfmot not run: {missing}"
            )  # fmt: skip
        else:
            cells.append("")
        file = result["files"][f"{name} labels" if name else "dense"]
        cells.append(" / ".join(f"{file['litert'][kind] / 1e3:,.0f}" for kind in ("gzip", "zstd"))
                     + " kB")  # fmt: skip
        cells.append(f"{file['litert sparse']['size'] / 1e3:,.0f} kB")
        cells += [told_latency(file[f"{kind} latency"])[1] for kind in ("litert", "mnn")]
        rows.append(cells)
    head = ["zeros in the pruned kernels", "test accuracy, labels", "taught by the dense net",
            "tfmot, labels", "points against tfmot, labels", "float32 gzipped / zstd",
            "sparse LiteRT file", "LiteRT time old/new", "MNN time old/new"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "weights_resnet20", __doc__, run, {"zeros": zeros}, arguments,
    peers=("tfmot",), resumable=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
