"""The files that a run ends with after some minutes, beside other ways to spend the same minutes.

    python -m benchmarks.run_front [--minutes 5] [--seeds 0,1,2] [--ways budget,hand,search,shrink]
        [--against CHECKOUT] [--data fashion_mnist] [--resume FILE]

`--data diamonds` is a table of 53,794 rows: the cut (five classes) from 22 columns (seven measures,
the colour and the clarity as columns of zeros and ones). It lies in the package plotnine, which
need not work: `pip install --no-deps plotnine`.

Each way has the same wall time on all cores, one after the other:

    budget   paretune run --budget
    before   paretune run of the checkout, 60 % of the time for trials; ended when the time is over.
             The environment must have the packages that it needs (zstandard for 75b3d6c1)
    hand     Optuna's TPE with Keras's fit for 60 % of the time, then tfmot and int8 (peers/)
    shrink   the space's baseline trained for half of the time, then paretune shrink for the rest
    search   paretune search for 85 % of the time, then float32 and int8 files of its front

All search one space, peers/front_net.py. Validation data select the files of each way; test data
evaluate them here, at the end. All files of a seed are timed against each other in one session.
Shown: the hypervolume of test accuracy in [0.5, 1] and log latency in [0.1 us, 10 ms].
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table, verdict
from benchmarks._stored import ROOT, Stored
from benchmarks.peers.front_net import baseline, net
from compress.core.atomic_files import read_json
from compress.core.pareto import measure_hypervolume
from search.scheduler.forecast import compute_rank_correlation
from search.scheduler.log import ScheduleLog
from search.scheduler.records import PRUNE, TUNE
from search.scheduler.scheduler import Scheduler

WAYS = ("budget", "before", "hand", "shrink", "search")
LOWEST, REFERENCE = np.array([-1.0, -4.0]), np.array([-0.5, 1.0])
"""Best and worst of -accuracy and of the decimal logarithm of milliseconds."""
TIMING_SECONDS = 60.0
SPACE, PEERS = "front_net:net", ROOT / "benchmarks" / "peers"


def write_diamonds(path: Path) -> None:
    """Write the table of diamonds as arrays: a tenth validates, another one tests."""
    import pandas

    spec = importlib.util.find_spec("plotnine")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("--data diamonds needs the package plotnine.")
    table = pandas.read_csv(Path(spec.submodule_search_locations[0]) / "data" / "diamonds.csv")
    table = table.drop_duplicates().sample(frac=1, random_state=0)
    _, labels = np.unique(table.pop("cut"), return_inverse=True)
    columns = pandas.get_dummies(table).astype("float32").to_numpy()
    tenth, arrays = len(table) // 10, {}
    for part, rows in {
        "test": slice(tenth), "val": slice(tenth, 2 * tenth), "train": slice(2 * tenth, None)
    }.items():  # fmt: skip
        arrays |= {f"x_{part}": columns[rows], f"y_{part}": labels[rows]}
    np.savez(path, **arrays)


def run_paretune(words: list[str], seconds: float, folder: Path, tree: Path = ROOT) -> None:
    """Run a command of a checkout; it is interrupted when its time is over."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from search.cli import main; main()", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tree, PEERS)))},
        stdout=(folder / "log.txt").open("a"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()


def list_front_models(folder: Path) -> list[Path]:
    """Return the files of a search's front."""
    from search.report import load_report
    from search.study.directory import SearchFolder

    return [SearchFolder(folder).get_shipped_path(name) for name in load_report(folder).front]


def spend(
    way: str, seconds: float, seed: int, source: str, folder: Path, against: Path = ROOT
) -> None:
    """Spend the time on one way, whose .tflite files are then somewhere in the folder."""
    import paretune as pt

    search = ["--data", source, "--space", SPACE, "--seed", str(seed), "--out", "run"]
    if way == "budget":
        run_paretune(["run", *search, "--budget", f"{seconds:g}"], 2 * seconds, folder)
    elif way == "before":
        minutes = f"{0.6 * seconds / 60:g}"
        words = ["run", *search, "--trials", "100000", "--max-minutes", minutes]
        run_paretune(words, seconds, folder, against)
        # it goes on without what it cannot compress, and would be measured at its worst
        missing = re.search(r"No module named .*", (folder / "log.txt").read_text())
        if missing:
            raise SystemExit(f"The checkout {against} lacks a package: {missing[0]}.")
    elif way == "search":
        minutes = f"{0.85 * seconds / 60:g}"
        words = ["search", *search, "--trials", "100000", "--max-minutes", minutes]
        run_paretune(words, 0.95 * seconds, folder)  # the last trials may take long
        for model in list_front_models(folder / "run"):
            pt.export(model, folder / "files" / model.stem, data=source)
    elif way == "hand":
        from compress.data import load_data

        data = load_data(source)
        parts = {}
        for part in ("train", "val"):
            parts[f"x_{part}"], parts[f"y_{part}"] = data.inputs(part), data.split(part).y
        np.savez(folder / "data.npz", **parts)
        script = PEERS / "tpe_tfmot.py"
        subprocess.run(
            [sys.executable, str(script), str(folder), f"{seconds:g}", str(seed)], check=True,
            stdout=(folder / "log.txt").open("a"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        (folder / "data.npz").unlink()
    else:
        began = time.monotonic()
        model = train_baseline(source, 0.5 * seconds, seed)
        model.save(folder / "base.keras")
        left = seconds - (time.monotonic() - began)
        words = ["shrink", "base.keras", "--data", source, "--budget", f"{left:g}", "--seed",
                 str(seed), "--out", "run"]  # fmt: skip
        run_paretune(words, 2 * seconds, folder)


def train_baseline(source: str, seconds: float, seed: int) -> Any:
    """Train the space's baseline for some time, with the epochs that fit."""
    import keras
    import optuna

    from compress.core.device import setup_device
    from compress.data import load_data
    from compress.plan import TrainSettings
    from compress.train import train

    data = load_data(source)
    keras.utils.set_random_seed(seed)
    model = net(optuna.trial.FixedTrial(baseline), data)
    device, began = setup_device("cpu"), time.monotonic()
    # the first epoch compiles, which takes longer than an epoch on a table
    first = train(model, data, TrainSettings(epochs=2), device=device, seed=seed)
    left = seconds - (time.monotonic() - began)
    epochs = max(1, int(left / first.history[-1].seconds))
    settings = TrainSettings(epochs=epochs, learning_rate=3e-3)
    train(model, data, settings, device=device, seed=seed)
    return model


def list_files(folder: Path) -> list[Path]:
    """Return the files of a way: those of the run's report, or all where there is none."""
    report = folder / "run" / "report.json"
    if report.exists() and (rows := read_json(report).get("files")):
        return [folder / "run" / row["file"] for row in rows]
    return [path for path in sorted(folder.rglob("*.tflite")) if not path.name.startswith(".")]


def evaluate_files(folder: Path, source: str) -> dict[str, float]:
    """Return the test accuracy of each file of a way, by its path."""
    from compress.data import load_data
    from compress.measure.file_agreement import compute_outputs
    from compress.measure.runtimes.litert import LiteRTSession

    data = load_data(source)
    x, y = data.inputs("test"), np.asarray(data.test.y).reshape(-1)
    found = {}
    for path in list_files(folder):
        outputs = compute_outputs(LiteRTSession(path, 1), [x])[0]
        found[str(path)] = float(np.mean(outputs.argmax(-1) == y))
    return found


def time_files(paths: Mapping[str, str], seed: int) -> dict[str, float]:
    """Return the milliseconds of all files, timed against each other."""
    from compress.measure.latency import Entry, time_entries

    entries = {name: Entry(Path(path), "litert", 1) for name, path in paths.items()}
    times = time_entries(entries, precision=0.02, budget=TIMING_SECONDS, seed=seed)
    return {name: latency.median_ms for name, latency in times.items()}


def summarize_schedule(folder: Path) -> dict[str, Any]:
    """Return the forecasts and results of a way's steps, and what led to its files.

    Args:
        folder: Folder of the way.

    Returns:
        {} for a way without a schedule. "forecast" and "result" are metrics of fine-tuned sizes,
        "seconds" those of all steps, and "useful_seconds" those of the steps without which the last
        front would not exist: a scheduler that knew all results would have taken only these.
    """
    log = ScheduleLog(folder / "run")
    if not log.path.exists():
        return {}
    # it decides nothing here, so that its epochs and seconds do not matter
    scheduler = Scheduler(("float32", "int8"), chance=0.1, epochs=1, seconds=1.0)
    log.replay(scheduler)
    sizes = {(name, share) for name, share, _ in scheduler.list_front()}
    models = {name for name, _ in sizes}
    pruned = {name for name, share in sizes if share < 1}
    found: dict[str, Any] = {"forecast": [], "result": [], "seconds": 0.0, "useful_seconds": 0.0}
    for step, result, _ in scheduler.ended:
        if step.quality is not None and result.sizes:
            found["forecast"].append(step.quality)
            found["result"].append(result.sizes[0].quality)
        is_useful = result.model in models
        if step.kind == PRUNE:
            is_useful = result.model in pruned
        elif step.kind == TUNE:
            is_useful = (result.model, step.share) in sizes
        found["seconds"] += result.seconds
        found["useful_seconds"] += result.seconds if is_useful else 0.0
    return found


def volume(files: list[dict[str, float]]) -> float:
    """Return the hypervolume of files as a share of the box."""
    if not files:
        return 0.0
    losses = np.array([[-item["accuracy"], np.log10(item["ms"])] for item in files])
    inside = np.maximum(losses, LOWEST)
    return measure_hypervolume(inside, REFERENCE) / float(np.prod(REFERENCE - LOWEST))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--ways", default="budget,hand,shrink,search", help="with commas")
    parser.add_argument("--data", default="fashion_mnist", help="a value of --data, or diamonds")
    parser.add_argument("--against", type=Path, default=ROOT, help="checkout of the way 'before'")
    seed_list(parser)


def measure(given: argparse.Namespace, stored: Stored) -> None:
    """Run the ways and seeds that are missing; a seed's files are timed together."""
    seeds: dict[str, Any] = stored.result.setdefault("seeds", {})
    for seed in given.seeds:
        if str(seed) in seeds:
            continue
        place = Path(tempfile.mkdtemp())
        source = given.data
        if source == "diamonds":
            source = str(place / "diamonds.npz")
            write_diamonds(Path(source))
        accuracies: dict[str, dict[str, float]] = {}
        seconds, schedules = {}, {}
        for way in given.ways.split(","):
            (place / way).mkdir()
            began = time.monotonic()
            spend(way, 60 * given.minutes, seed, source, place / way, given.against)
            seconds[way] = time.monotonic() - began
            accuracies[way] = evaluate_files(place / way, source)
            schedules[way] = summarize_schedule(place / way)
            print(
                f"seed {seed}, {way}: {seconds[way]:.0f} s, {len(accuracies[way])} files",
                flush=True,
            )
        times = time_files({path: path for way in accuracies.values() for path in way}, seed)
        seeds[str(seed)] = {
            way: {
                "seconds": seconds[way],
                "files": [
                    {"file": str(Path(path).relative_to(place)), "accuracy": accuracy,
                     "ms": times[path]}
                    for path, accuracy in own.items()
                ],
                "schedule": schedules[way],
            }
            for way, own in accuracies.items()
        }  # fmt: skip
        stored.save(seeds=seeds, minutes=given.minutes)
        shutil.rmtree(place)


def front(result: dict[str, Any]) -> str:
    """Return the table of hypervolumes by way."""
    seeds = result["seeds"].values()
    ways = list(dict.fromkeys(way for seed in seeds for way in seed))
    means = {way: Mean.of([volume(seed[way]["files"]) for seed in seeds]) for way in ways}
    rows = []
    for way in ways:
        files = [item for seed in seeds for item in seed[way]["files"]]
        best = max(files, key=lambda item: item["accuracy"], default=None)
        rows.append([
            way, means[way].number(),
            "-" if way == "budget" else verdict(means["budget"], means[way]),
            f"{len(files) / len(seeds):.0f}",
            "none" if best is None
            else f"{100 * best['accuracy']:.2f} % at {1e3 * best['ms']:.3g} us",
            f"{np.mean([seed[way]['seconds'] for seed in seeds]):.0f} s",
        ])  # fmt: skip
    head = ["way", f"hypervolume after {result['minutes']:g} min", "budget against it, pp", "files",
            "most accurate file", "time taken"]  # fmt: skip
    return table(head, rows)


def list_forecasts(result: dict[str, Any]) -> str | None:
    """Return the table of forecasts and their results in each seed's run with a budget."""
    rows = []
    for seed, ways in result["seeds"].items():
        schedule = ways.get("budget", {}).get("schedule")
        if not schedule:
            continue
        errors = 100 * (np.array(schedule["result"]) - np.array(schedule["forecast"]))
        rank = compute_rank_correlation(schedule["forecast"], schedule["result"])
        rows.append([
            seed, str(len(errors)), f"{rank:.2f}",
            f"{np.mean(errors):+.2f} pp" if len(errors) else "-",
            f"{np.mean(np.abs(errors)):.2f} pp" if len(errors) else "-",
            f"{schedule['useful_seconds']:.0f} of {schedule['seconds']:.0f} s",
        ])  # fmt: skip
    head = ["seed", "fine-tuned sizes", "rank correlation", "result less forecast", "absolute",
            "seconds that led to the front"]  # fmt: skip
    return table(head, rows) if rows else None


BENCHMARK = Benchmark(
    "run_front", __doc__, measure, {"front": front, "forecasts": list_forecasts}, arguments,
    resumable=True, grows=("seeds",),
)  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    BENCHMARK.run()


if __name__ == "__main__":
    main()
