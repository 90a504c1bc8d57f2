"""A ResNet-20 made faster by `shrink` and by others: quality at equal measured time.

    [TORCH_PRUNING_PYTHON=PYTHON] python -m benchmarks.shrink_peers [--seeds 0,1,2]
        [--ways shrink,narrower] [--resume FILE]

All begin with the net in benchmarks/nets (Fashion-MNIST), but those that are trained from scratch.

- `shrink`: each file of the front of `shrink(net, data)`, no goal, no other option.
- `narrower`: every layer as much narrower, from scratch, trained as the net itself was (twelve
  epochs with flips): six times as long as the others.
- `torch-pruning`: l2 down to shares of the MACs, statistics re-estimated, then trained as `shrink`
  trains what it has cut, with the same teacher. Each share is reached over all layers and with the
  same share of every layer, in one round and in two, each followed by half of the epochs. For each
  share, validation data of the first seed select the setting; the other seeds have no other one.
- `tfmot`: 80 % zeros, pruned while it is trained for two epochs with flips.
- `int8`: the net itself.

Each net becomes a float32 and an int8 file by the same exporter; accuracies are those of the files,
validation data choose, test data are read once a file. All files of a seed are timed together. A
file of `shrink` is held against each of the others: the best on validation data of those of its
format that take no more time. Files lie in runs/benchmarks/shrink_peers until their seed is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, not_run, seed_list, table, verdict
from benchmarks._repair import BATCHES, EXAMPLES
from benchmarks._stored import ROOT, Stored, was_run
from compress.plan import (
    DistillOptions,
    ExportOptions,
    LatencyOptions,
    Plan,
    WeightOptions,
)
from compress.plan.shrink import ShrinkTraining

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

NET = ROOT / "benchmarks" / "nets" / "resnet20.keras"
PLACE = ROOT / "runs" / "benchmarks" / "shrink_peers"
DENSE = "int8, itself, float32"
WIDTHS = {"0.5x": (8, 16, 32), "0.37x": (6, 12, 24)}
"""By their share of the channels; layers of some runtimes like multiples of four."""
TARGETS = (0.5, 0.25, 0.125)
"""Of Torch-Pruning, shares of the MACs."""
SCOPES = {"over all layers": "global", "in every layer": "layer"}
ROUNDS = (1, 2)
"""Times that Torch-Pruning prunes and trains; each round trains for its part of the epochs."""
SPARSITY = 0.8
LABELS = {
    "narrower": "uniformly narrower, from scratch, six times as long",
    "torch-pruning": "torch-pruning, l2, trained as ours",
    "tfmot": "tfmot, 80 % zeros",
    "int8": "the net itself",
}
WAYS = ("int8", "shrink", *(way for way in LABELS if way != "int8"))
FORMATS = ("float32", "int8")
TIE = 1.01
"""Times within one per cent are equal: that is how far they are measured."""
Files = Mapping[str, Mapping[str, float]]
COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#000000")
"""Okabe and Ito's, which readers who see few colours can tell apart."""
TICKS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05, 0.035)
MARKS = ("o", "s", "D", "^", "v", "*")


