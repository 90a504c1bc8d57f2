"""Sub-networks of a ResNet-20, found without training, then fine-tuned: beside shrink's front.

    python -m benchmarks.around_front --beside RESULT [--trials 200] [--models 8] [--trainings 3]

`paretune search --space around:... --no-train` cuts, repairs and judges sub-networks of the net in
benchmarks/nets (Fashion-MNIST); what goes on from its front is fine-tuned for as many steps as
`shrink` trains a net, as often as asked, with seeds of their own. Each is held against nets of at
most its MACs from a stored result of `shrink_peers` (RESULT): the best of `shrink` on validation
data and the best of torch-pruning, of each seed there. Test data are read once a training.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import _stored
from benchmarks._common import Benchmark, Mean, table, verdict
from benchmarks._stored import ROOT, Stored
from benchmarks.shrink_peers import DENSE, NET
from compress.core.atomic_files import read_json
from compress.core.errors import InputError

EPOCHS = 3
"""Of 399 steps: what `shrink` makes of its 1,000 steps."""
THEIRS = ("shrink", "torch-pruning")


def searched(place: Path, trainings: int, trials: int, models: int) -> float:
    """Runs the command; returns its seconds.

    Args:
        place: Folder of the run.
        trainings: Final ones of each model.
        trials: Sub-networks that are judged.
        models: That are fine-tuned.
    """
    began = time.perf_counter()
    words = [
        "--data", "fashion_mnist", "--space", f"around:{NET.relative_to(ROOT)}", "--no-train",
        "--trials", str(trials), "--final-models", str(models), "--final-epochs", str(EPOCHS),
        "--final-seeds", str(trainings), "--out", str(place),
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "paretune", "search", *words], check=True, cwd=ROOT)
    return time.perf_counter() - began


def found_there(place: Path) -> dict[str, Any]:
    """Returns what a run's folder says of the models that were fine-tuned, and of the search."""
    from search.study.directory import SearchFolder

    folder = SearchFolder(place)
    candidates = {item.id: item for item in folder.read_candidates()}
    models: dict[str, Any] = {}
    for final in folder.read_finals():
        candidate = candidates[final.model]
        row = models.setdefault(final.model, {
            "macs": candidate.macs, "params": candidate.params,
            "untrained": candidate.val["accuracy"], "finals": [],
        })  # fmt: skip
        row["finals"].append({
            "seed": final.seed, "val": final.val["accuracy"], "test": final.test["accuracy"],
            "seconds": final.seconds, "best_epoch": final.best_epoch,
        })  # fmt: skip
    done = [item for item in candidates.values() if item.state == "complete"]
    seconds = read_json(place / "search_seconds.json")["seconds"]
    return {"models": models, "judged": len(done), "search_seconds": seconds}


def beside(file: Path) -> dict[str, Any]:
    """Returns the float32 nets of a stored result of `shrink_peers`, by seed and name."""
    stored = _stored.read(file, "shrink_peers")
    nets: dict[str, Any] = {}
    for key, run_ in stored.result["runs"].items():
        way, _, seed = key.rpartition(", ")
        for name, item in run_["files"].items():
            if item["format"] == "float32" and (way in THEIRS or name == DENSE):
                kept = {part: item[part] for part in ("macs", "val", "test")}
                nets.setdefault(seed, {})[name] = kept
    return {"file": str(file), "of": stored.origin(), "nets": nets}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--beside", type=Path, help="a result of shrink_peers")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--models", type=int, default=8, help="that are fine-tuned")
    parser.add_argument("--trainings", type=int, default=3, help="of each model")


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Searches, fine-tunes, and keeps the others' nets with it."""
    if given.beside is None:
        raise InputError("--beside must name a stored result of benchmarks.shrink_peers.")
    theirs = beside(given.beside)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        seconds = searched(place, given.trainings, given.trials, given.models)
        stored.save(**found_there(place), seconds=seconds, beside=theirs)


def best_within(nets: Mapping[str, Mapping[str, float]], way: str, macs: float) -> str | None:
    """Returns the net of a way that is best on validation data among those of at most so many MACs.

    Args:
        nets: Of a seed, by name.
        way: One of `THEIRS`; the dense net is of each.
        macs: The most.
    """
    fit = {
        name: item["val"]
        for name, item in nets.items()
        if (name.startswith(f"{way}, ") or name == DENSE) and item["macs"] <= macs
    }
    return max(fit, key=lambda name: fit[name]) if fit else None


def front(result: dict[str, Any]) -> str:
    """Each fine-tuned sub-network beside the others' best of at most its MACs."""
    by_seed: Sequence[Mapping[str, Any]] = list(result["beside"]["nets"].values())
    rows = []
    for item in sorted(result["models"].values(), key=lambda item: float(item["macs"])):
        ours = Mean.of([final["test"] for final in item["finals"]])
        row = [f"{item['macs'] / 1e6:.2f} M", f"{100 * item['untrained']:.2f} %", ours.percent()]
        for way in THEIRS:
            found = [nets[name] for nets in by_seed
                     if (name := best_within(nets, way, item["macs"]))]  # fmt: skip
            if len(found) < len(by_seed):
                row += ["none", "", ""]
                continue
            accuracy = Mean.of([net["test"] for net in found])
            macs = sum(net["macs"] for net in found) / len(found)
            row += [f"{macs / 1e6:.2f} M", accuracy.percent(), verdict(ours, accuracy)]
        rows.append(row)
    head = ["MACs", "as cut and repaired, validation", "fine-tuned, test"]
    for way in THEIRS:
        head += [f"{way}: MACs", f"{way}: test", "points, around against it"]
    return table(head, rows)


BENCHMARK = Benchmark("around_front", __doc__, run, {"front": front}, arguments)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
