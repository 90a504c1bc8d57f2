"""Seconds of a training step with weight pruning or QAT, over those of a plain step.

    python -m benchmarks.step_speed [--rounds 10]

Pruning, two networks: a ResNet-20 and an MLP of 20 million weights, batch 128, SGD with momentum;
the MLP with batch 1,024 too, since holding costs one pass over the weights whatever the batch. In
each round, in random order, three copies run a block of steps of Keras's own training function:
plain; pruned with masks held and no update in the block; pruned with an update at every step.
"Every 100 steps" is computed from the two measured ratios: 99 steps that hold and one that updates.
Quantization-aware training, the ResNet-20: plain; with moving-average ranges.
tfmot's wrappers do the same on the same networks in tf_keras, in a process of their own
(benchmarks/peers/tfmot_speed.py): its int8 kernels are per channel, its ranges move, and its batch
normalizations run beside the convolutions that they are folded into in its files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, not_run, ratio, table, told_ratio
from benchmarks._stored import Stored, was_run

PEER = Path(__file__).parent / "peers" / "tfmot_speed.py"
SPARSITY = 0.8
NEVER = 1_000_000
QUANTIZED = "quantized"


class Case(NamedTuple):
    """A network, its batch, and the steps of a block without and with updates of masks."""

    network: str
    batch: int
    blocks: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return (28, 28, 1) if self.network == "resnet20" else (784,)


CASES = {
    "resnet20": Case("resnet20", 128, (20, 20)),
    "mlp": Case("mlp", 128, (10, 4)),
    "mlp, batch 1024": Case("mlp", 1024, (4, 4)),
    QUANTIZED: Case("resnet20", 128, (20, 20)),
}
LABELS = {
    "resnet20": "ResNet-20, batch 128",
    "mlp": "MLP, 20 M weights, batch 128",
    "mlp, batch 1024": "MLP, 20 M weights, batch 1,024",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Run both frameworks."""
    rounds, state = given.rounds, stored.provenance["peers"]["tfmot"]
    stored.result.update(rounds=rounds, sparsity=SPARSITY)
    for name, case in CASES.items():
        kind = summarize_quantized if name == QUANTIZED else summarize_pruned
        make = quantized_steps if name == QUANTIZED else pruned_steps
        row: dict[str, Any] = {
            "paretune": kind(timed(case, rounds, make(case))), "tfmot": not_run(state)
        }  # fmt: skip
        if was_run(state):
            command = [sys.executable, str(PEER), name, str(rounds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row["tfmot"] = kind(json.loads(done.stdout.splitlines()[-1]))
        stored.save(**{name: row})


def pruned_steps(case: Case) -> dict[str, Callable[[], Any]]:
    """Return one training step for each variant, compiled and warm."""
    import keras

    from benchmarks.resnet20 import build
    from compress.plan import WeightOptions
    from compress.prune.weights import WeightPruner
    from compress.prune.weights.schedules import build_schedule

    def mlp() -> Any:
        layers = [keras.layers.Dense(width, activation="relu") for width in (3072, 3072, 2560)]
        return keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10)])

    found = {}
    for variant, frequency in (("plain", 0), ("hold", NEVER), ("every", 1)):
        model = build() if case.network == "resnet20" else mlp()
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=case.network == "mlp"),
        )
        if frequency:
            config = {"target_sparsity": SPARSITY, "begin_step": 1, "end_step": -1}
            config = {
                "class_name": "ConstantSparsity",
                "config": {**config, "frequency": frequency},
            }
            schedule = build_schedule(config)
            options = WeightOptions(scope="layer", include=("ends",))
            WeightPruner(options, schedule=schedule).attach(model)
        found[variant] = compiled(model, case)
    return found


def quantized_steps(case: Case) -> dict[str, Callable[[], Any]]:
    """Return a training step of each kind, compiled and warm."""
    import keras

    from benchmarks.resnet20 import build
    from compress.quantization.fake_quantization import build_fake_quantized
    from compress.quantization.ranges import calibrate

    examples = np.random.default_rng(0).normal(size=(64, *case.shape)).astype(np.float32)
    steps = {}
    for variant in ("plain", "moving"):
        model = build()
        if variant != "plain":
            twin = build_fake_quantized(model)
            calibrate(twin, [examples])
            model = twin.model
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.SparseCategoricalCrossentropy()
        )
        steps[variant] = compiled(model, case)
    return steps


def compiled(model: Any, case: Case) -> Callable[[], Any]:
    """Return a call of the model's own training function on one batch, warm."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    batch = (
        rng.normal(size=(case.batch, *case.shape)).astype(np.float32),
        rng.integers(0, 10, case.batch).astype(np.int32),
    )
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model.make_train_function()
    function = model.train_function

    def step() -> Any:
        return function(iterator)

    for _ in range(3):
        step()
    return step


def timed(case: Case, rounds: int, steps: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Time blocks in turns and return seconds a step, by variant."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    for _ in range(rounds):
        for variant in rng.permutation(list(steps)):
            count = case.blocks[variant == "every"]
            steps[variant]()
            began = time.perf_counter()
            for _ in range(count):
                steps[variant]()
            seconds[variant].append((time.perf_counter() - began) / count)
    return seconds


def summarize_quantized(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return quantized / plain, paired by round, with their spread."""
    plain = seconds["plain"]
    ratios = {
        f"{variant} / plain": ratio(taken, plain)
        for variant, taken in seconds.items()
        if variant != "plain"
    }
    return {"seconds a plain step": float(np.median(plain)), **ratios}


def summarize_pruned(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return pruned / plain, paired by round, with their spread."""
    hold, every = np.asarray(seconds["hold"]), np.asarray(seconds["every"])
    return {
        "seconds a plain step": float(np.median(seconds["plain"])),
        "masks held / plain": ratio(seconds["hold"], seconds["plain"]),
        "update every step / plain": ratio(seconds["every"], seconds["plain"]),
        "update every 100 steps / plain (computed)": ratio(
            list((99 * hold + every) / 100), seconds["plain"]
        ),
    }


def pruning(result: dict[str, Any]) -> str:
    """Return the table of training steps with pruning over those without."""
    keys = ("masks held / plain", "update every step / plain",
            "update every 100 steps / plain (computed)")  # fmt: skip
    rows = []
    for name, label in LABELS.items():
        for side in ("paretune", "tfmot"):
            row = result[name][side]
            cells = [told_ratio(row[key] if was_run(row) else row) for key in keys]
            rows.append([label if side == "paretune" else "", side, *cells])
    head = ["network", "", "masks held", "updated every step",
            "every 100 steps (computed from both)"]  # fmt: skip
    return table(head, rows)


def quantization(result: dict[str, Any]) -> str:
    """Return the table of quantization-aware training steps over plain ones."""
    rows = [
        [side, told_ratio(row["moving / plain"] if was_run(row) else row)]
        for side, row in result[QUANTIZED].items()
    ]
    return table(["ResNet-20, batch 128", "quantization-aware training"], rows)


BENCHMARK = Benchmark(
    "step_speed", __doc__, run, {"pruning": pruning, "quantization": quantization}, arguments,
    peers=("tfmot",),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
