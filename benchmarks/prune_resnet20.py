"""A ResNet-20 on Fashion-MNIST at a quarter of its MACs: pruned, or narrow from scratch.

    [TORCH_PRUNING_PYTHON=PYTHON] python -m benchmarks.prune_resnet20 [--dense MODEL.keras]
        [--seeds 0,1,2] [--resume FILE]

Every variant gets two epochs of training with random flips (one epoch over the training part
doubled by its mirror images), SGD with momentum, batch 128, a cosine from 0.02: the channels of
one trained dense net are removed at once or in four steps, with an eighth of the examples behind
each of the first three and the rest behind the last, taught by the dense net or by labels alone.
The comparison is the same network with uniformly narrower layers, trained from scratch for as
long. A seed fixes the order of examples (and initial weights where there are new ones); the dense
net is one and the same. Torch-Pruning does the same to the same weights in an environment of its
own (benchmarks/peers/torch_pruning_resnet20.py). Validation data select; test data are read once a
variant and seed, at the end. Latency of the LiteRT files of the first seed is measured in blocks,
all files together.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table, verdict
from benchmarks._latency import told_latency
from benchmarks._peers import PEERS, not_run
from benchmarks._stored import Stored, was_run
from benchmarks.resnet20 import build, dense_net, load_fashion, with_flips
from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan import ChannelOptions, DistillOptions, LatencyOptions, TrainSettings

TARGET = 0.25
STEPS = 4
RECIPE = TrainSettings(epochs=1, optimizer="momentum", learning_rate=0.02, batch_size=128)
SCRATCH = replace(RECIPE, learning_rate=0.1)


PEER = Path(__file__).parent / "peers" / "torch_pruning_resnet20.py"


class Variants:
    """The data, the device and the dense net that all variants share."""

    def __init__(self, dense: Path | None) -> None:
        from compress.core.device import quiet_tensorflow, setup

        quiet_tensorflow()
        self.device = setup("cpu")
        self.data = load_fashion()
        self.flipped = with_flips(self.data)
        self.dense = dense_net(dense, self.data, self.device)
        self.makers = {
            "dense": lambda seed: self.dense.model,
            "narrow from scratch": lambda seed: self.trained(build((8, 16, 32)), seed, SCRATCH),
            "l2 one-shot labels": lambda seed: self.trained(self.pruned(), seed),
            "l2 one-shot": lambda seed: self.taught(self.pruned(), seed),
            "l2 4 steps": lambda seed: self.in_steps(seed),
            "l2 4 steps round 8": lambda seed: self.in_steps(seed, round_to=8),
        }

    def make(self, name: str, seed: int) -> tuple[Any, dict[str, Any]]:
        """Makes a variant; returns the model and its record."""
        import keras

        from compress.measure import count_macs

        keras.utils.set_random_seed(seed)
        start = time.perf_counter()
        model = self.makers[name](seed)
        seconds = time.perf_counter() - start

        counted = count_macs(model)
        return model, {
            "macs": counted.macs,
            "params": counted.params,
            "val": self.accuracy(model, "val"),
            "test": self.accuracy(model, "test"),
            "seconds": seconds,
            "widths": [layer.filters for layer in model.layers if hasattr(layer, "filters")],
        }

    def accuracy(self, model: Any, part: str) -> float:
        """Returns the accuracy on a part of the data."""
        from compress.train.predict import predict_logits

        truth = self.data.split(part).y
        return self.data.task.quality(truth, predict_logits(model, self.data, part))["accuracy"]

    def trained(self, model: Any, seed: int, settings: TrainSettings = RECIPE) -> Any:
        """Trains on labels."""
        from compress.train import train

        train(model, self.flipped, settings, device=self.device, seed=seed)
        return model

    def taught(
        self, model: Any, seed: int, data: Dataset | None = None, settings: TrainSettings = RECIPE
    ) -> Any:
        """Trains with the dense net as the teacher."""
        from compress.distillation import distill

        distill(
            model, self.dense.model, data or self.flipped, DistillOptions(), finetune=settings,
            device=self.device, seed=seed,
        )  # fmt: skip
        return model

    def eighths(self, first: int, last: int, seed: int) -> Dataset:
        """Returns eighths [first, last) of the flipped training examples, in random order."""
        order = np.random.default_rng(seed).permutation(len(self.flipped.train))
        size = len(order) // 8
        chosen = np.sort(order[first * size : last * size])
        return replace(self.flipped, train=self.flipped.train.take(chosen))

    def pruned(self, **settings: Any) -> Any:
        """Removes channels at once."""
        from compress.prune.channels import prune_channels

        options = ChannelOptions(**{"criterion": "l2", **settings})
        return prune_channels(self.dense.model, options, macs=TARGET, data=self.data).model

    def in_steps(self, seed: int, **settings: Any) -> Any:
        """Removes channels in steps; the examples of two epochs are shared out behind them."""
        from compress.prune.channels import prune_channels

        between = replace(RECIPE, schedule="constant")

        def finetune(model: Any, step: int, steps: int) -> None:
            self.taught(model, seed, self.eighths(step - 1, step, seed), between)

        options = ChannelOptions(steps=STEPS, **{"criterion": "l2", **settings})
        result = prune_channels(
            self.dense.model, options, macs=TARGET, data=self.data, finetune=finetune
        )
        return self.taught(result.model, seed, self.eighths(STEPS - 1, 8, seed))

    def peer(self, seeds: list[int]) -> list[dict[str, Any]]:
        """Lets Torch-Pruning do the same to the same weights; returns its variants."""
        with tempfile.TemporaryDirectory() as place:
            weights, data, out = (Path(place) / name for name in ("w.npz", "d.npz", "out.json"))
            subprocess.run(
                [sys.executable, "-m", "benchmarks.peers.export_resnet20", "--model",
                 str(self.dense.file), "--out", str(weights), "--data", str(data)], check=True,
            )  # fmt: skip
            subprocess.run(
                [PEERS["torch-pruning"].python(), str(PEER), "--weights", str(weights), "--data",
                 str(data), "--out", str(out), "--seeds", ",".join(map(str, seeds))], check=True,
            )  # fmt: skip
            variants: list[dict[str, Any]] = json.loads(out.read_text("utf-8"))["variants"]
        return variants

    def as_wide(self, variant: dict[str, Any]) -> Any:
        """Returns a net as wide as one that Torch-Pruning came to, to be timed with the others.

        Its weights are slices of the dense net, on which time does not depend.
        """
        from compress.prune.channels.analysis import coupling_of
        from compress.prune.channels.surgery import sliced_model

        coupling = coupling_of(self.dense.model)
        mask = np.ones(coupling.units, bool)
        for group in coupling.groups:
            mask[group.units[variant["channels"][group.name] :]] = False
        return sliced_model(coupling, mask)


def timed(models: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """Exports all, tests the files and times them against each other."""
    from compress.exporting.litert import export_litert
    from compress.measure import measure_latency
    from compress.measure.quality import outputs_of
    from compress.measure.runtimes.litert import LiteRTSession

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, model in models.items():
            paths[name] = Path(folder) / f"{name.replace(' ', '_')}.tflite"
            export_litert(model, paths[name])
            scores = outputs_of(LiteRTSession(paths[name], threads=1), [data.inputs("test")])[0]
            found[name] = {"litert_test": data.task.quality(data.test.y, scores)["accuracy"]}
        latencies = measure_latency(
            paths, LatencyOptions(budget=180.0), baselines=dict.fromkeys(paths, "dense")
        )
    for name, latency in latencies.items():
        found[name]["latency"] = latency.to_json()
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dense", type=Path, help="a trained net of benchmarks.resnet20")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Makes the variants that are missing, then times all files."""
    variants, state = Variants(given.dense), stored.provenance["peers"]["torch-pruning"]
    stored.result.setdefault("dense_sha256", variants.dense.sha256)
    if stored.result["dense_sha256"] != variants.dense.sha256:
        raise InputError("the dense net must be the one that the result began with (--dense).")
    runs = stored.result.setdefault("runs", {})
    models: dict[str, Any] = {}
    for seed in given.seeds:
        for name in variants.makers:
            key = f"{name}, seed {seed}"
            first = seed == given.seeds[0]  # its models are timed
            if key in runs and not first:
                continue
            model, record = variants.make(name, seed)
            models |= {name: model} if first else {}
            runs[key] = record
            print(key, json.dumps({**record, "widths": None}), flush=True)
            stored.save(runs=runs)
    peer = stored.result.get("torch-pruning")
    if not was_run(peer):
        peer = {"variants": variants.peer(list(given.seeds))} if was_run(state) else not_run(state)
    for variant in peer.get("variants", []):
        if variant["seed"] == given.seeds[0]:
            models[label_of(variant)] = variants.as_wide(variant)
    stored.save(**{"torch-pruning": peer, "files": timed(models, variants.data)})


