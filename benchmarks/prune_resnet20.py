"""A ResNet-20 on Fashion-MNIST at a quarter of its MACs: pruned, or narrow from scratch.

    python -m benchmarks.prune_resnet20 [--dense MODEL.keras] [--save-dense MODEL.keras]
        [--peer TORCH_PRUNING.json]

Every variant gets two epochs of training with random flips (one epoch over the training part
doubled by its mirror images), SGD with momentum, batch 128, a cosine from 0.02: the channels of
one trained dense net are removed at once or in four steps, with an eighth of the examples behind
each of the first three and the rest behind the last, taught by the dense net or by labels alone.
The comparison is the same network with uniformly narrower layers, trained from scratch for as
long. Validation data select; test data are read once a variant, at the end, of the LiteRT file
too. Latency is measured in blocks, all files together.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import save
from benchmarks.resnet20 import build, load_fashion, with_flips
from compress.data import Dataset
from compress.plan import ChannelOptions, DistillOptions, LatencyOptions, TrainSettings

TARGET = 0.25
STEPS = 4
DENSE = TrainSettings(
    epochs=6, optimizer="momentum", learning_rate=0.1, batch_size=128, weight_decay=5e-3
)
RECIPE = TrainSettings(epochs=1, optimizer="momentum", learning_rate=0.02, batch_size=128)
SCRATCH = replace(RECIPE, learning_rate=0.1)


@dataclass(frozen=True)
class Result:
    """One variant."""

    name: str
    macs: int
    params: int
    val: float
    test: float
    litert_test: float
    seconds: float
    widths: list[int]


class Bench:
    """The data, the device and the dense net that all variants share."""

    def __init__(self, dense: Path | None, only: str) -> None:
        from compress.device import quiet_tensorflow, setup
        from compress.io import load_model

        quiet_tensorflow()
        self.device = setup("cpu")
        self.data = load_fashion()
        self.flipped = with_flips(self.data)
        self.only = only
        self.dense: Any = load_model(dense) if dense else self.trained(build(), DENSE)
        self.results: list[Result] = []
        self.models: dict[str, Any] = {}

    def trained(self, model: Any, settings: TrainSettings, data: Dataset | None = None) -> Any:
        """Trains on labels."""
        from compress.train import train

        train(model, data or self.flipped, settings, device=self.device)
        return model

    def taught(
        self, model: Any, data: Dataset | None = None, settings: TrainSettings = RECIPE
    ) -> Any:
        """Trains with the dense net as the teacher."""
        from compress.distill import distill

        distill(
            model,
            self.dense,
            data or self.flipped,
            DistillOptions(),
            finetune=settings,
            device=self.device,
        )
        return model

    def eighths(self, first: int, last: int) -> Dataset:
        """Returns eighths [first, last) of the flipped training examples, in random order."""
        order = np.random.default_rng(0).permutation(len(self.flipped.train))
        size = len(order) // 8
        chosen = np.sort(order[first * size : last * size])
        return replace(self.flipped, train=self.flipped.train.take(chosen))

    def add(self, name: str, make: Callable[[], Any]) -> None:
        """Makes a variant and measures its quality."""
        from compress.measure import count_macs
        from compress.predict import predict_logits

        if self.only not in name:
            return
        start = time.perf_counter()
        model = make()
        seconds = time.perf_counter() - start

        def accuracy(part: str) -> float:
            return self.data.task.quality(
                self.data.split(part).y, predict_logits(model, self.data, part)
            )["accuracy"]

        counted = count_macs(model)
        widths = [layer.filters for layer in model.layers if hasattr(layer, "filters")]
        self.models[name] = model
        self.results.append(
            Result(
                name,
                counted.macs,
                counted.params,
                accuracy("val"),
                accuracy("test"),
                0.0,
                seconds,
                widths,
            )
        )
        print(json.dumps(asdict(self.results[-1])), flush=True)

    def pruned(self, **settings: Any) -> Any:
        """Removes channels at once."""
        from compress.prune.channels import prune_channels

        options = ChannelOptions(**settings)
        return prune_channels(self.dense, options, macs=TARGET, data=self.data).model

    def in_steps(self, **settings: Any) -> Any:
        """Removes channels in steps; the examples of two epochs are shared out behind them."""
        from compress.prune.channels import prune_channels

        between = replace(RECIPE, schedule="constant")

        def finetune(model: Any, step: int, steps: int) -> None:
            self.taught(model, self.eighths(step - 1, step), between)

        options = ChannelOptions(steps=STEPS, **settings)
        result = prune_channels(self.dense, options, macs=TARGET, data=self.data, finetune=finetune)
        return self.taught(result.model, self.eighths(STEPS - 1, 8))

    def peers(self, record: Path) -> dict[str, dict[str, Any]]:
        """Makes nets as wide as those that Torch-Pruning came to, to be timed with the others.

        Their accuracies are those that benchmarks/peers/torch_pruning_resnet20.py measured; the
        weights here are slices of the dense net, on which time does not depend.
        """
        from compress.prune.channels.coupling import coupling_of
        from compress.prune.channels.surgery import sliced_model

        coupling = coupling_of(self.dense)
        found = {}
        for variant in json.loads(record.read_text("utf-8"))["variants"]:
            name = f"torch-pruning {variant['method']} round {variant['round_to']}"
            mask = np.ones(coupling.units, bool)
            for group in coupling.groups:
                mask[group.units[variant["channels"][group.name] :]] = False
            self.models[name] = sliced_model(coupling, mask)
            found[name] = {key: variant[key] for key in ("macs", "val_accuracy", "test_accuracy")}
        return found

    def files(self, folder: Path) -> dict[str, Any]:
        """Exports all variants, tests the files and times them against each other."""
        from compress.export.litert import export_litert
        from compress.measure import measure_latency
        from compress.measure.quality import run_all
        from compress.measure.runtimes import LiteRTSession

        paths = {}
        for index, (name, model) in enumerate(self.models.items()):
            paths[name] = folder / f"{name.replace(' ', '_')}.tflite"
            export_litert(model, paths[name])
            if index >= len(self.results):
                continue
            scores = run_all(LiteRTSession(paths[name], threads=1), self.data.inputs("test"))
            accuracy = self.data.task.quality(self.data.test.y, scores)["accuracy"]
            self.results[index] = replace(self.results[index], litert_test=accuracy)
        timed = measure_latency(
            paths, LatencyOptions(budget=180.0), baselines=dict.fromkeys(paths, next(iter(paths)))
        )
        return {name: latency.to_json() for name, latency in timed.items()}


def main() -> None:
    """Runs all variants and writes benchmarks/results/prune_resnet20.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dense", type=Path, help="a trained net of benchmarks.resnet20.build")
    parser.add_argument("--save-dense", type=Path, help="where to keep the dense net")
    parser.add_argument("--peer", type=Path, help="what torch_pruning_resnet20.py wrote")
    parser.add_argument("--only", default="", help="part of the variants' names; nothing is saved")
    arguments = parser.parse_args()
    from compress.io import save_model

    bench = Bench(arguments.dense, arguments.only)
    if arguments.save_dense:
        save_model(bench.dense, arguments.save_dense)
    bench.add("dense", lambda: bench.dense)
    bench.add("narrow from scratch", lambda: bench.trained(build((8, 16, 32)), SCRATCH))
    bench.add("l2 one-shot labels", lambda: bench.trained(bench.pruned(), RECIPE))
    bench.add("l2 one-shot", lambda: bench.taught(bench.pruned()))
    bench.add("l2 4 steps", lambda: bench.in_steps())
    bench.add("l2 one-shot round 8", lambda: bench.taught(bench.pruned(round_to=8)))
    bench.add("l2 4 steps round 8", lambda: bench.in_steps(round_to=8))
    if arguments.only:
        return
    peers = bench.peers(arguments.peer) if arguments.peer else {}
    with tempfile.TemporaryDirectory() as folder:
        latency = bench.files(Path(folder))
    save(
        "prune_resnet20",
        {
            "results": [asdict(result) for result in bench.results],
            "torch-pruning": peers,
            "latency": latency,
        },
    )


if __name__ == "__main__":
    main()