class Nets:
    """The data, the dense net, and the nets that are made of it."""

    def __init__(self) -> None:
        from benchmarks.resnet20 import Variants

        self._variants = Variants(NET)
        self.device, self.data = self._variants.device, self._variants.data

    @property
    def dense(self) -> keras.Model:
        """The net that is made faster."""
        return self._variants.dense

    def made(
        self, way: str, seed: int, settings: Sequence[str] | None = None
    ) -> Iterable[tuple[str, keras.Model]]:
        """Yield names and nets of a way; `settings`: those of Torch-Pruning, by default all."""
        if way == "narrower":
            return self._narrower(seed)
        if way == "torch-pruning":
            return self._torch_pruned(seed, settings)
        if way == "tfmot":
            return self._sparse(seed)
        return [("itself", self.dense)]

    def _narrower(self, seed: int) -> Iterable[tuple[str, keras.Model]]:
        import keras

        from benchmarks.resnet20 import DENSE as DENSE_SETTINGS
        from benchmarks.resnet20 import build, with_flips
        from compress.train import train

        data = with_flips(self.data)
        for name, widths in WIDTHS.items():
            keras.utils.set_random_seed(seed)
            model = build(widths)
            train(model, data, DENSE_SETTINGS, device=self.device, seed=seed)
            yield name, model

    def _torch_pruned(
        self, seed: int, settings: Sequence[str] | None
    ) -> Iterable[tuple[str, keras.Model]]:
        for target in TARGETS:
            for label, scope in SCOPES.items():
                for rounds in ROUNDS:
                    name = f"{target:g}x {label} in {rounds}"
                    if settings is None or name in settings:
                        yield name, self._prune_in_rounds(scope, target, rounds, seed)

    def _prune_in_rounds(self, scope: str, target: float, rounds: int, seed: int) -> keras.Model:
        """Prune with Torch-Pruning and train, several times.

        Each round keeps the same share of the MACs, where the iterative mode of Torch-Pruning
        removes the same number of channels.
        """
        import keras

        from benchmarks._repair import macs_of, torch_pruned
        from compress.data import sample_inputs
        from compress.distillation import distill
        from compress.model.copies import copy_model
        from compress.prune.recalibrate import recalibrate

        keras.utils.set_random_seed(seed)
        settings = ShrinkTraining()
        epochs = settings.count_epochs(settings.count_steps(len(self.data.train)))
        settings = replace(settings, epochs=epochs // rounds)
        model = self._first_cuts[scope, target ** (1 / rounds)]
        for round in range(rounds):
            if round:
                left = target ** ((round + 1) / rounds) * macs_of(self.dense) / macs_of(model)
                cuts = torch_pruned(self._variants, (left,), (scope,), model)
                ((model, _),) = cuts.values()
            model = copy_model(model)
            recalibrate(model, sample_inputs(self.data, EXAMPLES, seed), BATCHES, seed=seed)
            distill(
                model, self.dense, self.data, DistillOptions(), finetune=settings,
                device=self.device, seed=seed,
            )  # fmt: skip
        return model

    @cached_property
    def _first_cuts(self) -> dict[tuple[str, float], keras.Model]:
        """The nets that Torch-Pruning makes of the dense one, by scope and share, for all seeds."""
        from benchmarks._repair import torch_pruned

        shares = sorted({target ** (1 / rounds) for target in TARGETS for rounds in ROUNDS})
        cuts = torch_pruned(self._variants, shares, tuple(SCOPES.values()))
        return {(record["scope"], target): model for (_, target), (model, record) in cuts.items()}

    def _sparse(self, seed: int) -> Iterable[tuple[str, keras.Model]]:
        with tempfile.TemporaryDirectory() as folder:
            options = WeightOptions(sparsity=SPARSITY, scope="layer")
            yield "80 %", self._variants.theirs(options, seed, Path(folder))[0]


def files_of(
    nets: Nets, way: str, seed: int, place: Path, settings: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
    """Make the files of a way in a folder and evaluate each.

    Args:
        settings: Of Torch-Pruning; default: all.

    Returns:
        What is known of each file, by name.
    """
    from compress.run.directory import RunFolder
    from compress.shrinking.compression_job import RunContext
    from compress.shrinking.file_evaluation import Variant, export_and_evaluate

    if way == "shrink":
        return _shrunk(nets, seed, place)
    found = {}
    folder = RunFolder(place)
    folder.exports.mkdir(parents=True)
    work = RunContext(
        nets.data, Plan(seed=seed, export=ExportOptions(formats=FORMATS)), nets.device
    )
    for name, model in nets.made(way, seed, settings):
        stem = f"{way} {name}".replace(" ", "_").replace("%", "percent")
        made, refused = export_and_evaluate(Variant(model, stem, stem, "pruned"), work, folder)
        if refused:
            raise RuntimeError("; ".join(refused))
        for item in made:
            found[f"{way}, {name}, {item.format}"] = _facts(item, place)
    return found


def _shrunk(nets: Nets, seed: int, place: Path) -> dict[str, dict[str, Any]]:
    from compress import shrink

    result = shrink(NET, nets.data, seed=seed, out=place)
    found = {}
    for row in result.report.rows:
        item = row.artifact
        if item.variant != "dense" or item.format != "float32":
            found[f"shrink, {item.id}"] = _facts(item, place)
    return found


def _facts(item: Any, place: Path) -> dict[str, Any]:
    return {
        "file": str(Path(place.name) / item.file), "format": item.format, "macs": item.macs,
        "bytes": item.size_bytes, "val": item.val["accuracy"], "test": item.test["accuracy"],
    }  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    def names(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        if unknown := set(given) - set(WAYS):
            raise argparse.ArgumentTypeError(f"must be among {', '.join(WAYS)}: {unknown}")
        return given

    parser.add_argument("--ways", type=names, default=WAYS, help="with commas")
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Make the missing files, then time all files of a seed together."""
    runs, times = (stored.result.setdefault(name, {}) for name in ("runs", "times"))
    state = stored.provenance["peers"]["torch-pruning"]
    if not was_run(stored.result.get("torch-pruning")):
        stored.save(**{"torch-pruning": {"version": state} if was_run(state) else not_run(state)})
    nets = Nets()
    for seed in given.seeds:
        if f"seed {seed}" in times:
            continue
        for way in given.ways:
            key, place = f"{way}, seed {seed}", PLACE / f"{seed}" / way.replace(" ", "_")
            there = key in runs and all(
                (place.parent / item["file"]).exists() for item in runs[key]["files"].values()
            )
            if there or (way == "torch-pruning" and not was_run(state)):
                continue
            # what is half made by another way is no use; shrink continues by itself
            if way != "shrink":
                shutil.rmtree(place, ignore_errors=True)
            began = time.perf_counter()
            others = {other: run_ for other, run_ in runs.items() if other != key}
            files = files_of(nets, way, seed, place, best_settings(others))
            runs[key] = {"seconds": time.perf_counter() - began, "files": files}
            print(key, json.dumps({name: item["test"] for name, item in files.items()}), flush=True)
            stored.save()
        times[f"seed {seed}"] = timed(files_by_name(runs, seed), PLACE / f"{seed}")
        stored.save()
        shutil.rmtree(PLACE / f"{seed}", ignore_errors=True)


def best_settings(runs: Mapping[str, Any]) -> list[str] | None:
    """Return Torch-Pruning's best setting at each share of the MACs; None: it has not yet run.

    Validation accuracy of the first seed's float32 files selects.
    """
    keys = [key for key in runs if key.startswith("torch-pruning, ")]
    if not keys:
        return None
    best: dict[str, tuple[float, str]] = {}
    for name, item in runs[keys[0]]["files"].items():
        _, setting, format = name.split(", ")
        share = setting.partition(" ")[0]
        if format == "float32" and item["val"] > best.get(share, (-1.0, ""))[0]:
            best[share] = item["val"], setting
    return [setting for _, setting in best.values()]


def files_by_name(runs: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return all files of a seed by name."""
    return {
        name: item
        for key, run_ in runs.items()
        if key.endswith(f", seed {seed}")
        for name, item in run_["files"].items()
    }


def timed(files: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """Time files against the dense one."""
    from compress.measure import measure_latency

    paths = {name: place / item["file"] for name, item in files.items()}
    found = measure_latency(
        paths, LatencyOptions(budget=10.0 * len(paths)), precision=0.01,
        baselines=dict.fromkeys(paths, DENSE),
    )  # fmt: skip
    return {name: latency.to_json() for name, latency in found.items()}


def points(result: Mapping[str, Any]) -> dict[int, dict[str, dict[str, float]]]:
    """Return time left, validation and test accuracy of each file, by seed and name."""
    found = {}
    for key, times in result["times"].items():
        seed = int(key.removeprefix("seed "))
        files = files_by_name(result["runs"], seed)
        found[seed] = {
            name: {"time": 1.0 / times[name]["ratio"], **{part: item[part] for part in
                   ("val", "test", "bytes", "macs")}}
            for name, item in files.items()
        }  # fmt: skip
    return found


def best_of_ours(files: Mapping[str, Mapping[str, float]], name: str) -> str | None:
    """Return the file of `shrink` that is best on validation data among those as fast.

    Args:
        files: Of a seed.
        name: Of the file that it is held against; ours is of the same format.
    """
    time, format = files[name]["time"], name.rpartition(", ")[2]
    ours = {
        name: item["val"]
        for name, item in files.items()
        if name.startswith("shrink, ")
        and name.endswith(f".{format}")
        and item["time"] <= TIE * time
    }
    return max(ours, key=lambda name: ours[name]) if ours else None


def mean_of(by_seed: Iterable[Files], name: str, field: str) -> Mean:
    """Return the mean of a fact about the files of a name."""
    return Mean.of([files[name][field] for files in by_seed if name in files])


def equal(result: dict[str, Any]) -> str | None:
    """Return the table of the others' files, each beside our best one that takes no more time."""
    by_seed = list(points(result).values())
    if not by_seed:
        return None
    names = list(dict.fromkeys(name for files in by_seed for name in files))
    settings = best_settings(result["runs"])
    rows = []
    for way, label in LABELS.items():
        for name in names:
            if name.rsplit(", ", 2)[0] != way or name == DENSE:
                continue
            _, share, format = name.rsplit(", ", 2)
            if way == "torch-pruning" and share not in (settings or ()):
                continue
            pairs = [
                (files[name]["test"], files[best])
                for files in by_seed
                if name in files and (best := best_of_ours(files, name))
            ]
            row: list[object] = [
                label if way in ("int8", "tfmot") else f"{label}, {share}", format,
                f"{mean_of(by_seed, name, 'time').mean:.3f}x",
                f"{mean_of(by_seed, name, 'bytes').mean / 1000:.0f} kB",
                mean_of(by_seed, name, "test").percent(),
            ]  # fmt: skip
            if len(pairs) < sum(name in files for files in by_seed):
                rows.append([*row, "none as fast", "", "", ""])
                continue
            ours = Mean.of([item["test"] for _, item in pairs])
            rows.append([
                *row, f"{np.mean([item['time'] for _, item in pairs]):.3f}x",
                f"{np.mean([item['bytes'] for _, item in pairs]) / 1000:.0f} kB", ours.percent(),
                verdict(ours, Mean.of([value for value, _ in pairs])),
            ])  # fmt: skip
    peer = result["torch-pruning"]
    if not was_run(peer):
        rows.append(["torch-pruning", f"not run: {peer['not run']}", *[""] * 7])
    head = ["how", "format", "time left", "file", "test accuracy", "shrink: time left",
            "shrink: file", "shrink: test accuracy", "ours less theirs, pp"]  # fmt: skip
    return table(head, rows)


def list_settings(result: dict[str, Any]) -> str | None:
    """Return the table of Torch-Pruning's settings in the first seed, or None without them."""
    best = best_settings(result["runs"])
    files = next(iter(points(result).values()), {})
    rows = [
        [
            setting, f"{item['time']:.3f}x", f"{100 * item['val']:.2f} %",
            f"{100 * item['test']:.2f} %", "yes" if setting in (best or ()) else "",
        ]
        for name, item in files.items()
        if name.startswith("torch-pruning, ") and name.endswith(", float32")
        for _, setting, _ in [name.split(", ")]
    ]  # fmt: skip
    head = ["share of the MACs, scope and rounds", "time left", "validation accuracy",
            "test accuracy", "best"]  # fmt: skip
    return table(head, rows) if rows else None


def picture(result: dict[str, Any]) -> Figure:
    """Draw all files."""
    by_seed = points(result).values()
    labels = {"shrink": "paretune shrink"} | LABELS
    return drawn({
        label: [
            {
                name: item for name, item in files.items()
                if name != DENSE and name.rsplit(", ", 2)[0] == way
            }
            for files in by_seed
        ]
        for way, label in labels.items()
    })  # fmt: skip


def drawn(ways: Mapping[str, Sequence[Files]]) -> Figure:
    """Draw test accuracy against the time left: float32 filled, int8 hollow.

    Files of the first way are joined by a line where no other of them is better and faster.

    Args:
        ways: By what the legend calls it, for each seed the files of a way: "time" and "test" by
            name; names end in the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for place, ((label, seeds), colour, mark) in enumerate(
        zip(ways.items(), COLOURS, MARKS, strict=False)
    ):
        for name, item in [pair for files in seeds for pair in files.items()]:
            axes.plot(
                item["time"], 100 * item["test"], mark, color=colour, label=label,
                markerfacecolor="none" if name.endswith("int8") else colour,
            )  # fmt: skip
            label = "_"  # one line of the legend
        for files in seeds if place == 0 else ():
            axes.plot(*_front(list(files.values())), color=colour, linewidth=1)
    axes.set_xscale("log")
    least = axes.get_xlim()[0]
    ticks = [tick for tick in TICKS if tick >= least]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("time left, of the dense float32 file's (measured); hollow: int8")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    # beside the axes: marks may be anywhere in them
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize="small", frameon=False
    )
    return figure


def _front(items: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    """Return times and accuracies of the Pareto-optimal files."""
    times, tests, best = [], [], -np.inf
    for item in sorted(items, key=lambda one: (one["time"], -one["test"])):
        if item["test"] > best:
            best = item["test"]
            times.append(item["time"])
            tests.append(100 * best)
    return times, tests


BENCHMARK = Benchmark(
    "shrink_peers", __doc__, run, {"equal": equal, "settings": list_settings}, arguments,
    peers=("torch-pruning",), resumable=True, grows=("seeds", "ways"), picture=picture,
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
