"""Seconds of a training step in whole numbers over one in floats; beside tfmot on tf_keras.

    python -m benchmarks.quantize_speed [--rounds 10]

A ResNet-20, batch 128, SGD with momentum. In each round, in random order, copies run a block of
steps of Keras's own training function: plain; fake-quantized with moving ranges; with ranges that
are trained. tfmot's `quantize_model` does the same on the same network in tf_keras, in a process of
its own (benchmarks/peers/tfmot_qat_speed.py): its kernels are per channel, its ranges move, and its
batch normalizations run beside the convolutions that they are folded into in its files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, ratio, table, told_ratio
from benchmarks._peers import not_run
from benchmarks._stored import Stored, was_run
from benchmarks.weights_speed import Case, compiled, timed

PEER = Path(__file__).parent / "peers" / "tfmot_qat_speed.py"
CASE = Case("resnet20", 128, (20, 20))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Runs both frameworks."""
    rounds, state = given.rounds, stored.provenance["peers"]["tfmot"]
    stored.result.update(rounds=rounds)
    stored.save(paretune=summary(timed(CASE, rounds, steps_of())), tfmot=not_run(state))
    if was_run(state):
        command = [sys.executable, str(PEER), str(rounds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        stored.save(tfmot=summary(json.loads(done.stdout.splitlines()[-1])))


def steps_of() -> dict[str, Callable[[], Any]]:
    """Returns one training step for each variant, compiled and warm."""
    import keras

    from benchmarks.resnet20 import build
    from compress.quantization.ranges import calibrate
    from compress.quantization.twin import twin_of

    examples = np.random.default_rng(0).normal(size=(64, *CASE.shape)).astype(np.float32)
    found = {}
    for variant in ("plain", "moving", "learned"):
        model = build()
        if variant != "plain":
            twin = twin_of(model, learned=variant == "learned")
            calibrate(twin, [examples], "minmax")
            model = twin.model
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(),
        )
        found[variant] = compiled(model, CASE)
    return found


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns quantized / plain, paired by round, with their spread."""
    return {
        "seconds a plain step": float(np.median(seconds["plain"])),
        **{
            f"{variant} / plain": ratio(found, seconds["plain"])
            for variant, found in seconds.items()
            if variant != "plain"
        },
    }


def steps(result: dict[str, Any]) -> str:
    """A training step in whole numbers over one in floats."""
    rows = []
    for side in ("paretune", "tfmot"):
        row = result[side]
        cells = [
            told_ratio(row.get(f"{kind} / plain") if was_run(row) else row)
            for kind in ("moving", "learned")
        ]
        rows.append([side, *cells])
    return table(["ResNet-20, batch 128", "ranges move", "ranges are trained"], rows)


BENCHMARK = Benchmark("quantize_speed", __doc__, run, {"steps": steps}, arguments, peers=("tfmot",))


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
