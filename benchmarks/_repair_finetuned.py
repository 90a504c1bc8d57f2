"""Two epochs of training after repair: the part of repair_resnet20 with `--finetune`.

Nets at a quarter of the MACs, one cut repaired and not repaired, and one whose widths and blocks
were chosen by measured time, are taught by the dense net as in prune_resnet20 (one epoch over the
training part doubled by its mirror images); so are the dense net itself and Torch-Pruning's net of
a quarter of the MACs. The time aimed at is that of Torch-Pruning's net, where it is there. Each is
trained at the learning rate used there; at the first seed also at the lower ones, and where one of
these is better on the validation part, at all seeds. The files are timed together, those of the
first seed: time does not depend on the training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks._common import Mean, table, verdict
from benchmarks._latency import told_latency
from benchmarks._peers import not_run
from benchmarks._repair import (
    TORCH,
    WAYS,
    Way,
    by_name,
    examples,
    macs_of,
    pruned,
    torch_pruned,
)
from benchmarks._repair_timed import Chooser
from benchmarks._stored import Stored, was_run
from benchmarks.prune_resnet20 import RECIPE, Variants, timed

TARGET = 0.25
RATES = (RECIPE.learning_rate, RECIPE.learning_rate / 4)
"""The first is tried everywhere."""
PEER = "torch-pruning global"
OURS = {
    "damage, none": replace(WAYS["damage"], label="the same cut, not repaired", after="nothing"),
    "damage": WAYS["damage"],
}
LABELS = {
    "dense": "dense, two more epochs",
    "damage": OURS["damage"].label,
    "damage, none": OURS["damage, none"].label,
    "time": "widths and blocks by measured time, repaired",
    PEER: TORCH[PEER].removesuffix(", statistics re-estimated"),
}
Maker = Callable[[int], Any]


def makers(given: argparse.Namespace, stored: Stored, variants: Variants) -> dict[str, Maker]:
    """Returns what makes each net that is trained, by seed."""
    from compress.model.copies import copy_model
    from compress.reconstruction import repair

    dense = variants.dense.model

    def ours(way: Way) -> Maker:
        def make(seed: int) -> Any:
            x = examples(variants, seed, given.examples)
            return pruned(dense, way, TARGET, x, seed)[0]

        return make

    state = stored.provenance["peers"]["torch-pruning"]
    peer = stored.result.get("torch-pruning")
    theirs = None
    if was_run(state):
        theirs, peer = torch_pruned(variants, (TARGET,))[PEER, TARGET][0], {"version": state}
    stored.save(**{"torch-pruning": peer if was_run(peer) else not_run(state)})
    chooser: list[Chooser] = []

    def by_time(seed: int) -> Any:
        if not chooser:
            chooser.append(Chooser(dense))
            factor = given.factor if theirs is None else chooser[0].factor(theirs)
            stored.result.setdefault("factor", factor)
        x = examples(variants, seed, given.examples)
        weighed = chooser[0].weighed(x, seed)
        nearest, _ = chooser[0].nearest("both", weighed, stored.result["factor"])
        model, kept = chooser[0].cut(nearest)
        repair(model, dense, x, kept=kept, examples=len(x), seed=seed)
        return model

    found: dict[str, Maker] = {"dense": lambda seed: copy_model(dense)}
    found |= {name: ours(way) for name, way in OURS.items()} | {"time": by_time}
    if theirs is not None:
        found[PEER] = lambda seed: copy_model(theirs)
    return found


def run(given: argparse.Namespace, stored: Stored, variants: Variants) -> None:
    """Trains what is missing, then times all files together."""
    runs = stored.result.setdefault("runs", {})
    nets = stored.result.setdefault("nets", {})
    stored.result["rates"] = list(given.rates)
    models: dict[str, Any] = {}
    for name, make in makers(given, stored, variants).items():
        for seed in given.seeds:
            first = seed == given.seeds[0]
            missing = [rate for rate in wanted(name, seed, given, runs)
                       if key_of(name, rate, seed) not in runs]  # fmt: skip
            if not (missing or first):
                continue
            model = make(seed)
            models |= {name: model} if first else {}
            # nets before training are judged by validation data: test data are read once
            nets[f"{name}, seed {seed}"] = {
                "macs": macs_of(model), "val": variants.accuracy(model, "val"),
            }  # fmt: skip
            for rate in missing:
                runs[key_of(name, rate, seed)] = _trained(variants, model, rate, seed)
                print(key_of(name, rate, seed), json.dumps(runs[key_of(name, rate, seed)]),
                      flush=True)  # fmt: skip
                stored.save(runs=runs, nets=nets)
    stored.save(files=timed(models, variants.data))


def key_of(name: str, rate: float, seed: int) -> str:
    """Returns the key of a run."""
    return f"{name}, rate {rate:g}, seed {seed}"


def wanted(name: str, seed: int, given: argparse.Namespace, runs: dict[str, Any]) -> list[float]:
    """Returns the learning rates of a run: all at the first seed, then the usual and the best."""
    if seed == given.seeds[0]:
        return list(given.rates)
    return list(dict.fromkeys([given.rates[0], best_rate(name, given.seeds[0], runs)]))


def best_rate(name: str, seed: int, runs: dict[str, Any]) -> float:
    """Returns the rate of the best accuracy on the validation part at a seed."""
    at = {record["rate"]: record["val"] for key, record in runs.items()
          if key.startswith(f"{name}, rate ") and key.endswith(f", seed {seed}")}  # fmt: skip
    return max(at, key=lambda rate: at[rate])


def _trained(variants: Variants, model: Any, rate: float, seed: int) -> dict[str, Any]:
    """Trains a copy, taught by the dense net, and reads the test part."""
    import keras

    from compress.model.copies import copy_model

    student = copy_model(model)
    keras.utils.set_random_seed(seed)
    began = time.perf_counter()
    variants.taught(student, seed, settings=replace(RECIPE, learning_rate=rate))
    return {
        "rate": rate, "seconds": time.perf_counter() - began,
        "val": variants.accuracy(student, "val"), "test": variants.accuracy(student, "test"),
    }  # fmt: skip


def finetuned(result: dict[str, Any]) -> str | None:
    """Test accuracy after two epochs, against the dense net's, and measured time."""
    if "rates" not in result or "files" not in result:
        return None
    usual, runs = result["rates"][0], result["runs"]
    tests, macs = by_name(runs, "test"), by_name(result["nets"], "macs")
    before = by_name(result["nets"], "val")
    first = min(int(key.rpartition("seed ")[2]) for key in runs)

    def chosen(name: str) -> tuple[float, list[float]]:
        rate = best_rate(name, first, runs)
        return rate, tests[f"{name}, rate {rate:g}"]

    dense = Mean.of(chosen("dense")[1])
    rows = []
    for name, label in LABELS.items():
        if name not in macs:
            continue
        rate, values = chosen(name)
        found = Mean.of(values)
        rows.append([
            label, f"{macs['dense'][0] / macs[name][0]:.2f}x", Mean.of(before[name]).percent(),
            Mean.of(tests[f"{name}, rate {usual:g}"]).percent(), f"{found.percent()} ({rate:g})",
            "" if name == "dense" else verdict(found, dense),
            *told_latency(result["files"][name]["latency"]),
        ])  # fmt: skip
    peer = result["torch-pruning"]
    if not was_run(peer):
        rows.append(["torch-pruning", f"not run: {peer['not run']}", *[""] * 6])
    head = ["how", "MACs old/new", "validation accuracy before training",
            f"test accuracy, learning rate {usual:g}",
            "at the rate chosen on validation data (rate)",
            "points against the dense net's two more epochs", "latency",
            "old/new time"]  # fmt: skip
    return table(head, rows)
