"""A whole `paretune run` from its command line: its time and its best models.

    python -m benchmarks.whole_run [--cases demo,fashion] [--seeds 0,1,2] [--resume FILE]

`demo` is the run of `make demo` (digits), `fashion` the first one of docs/results/whole-run.md
(Fashion-MNIST). Shown for the candidate of the front with the best *validation* accuracy: its
exported files, with the accuracy on the test part; latencies of the first seed, all files of its
run against each other. Shown, too: the file that ships by validation data, and how many pruned
files no unpruned one equals.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table, told_latency
from benchmarks._stored import Stored

CASES = {
    "demo": ("--data", "digits", "--budget", "85s"),
    "fashion": ("--data", "fashion_mnist", "--trials", "12", "--epochs", "4"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    def names(text: str) -> tuple[str, ...]:
        return tuple(text.split(","))

    parser.add_argument("--cases", type=names, default=tuple(CASES), metavar=",".join(CASES))
    seed_list(parser)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Make the missing runs."""
    runs: dict[str, Any] = stored.result.setdefault("runs", {})
    for case in given.cases:
        for seed in given.seeds:
            key = f"{case}, seed {seed}"
            if key not in runs:
                runs[key] = one(case, seed)
                print(key, f"{runs[key]['seconds']:.0f} s", flush=True)
                stored.save(runs=runs)


def one(case: str, seed: int) -> dict[str, Any]:
    """Run the command in a process of its own and read its folder."""
    from compress.report.file_selection import select_files
    from search.report import load_report

    words = ("run", *CASES[case], "--seed", str(seed))
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", "from search.cli import main; main()", *words, "--out",
             f"{place}/run"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}:\n{done.stdout}")
        seconds = time.perf_counter() - began
        report = load_report(f"{place}/run")
        to_ship = select_files(report).to_ship
        pruned = "".join(report.describe_pruned_files()).partition(", beyond noise: ")[2]
    trials = [item for item in report.candidates if item.is_trial]
    front = [item for item in trials if item.id in report.front]
    best = max(front, key=lambda item: item.val["accuracy"])
    full = max(len(item.history) for item in trials)
    return {
        "command": " ".join(("paretune", *words)),
        "seconds": seconds,
        "trials": len(trials),
        "stopped": report.count_candidates("stopped"),
        "epochs": sum(len(item.history) for item in trials),
        "epochs_without_stopping": full * len(trials),
        "front": [{"macs": item.macs, "val": item.val["accuracy"]} for item in front],
        "best": best.id,
        "shipped": to_ship
        and {
            "file": to_ship.row.artifact.id,
            "test": to_ship.row.artifact.test["accuracy"],
            "macs": to_ship.row.artifact.macs,
            "latency": to_ship.row.latency.to_json() if to_ship.row.latency else None,
        },
        "pruned": pruned,
        "files": {
            f"{row.artifact.variant} {row.artifact.format}": {
                "test": row.artifact.test["accuracy"],
                "macs": row.artifact.macs,
                "sparsity": row.artifact.sparsity,
                "gzip_bytes": row.artifact.gzip_bytes,
                "latency": row.latency.to_json() if row.latency else None,
            }
            for row in report.rows
            if row.artifact.model == best.id
        },
    }


def of_case(result: dict[str, Any], case: str) -> list[dict[str, Any]]:
    return [run for key, run in result["runs"].items() if key.partition(",")[0] == case]


def runs(result: dict[str, Any]) -> str:
    """Return the table of times of each case."""
    rows = []
    for case in CASES:
        found = of_case(result, case)
        if not found:
            continue
        seconds = [run["seconds"] for run in found]
        rows.append([
            f"`{found[0]['command'].rpartition(' --seed')[0]}`",
            f"{np.median(seconds):.0f} s ({min(seconds):.0f} to {max(seconds):.0f})",
            ", ".join(f"{run['stopped']} of {run['trials']}" for run in found),
            ", ".join(f"{run['epochs']} of {run['epochs_without_stopping']}" for run in found),
            ", ".join(str(len(run["front"])) for run in found),
        ])  # fmt: skip
    head = ["command", "wall time, median and range", "trials stopped early", "epochs trained",
            "models on the front"]  # fmt: skip
    return table(head, rows)


def files_of(result: dict[str, Any], case: str) -> str | None:
    """Return the table of files of the best candidate by validation accuracy."""
    found = of_case(result, case)
    if not found:
        return None
    rows = []
    for name in found[0]["files"]:
        files = [run["files"][name] for run in found if name in run["files"]]
        rows.append([
            name, Mean.of([file["test"] for file in files]).percent(),
            ", ".join(f"{file['macs'] / 1e6:.2f} M" for file in files),
            ", ".join(f"{file['gzip_bytes'] / 1e3:.1f}" for file in files) + " kB",
            *told_latency(files[0]["latency"]),
        ])  # fmt: skip
    head = ["file", "test accuracy", "MACs, by seed", "gzipped, by seed",
            "latency, first seed", "old/new time"]  # fmt: skip
    return table(head, rows) if rows else None


def list_shipped_files(result: dict[str, Any], case: str) -> str | None:
    """Return the table of the files that ship, by seed."""
    rows = [
        [key.rpartition(" ")[2], file["file"], f"{100 * file['test']:.2f} %",
         f"{file['macs'] / 1e6:.2f} M", *told_latency(file["latency"]), run["pruned"] or "none"]
        for key, run in result["runs"].items()
        if key.partition(",")[0] == case and (file := run.get("shipped"))
    ]  # fmt: skip
    head = ["seed", "ships", "test accuracy", "MACs", "latency", "old/new time",
            "pruned files without an equal"]  # fmt: skip
    return table(head, rows) if rows else None


BENCHMARK = Benchmark(
    "whole_run",
    __doc__,
    run,
    {
        "runs": runs,
        "demo": lambda result: files_of(result, "demo"),
        "demo_ships": lambda result: list_shipped_files(result, "demo"),
        "fashion": lambda result: files_of(result, "fashion"),
    },
    arguments,
    resumable=True,
    grows=("seeds", "cases"),
)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
