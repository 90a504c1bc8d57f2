"""A ResNet-20 on Fashion-MNIST with 80, 90 and 95 % zeros at once: repaired, not trained.

    python -m benchmarks.repair_weights [--dense MODEL.keras] [--sparsities 0.8,0.9,0.95]
        [--seeds 0,1,2] [--resume FILE]
    ... --finetune    two epochs of training after it, zeros held, beside tfmot
        [--ways labels,tfmot]    some of: labels, taught, not repaired, gradual,
                             gradual in each layer, tfmot

All kernels but the first and the last of one trained dense net (benchmarks.resnet20) are pruned at
once, by magnitude, in each layer or over all together. The other weights are reconstructed on 1,000
unlabelled training images, or stay. A seed draws the images and which of them are held back. With
`--finetune` the nets that were pruned over all layers are trained for two epochs with flips; tfmot
(benchmarks/peers/tfmot_resnet20.py, a process of its own) prunes the same net by the same schedule;
gradual: the unpruned net is pruned during the same training, its schedule polynomial, by one
ranking of all layers or the same share of each. Test data are read once a variant and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks._common import Benchmark, Mean, not_run, seed_list, table, verdict
from benchmarks._repair import EXAMPLES, by_name, checked, examples, points, span
from benchmarks._stored import Stored, was_run
from benchmarks.resnet20 import Variants
from compress.plan import WeightOptions


class Way(NamedTuple):
    """The scope of the ranking, and whether the other weights are reconstructed."""

    label: str
    scope: str
    repair: bool


WAYS = {
    "layer": Way("magnitude in each layer", "layer", False),
    "global": Way("magnitude over all layers", "global", False),
    "layer repaired": Way("magnitude in each layer, reconstructed", "layer", True),
    "global repaired": Way("magnitude over all layers, reconstructed", "global", True),
}
TRAINED = {
    "labels": "reconstructed, labels",
    "taught": "reconstructed, distilled from the original",
    "not repaired": "not reconstructed, labels",
    "gradual": "pruned while training, labels",
    "gradual in each layer": "pruned while training, the same share of each layer, labels",
    "tfmot": "tfmot while training, labels",
}


def pruned(dense: Any, way: Way, sparsity: float, x: Any, seed: int) -> tuple[Any, dict[str, Any]]:
    """Set weights to zero at once.

    Returns:
        The net, and its share of zeros and seconds: in all, and of the repair.
    """
    from compress.prune.weights import prune_weights

    options = WeightOptions(sparsity=sparsity, scope=way.scope)
    began = time.perf_counter()
    found = prune_weights(
        dense, x if way.repair else None, options, repair=len(x) if way.repair else False, seed=seed
    )
    seconds, repair = time.perf_counter() - began, found.report.repair
    return found.model, {
        "sparsity": found.report.sparsity, "seconds": seconds,
        "repair_seconds": repair.seconds if repair else 0.0,
    }  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    def numbers(text: str) -> tuple[float, ...]:
        return tuple(float(word) for word in text.split(","))

    parser.add_argument("--dense", type=Path, help="a trained net of benchmarks.resnet20")
    parser.add_argument("--sparsities", type=numbers, default=(0.8, 0.9, 0.95))
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="unlabelled images")
    parser.add_argument("--finetune", action="store_true", help="train two epochs after it")
    parser.add_argument(
        "--ways", type=_ways, default=tuple(TRAINED), help="of --finetune: which are trained"
    )
    seed_list(parser)


def _ways(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in TRAINED:
            raise argparse.ArgumentTypeError(f"must be among {', '.join(TRAINED)}: '{name}'")
    return names


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Measure what is missing."""
    variants = Variants(given.dense)
    checked(stored, variants)
    if "dense" not in stored.result:
        stored.save(dense={"test": variants.accuracy(variants.dense, "test")})
    stored.result["trained"] = given.finetune
    (_trained if given.finetune else _untrained)(given, stored, variants)


def _untrained(given: argparse.Namespace, stored: Stored, variants: Variants) -> None:
    for seed in given.seeds:
        x = examples(variants, seed, given.examples)
        for sparsity in given.sparsities:
            for name, way in WAYS.items():
                key = f"{name}, {sparsity:g}, seed {seed}"
                if key in stored.result.setdefault("runs", {}):
                    continue
                model, record = pruned(variants.dense, way, sparsity, x, seed)
                _keep(stored, variants, key, model, record)


