"""A ResNet-20 on Fashion-MNIST without part of its channels, repaired and not trained.

    [TORCH_PRUNING_PYTHON=PYTHON] python -m benchmarks.repair_resnet20 [--dense MODEL.keras]
        [--targets 0.5,0.25,0.125] [--seeds 0,1,2] [--resume FILE]

From one trained dense net (benchmarks.resnet20) channels are removed at once, down to a share of
its MACs; 1,000 unlabelled training images are all that is looked at, for the choice, the repair and
what the repair holds back. A seed draws the images and what is held back of them. Beside it: no
repair; statistics of the normalizations re-estimated; GRAIL's ridge, alone and with statistics
re-estimated as its authors do; Torch-Pruning with statistics re-estimated
(benchmarks/peers/torch_pruning_cut.py). Test data are read once a variant and seed, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, not_run, seed_list, table
from benchmarks._repair import (
    AFTER,
    EXAMPLES,
    TORCH,
    WAYS,
    by_name,
    checked,
    examples,
    macs_of,
    points,
    pruned,
    span,
    torch_pruned,
)
from benchmarks._stored import Stored, was_run
from benchmarks.resnet20 import Variants

TARGETS = (0.5, 0.25, 0.125)


def arguments(parser: argparse.ArgumentParser) -> None:
    def numbers(text: str) -> tuple[float, ...]:
        return tuple(float(word) for word in text.split(","))

    parser.add_argument("--dense", type=Path, help="a trained net of benchmarks.resnet20")
    parser.add_argument("--targets", type=numbers, default=TARGETS, help="shares of the MACs")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="unlabelled images")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Measure what is missing."""
    variants = Variants(given.dense)
    checked(stored, variants)
    runs, dense = stored.result.setdefault("runs", {}), variants.dense
    if "dense" not in stored.result:
        stored.save(dense={"test": variants.accuracy(dense, "test"), "macs": macs_of(dense)})
    for seed in given.seeds:
        x = examples(variants, seed, given.examples)
        for target in given.targets:
            for name, way in WAYS.items():
                key = f"{name}, {target:g}, seed {seed}"
                if key in runs:
                    continue
                model, seconds = pruned(dense, way, target, x, seed)
                _keep(stored, variants, key, model, seconds)
    state = stored.provenance["peers"]["torch-pruning"]
    if not was_run(stored.result.get("torch-pruning")):
        stored.save(**{"torch-pruning": not_run(state)})
    wanted = [f"{name}, {target:g}, seed {seed}"
              for name in TORCH for target in given.targets for seed in given.seeds]  # fmt: skip
    if not was_run(state) or all(key in runs for key in wanted):
        return
    from compress.model.copies import copy_model

    for (name, target), (cut, record) in torch_pruned(variants, given.targets).items():
        for seed in given.seeds:
            model = copy_model(cut)
            x = examples(variants, seed, given.examples)
            AFTER["statistics"](model, dense, x, None, seed)
            seconds = {"choice": record["search_s"], "cut": 0.0, "after": 0.0}
            _keep(stored, variants, f"{name}, {target:g}, seed {seed}", model, seconds)
    stored.save(**{"torch-pruning": {"version": state}})


def _keep(
    stored: Stored, variants: Variants, key: str, model: Any, seconds: dict[str, float]
) -> None:
    """Evaluate on the test part and save the record."""
    stored.result["runs"][key] = {
        "macs": macs_of(model), "test": variants.accuracy(model, "test"), "seconds": seconds,
    }  # fmt: skip
    print(key, json.dumps(stored.result["runs"][key]), flush=True)
    stored.save()


def untrained(result: dict[str, Any]) -> str:
    """Return the table of points lost, MACs and seconds of each way and target."""
    dense, runs = result["dense"], result["runs"]
    tests, macs, seconds = (by_name(runs, field) for field in ("test", "macs", "seconds"))
    targets = list(dict.fromkeys(name.rpartition(", ")[2] for name in tests))
    labels = {name: way.label for name, way in WAYS.items()} | TORCH
    rows = []
    for name, label in labels.items():
        cells: list[object] = [label]
        own = [f"{name}, {target}" for target in targets]
        if not all(key in tests for key in own):
            continue
        for key in own:
            share = sum(macs[key]) / len(macs[key]) / dense["macs"]
            cells.append(f"{points(dense['test'], tests[key])} ({share:.3f}x)")
        parts = [record for key in own for record in seconds[key]]
        if name in TORCH:
            cells += ["", ""]
        else:
            cells.append(span([sum(record.values()) for record in parts], 1))
            cells.append(span([record["choice"] for record in parts], 1))
        rows.append(cells)
    peer = result.get("torch-pruning", {})
    if not was_run(peer):
        rows.append(["torch-pruning", f"not run: {peer.get('not run')}",
                     *[""] * (len(targets) + 1)])  # fmt: skip
    head = ["how", *(f"pp lost at {target}x MACs (MACs)" for target in targets), "seconds",
            "of these for the choice"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "repair_resnet20", __doc__, run,
    {"untrained": untrained}, arguments, peers=("torch-pruning",), resumable=True,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
