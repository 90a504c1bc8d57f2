"""Seconds of a training step with weight pruning, over without; beside tfmot on the tf_keras twin.

    python -m benchmarks.weights_speed [--rounds 7]

Two networks: a ResNet-20 and an MLP of 20 million weights, batch 128, SGD with momentum. In each
round, in random order, three copies run a block of steps of Keras's own training function:
plain; pruned with masks held and no update in the block; pruned with an update at every step.
tfmot's wrappers do the same on the same networks in tf_keras, in a process of their own
(benchmarks/peers/tfmot_speed.py). "Every 100 steps" is computed from the two measured ratios:
99 steps that hold and one that updates.
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
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import ratio, save

PEER = Path(__file__).parent / "peers" / "tfmot_speed.py"
SPARSITY, BATCH = 0.8, 128
NEVER = 1_000_000
# steps of a block without and with updates
BLOCKS = {"resnet20": (20, 20), "mlp": (10, 4)}
SHAPES = {"resnet20": (28, 28, 1), "mlp": (784,)}


def main() -> None:
    """Runs both frameworks and writes benchmarks/results/weights_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    result: dict[str, Any] = {"rounds": rounds, "sparsity": SPARSITY, "batch": BATCH}
    for name in BLOCKS:
        ours = timed(name, rounds, steps_of(name))
        command = [sys.executable, str(PEER), name, str(rounds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
        result[name] = {"paretune": summary(ours), "tfmot": summary(theirs)}
        print(name, json.dumps(result[name], indent=2), flush=True)
    save("weights_speed", result)


def steps_of(name: str) -> dict[str, Callable[[], Any]]:
    """Returns one training step for each variant, compiled and warm."""
    import keras

    from benchmarks.resnet20 import build
    from compress import tfmot_bridge
    from compress.plan import WeightOptions
    from compress.prune.weights import WeightPruner

    def mlp() -> Any:
        layers = [keras.layers.Dense(width, activation="relu") for width in (3072, 3072, 2560)]
        return keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10)])

    found = {}
    for variant, frequency in (("plain", 0), ("hold", NEVER), ("every", 1)):
        model = build() if name == "resnet20" else mlp()
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=name == "mlp"),
        )
        if frequency:
            schedule = tfmot_bridge.constant_schedule(SPARSITY, 1, -1, frequency)
            options = WeightOptions(also=("ends",))
            WeightPruner(options, schedule=schedule).attach(model)
        found[variant] = compiled(model, SHAPES[name])
    return found


def compiled(model: Any, shape: tuple[int, ...]) -> Callable[[], Any]:
    """Returns a call of the model's own training function on one batch, warm."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    batch = (
        rng.normal(size=(BATCH, *shape)).astype(np.float32),
        rng.integers(0, 10, BATCH).astype(np.int32),
    )
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model.make_train_function()
    function = model.train_function

    def step() -> Any:
        return function(iterator)

    for _ in range(3):
        step()
    return step


def timed(name: str, rounds: int, steps: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Times blocks in turns; seconds a step, by variant."""
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {variant: [] for variant in steps}
    for _ in range(rounds):
        for variant in rng.permutation(list(steps)):
            count = BLOCKS[name][variant == "every"]
            steps[variant]()
            began = time.perf_counter()
            for _ in range(count):
                steps[variant]()
            seconds[variant].append((time.perf_counter() - began) / count)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns pruned / plain, paired by round, with 95 % intervals."""
    hold, every = np.asarray(seconds["hold"]), np.asarray(seconds["every"])
    return {
        "seconds a plain step": float(np.median(seconds["plain"])),
        "masks held / plain": ratio(seconds["hold"], seconds["plain"]),
        "update every step / plain": ratio(seconds["every"], seconds["plain"]),
        "update every 100 steps / plain (computed)": ratio(
            list((99 * hold + every) / 100), seconds["plain"]
        ),
    }


if __name__ == "__main__":
    main()