def _trained(given: argparse.Namespace, stored: Stored, variants: Variants) -> None:
    state = stored.provenance["peers"]["tfmot"]
    for seed in given.seeds:
        x = examples(variants, seed, given.examples)
        for sparsity in given.sparsities:
            for name in given.ways:
                key = f"{name}, {sparsity:g}, seed {seed}"
                runs = stored.result.setdefault("runs", {})
                if key in runs or (name == "tfmot" and not was_run(state)):
                    continue
                began = time.perf_counter()
                model, zeros = _one(variants, name, sparsity, x, seed)
                seconds = time.perf_counter() - began
                _keep(stored, variants, key, model, {"sparsity": zeros, "seconds": seconds})
    measured = any(key.startswith("tfmot") for key in stored.result["runs"])
    stored.save(tfmot={"version": state} if measured else not_run(state))


def _one(variants: Variants, name: str, sparsity: float, x: Any, seed: int) -> tuple[Any, float]:
    """Train one variant and return it with its share of zeros."""
    if name == "tfmot":
        with tempfile.TemporaryDirectory() as folder:
            return variants.theirs(
                WeightOptions(sparsity=sparsity, scope="layer"), seed, Path(folder)
            )
    if name.startswith("gradual"):
        scope = "layer" if name.endswith("layer") else "global"
        options = WeightOptions(sparsity=sparsity, scope=scope)
        return variants.ours(options, seed, taught=False)
    way = WAYS["global" if name.startswith("not") else "global repaired"]
    start, _ = pruned(variants.dense, way, sparsity, x, seed)
    # the masks of the first step: what is zero is smallest, and stays so
    options = WeightOptions(sparsity=sparsity, scope=way.scope)
    return variants.ours(
        options, seed, taught=name == "taught", start=start,
        schedule=lambda step: (step == 1, sparsity),
    )  # fmt: skip


def _keep(stored: Stored, variants: Variants, key: str, model: Any, record: dict[str, Any]) -> None:
    """Evaluate on the test part and save the record."""
    stored.result["runs"][key] = {**record, "test": variants.accuracy(model, "test")}
    print(key, json.dumps(stored.result["runs"][key]), flush=True)
    stored.save()


def _shares(tests: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name.rpartition(", ")[2] for name in tests))


def untrained(result: dict[str, Any]) -> str | None:
    """Return the table of points lost by each way, at each share of zeros, and of seconds."""
    if result.get("trained", True):
        return None
    dense, runs = result["dense"]["test"], result["runs"]
    tests, seconds = by_name(runs, "test"), by_name(runs, "seconds")
    shares = _shares(tests)
    rows = []
    for name, way in WAYS.items():
        own = [f"{name}, {share}" for share in shares]
        if all(key in tests for key in own):
            taken = [value for key in own for value in seconds[key]]
            rows.append([way.label, *(points(dense, tests[key]) for key in own), span(taken, 1)])
    head = ["how weights are ranked",
            *(f"pp lost at {100 * float(share):g} % zeros" for share in shares),
            "seconds"]  # fmt: skip
    return table(head, rows)


def trained(result: dict[str, Any]) -> str | None:
    """Return the table of test accuracies after two epochs, by way of pruning."""
    if not result.get("trained", False):
        return None
    tests = by_name(result["runs"], "test")
    shares = _shares(tests)
    seeds = max(map(len, tests.values()))
    # one that was trained with fewer seeds than others is no column beside them
    names = [
        name
        for name in TRAINED
        if all(len(tests.get(f"{name}, {share}", ())) == seeds for share in shares)
    ]
    others = [name for name in names if name != "labels"]
    rows = []
    for share in shares:
        own = {name: Mean.of(tests[f"{name}, {share}"]) for name in names}
        rows.append([
            f"{100 * float(share):g} %", *(mean.percent() for mean in own.values()),
            *(verdict(own["labels"], own[name]) for name in others),
        ])  # fmt: skip
    head = ["zeros in the pruned kernels", *(TRAINED[name] for name in names),
            *(f"`{TRAINED['labels']}` less `{TRAINED[name]}`, pp" for name in others)]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "repair_weights", __doc__, run, {"untrained": untrained, "trained": trained}, arguments,
    peers=("tfmot",), resumable=True, grows=("seeds", "ways"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