def label_of(variant: dict[str, Any]) -> str:
    return f"torch-pruning {variant['method']} round {variant['round_to']}"


LABELS = {
    "dense": "dense",
    "l2 one-shot": "l2 at once, dense net as teacher",
    "l2 one-shot labels": "the same, labels alone",
    "l2 4 steps": "l2 in 4 steps, teacher",
    "l2 4 steps round 8": "l2 in 4 steps, teacher, `round_to=8`",
    "torch-pruning one_shot round 8": "torch-pruning, one-shot, `round_to=8`, labels",
    "torch-pruning progressive round 8": "torch-pruning, 400 small steps, `round_to=8`, labels",
    "torch-pruning one_shot round None": "torch-pruning, one-shot, no rounding, labels",
    "torch-pruning progressive round None": "torch-pruning, 400 small steps, no rounding, labels",
    "narrow from scratch": "uniformly narrower, from scratch for as long",
}


def variants(result: dict[str, Any]) -> str:
    """MACs, test accuracy and time of the variants."""
    tests, macs = gathered(result)
    same = Mean.of(tests["l2 one-shot labels"])
    rows = []
    for name, label in LABELS.items():
        if name not in tests:
            continue
        mean = Mean.of(tests[name])
        latency = result["files"].get(name, {}).get("latency")
        compared = "" if name in ("dense", "l2 one-shot labels") else verdict(mean, same)
        rows.append([
            label, f"{macs['dense'] / macs[name]:.2f}x", mean.percent(), compared,
            *told_latency(latency),
        ])  # fmt: skip
    peer = result["torch-pruning"]
    if not was_run(peer):
        rows.append(["torch-pruning", f"not run: {peer['not run']}", "", "", "", ""])
    head = ["how", "MACs old/new", "test accuracy", "points against l2 at once, labels alone",
            "latency", "old/new time"]  # fmt: skip
    return table(head, rows)


def gathered(result: dict[str, Any]) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Returns test accuracies and MACs by variant."""
    tests: dict[str, list[float]] = {}
    macs: dict[str, float] = {}
    for key, record in result["runs"].items():
        name = key.rpartition(", seed")[0]
        tests.setdefault(name, []).append(record["test"])
        macs.setdefault(name, record["macs"])
    peer = result["torch-pruning"]
    for variant in peer.get("variants", []) if was_run(peer) else []:
        name = label_of(variant)
        tests.setdefault(name, []).append(variant["test_accuracy"])
        macs.setdefault(name, variant["macs"][1])
    return tests, macs


BENCHMARK = Benchmark(
    "prune_resnet20", __doc__, run, {"variants": variants}, arguments,
    peers=("torch-pruning",), resumable=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
