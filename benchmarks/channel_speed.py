"""Seconds and memory of channel pruning: coupling, selection, surgery; beside Torch-Pruning.

    [TORCH_PRUNING_PYTHON=PYTHON] python -m benchmarks.channel_speed [--rounds 10]

In each round paretune halves the channels of ResNet50 and MobileNetV2 on freshly built models;
with the Python of an environment that has torch-pruning (see
benchmarks/peers/torch_pruning_speed.py), Torch-Pruning then does the same in a process of its
own, so that both see the same machine. What compares is the whole call; that most of paretune's
goes into building a Keras model anew is shown beside it. Also: the analysis of nets of 1x, 4x and
16x depth.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress.prune.channels.selection.costs import CostModel

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, ratio, table, told_ratio
from benchmarks._peers import PEERS, not_run
from benchmarks._stored import Stored, was_run

NETWORKS = {"resnet50": "ResNet50", "mobilenet_v2": "MobileNetV2"}
PEER = Path(__file__).parent / "peers" / "torch_pruning_speed.py"
DEPTHS = (1, 4, 16)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10)


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Runs the rounds."""
    state = stored.provenance["peers"]["torch-pruning"]
    ours: dict[str, list[dict[str, float]]] = {name: [] for name in NETWORKS}
    theirs: dict[str, list[dict[str, float]]] = {name: [] for name in NETWORKS}
    for name in NETWORKS:
        measure(name)  # what Python and TensorFlow set up once does not count
    for _ in range(given.rounds):
        for name in NETWORKS:
            ours[name].append(measure(name))
            if was_run(state):
                theirs[name].append(peer(Path(PEERS["torch-pruning"].python()), name))
    result: dict[str, Any] = {"rounds": given.rounds, "depth": depths()}
    for name in NETWORKS:
        result[name] = summary(ours[name], theirs[name])
        if not was_run(state):
            result[name]["torch-pruning"] = not_run(state)
        result[name]["memory"] = in_own_process(name)
    stored.save(**result)


def measure(name: str) -> dict[str, float]:
    """Prunes one network to half its channels; seconds of the parts."""
    import keras

    from compress.plan import ChannelOptions
    from compress.prune.channels.analysis import coupling_of
    from compress.prune.channels.criteria import CRITERIA, Context
    from compress.prune.channels.selection.by_rank import select_by_rank
    from compress.prune.channels.surgery import sliced_model

    found: dict[str, float] = {}

    def timed(part: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = work()
        found[part] = time.perf_counter() - start
        return value

    keras.backend.clear_session()
    gc.collect()
    model = timed("build", lambda: getattr(keras.applications, NETWORKS[name])(weights=None))
    coupling = timed("coupling", lambda: coupling_of(model))
    options = ChannelOptions(target=0.5, target_metric="amount")
    selection = timed(
        "amount", lambda: select_by_rank(coupling, options, CRITERIA["l2"], Context(coupling), 0.5)
    )
    goal = float(CostModel.of(coupling).macs(np.array([len(g.units) for g in coupling.groups]))) / 2
    by_macs = ChannelOptions(target="0.5x", criterion="l2")
    timed(
        "selection",
        lambda: select_by_rank(coupling, by_macs, CRITERIA["l2"], Context(coupling), goal),
    )
    smaller = timed("surgery", lambda: sliced_model(coupling, selection.mask))
    found["total"] = found["coupling"] + found["amount"] + found["surgery"]
    found["params_after"] = float(smaller.count_params())
    return found


def memory(name: str) -> dict[str, float]:
    """Returns what a first pruning adds to the process's memory at its peak, MiB.

    A small network is pruned before: what the libraries load once is no cost of the model.
    """
    import keras

    from benchmarks.resnet20 import build
    from compress.prune.channels import prune_channels

    prune_channels(build(), macs=0.5)
    model = getattr(keras.applications, NETWORKS[name])(weights=None)
    size = sum(float(np.prod(weight.shape)) * 4 for weight in model.weights) / 2**20
    before = reset_peak()
    prune_channels(model, macs=0.5)
    extra = peak() - before
    return {"model_mib": size, "extra_peak_mib": extra, "extra/model": extra / size}


def in_own_process(name: str) -> dict[str, float]:
    """Runs `memory` in a new process, where no earlier round left memory to be used again."""
    code = "from benchmarks.channel_speed import memory; import json; "
    command = [sys.executable, "-c", code + f"print(json.dumps(memory({name!r})))"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    record: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return record


def peer(python: Path, name: str) -> dict[str, float]:
    """Lets Torch-Pruning do the same once, in a process of its own."""
    command = [str(python), str(PEER), "--network", name, "--repeats", "1"]
    record = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {key: record[f"{key}_s"][0] for key in ("graph", "prune", "total")}


def summary(
    ours: list[dict[str, float]], theirs: list[dict[str, float]]
) -> dict[str, dict[str, float] | dict[str, dict[str, float]]]:
    """Returns medians with ranges, and ratios paired by round."""
    result: dict[str, Any] = {"paretune": spread(ours)}
    columns = {key: [row[key] for row in ours] for key in ours[0]}
    result["surgery/build"] = ratio(columns["surgery"], columns["build"])
    if theirs:
        result["torch-pruning"] = spread(theirs)
        whole = [row["coupling"] + row["amount"] for row in ours]
        result["torch-pruning total / paretune total"] = ratio(
            [row["total"] for row in theirs], columns["total"]
        )
        result["torch-pruning total / paretune without rebuilding the model"] = ratio(
            [row["total"] for row in theirs], whole
        )
    return result


def spread(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Returns median, smallest and largest of each figure."""
    return {
        key: {
            "median": float(np.median([row[key] for row in rows])),
            "min": min(row[key] for row in rows),
            "max": max(row[key] for row in rows),
        }
        for key in rows[0]
    }


def depths() -> dict[str, dict[str, float]]:
    """Times the analysis of residual nets of rising depth."""
    from benchmarks.resnet20 import build
    from compress.prune.channels.analysis import coupling_of

    found = {}
    sys.setrecursionlimit(10_000)  # Keras walks a graph by recursion when it makes a model
    models = {depth: build((16, 16, 16), blocks=3 * depth) for depth in DEPTHS}
    seconds: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for _ in range(9):
        for depth, model in models.items():
            start = time.perf_counter()
            coupling_of(model)
            seconds[depth].append(time.perf_counter() - start)
    for depth, model in models.items():
        median = float(np.median(seconds[depth]))
        calls = len(model.layers)
        found[f"{depth}x"] = {
            "layers": calls,
            "seconds": median,
            "microseconds a layer": median / calls * 1e6,
        }
    return found


def reset_peak() -> float:
    """Resets the process's peak memory (Linux) and returns the current one, MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Returns the peak memory since the reset, MiB."""
    return _status("VmHWM")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(key))
    return int(line.split()[1]) / 1024


def whole(result: dict[str, Any]) -> str:
    """Seconds of the whole call beside Torch-Pruning's."""
    rows = []
    for name, label in NETWORKS.items():
        got = result[name]
        theirs = got["torch-pruning"]
        rows.append([
            label,
            milliseconds(got["paretune"]["total"]),
            milliseconds(theirs["total"]) if was_run(theirs) else told_ratio(theirs),
            told_ratio(got.get("torch-pruning total / paretune total")),
            told_ratio(got.get("torch-pruning total / paretune without rebuilding the model")),
        ])  # fmt: skip
    head = ["network", "paretune, whole call", "torch-pruning, whole call",
            "torch-pruning / paretune", "the same without building the smaller model"]  # fmt: skip
    return table(head, rows)


def parts(result: dict[str, Any]) -> str:
    """What paretune's call consists of."""
    rows = []
    for name, label in NETWORKS.items():
        ours = result[name]["paretune"]
        found = [milliseconds(ours[part]) for part in ("coupling", "selection", "surgery")]
        rows.append([label, *found, told_ratio(result[name]["surgery/build"])])
    head = ["network", "analysis", "selection by MACs", "building the smaller model",
            "that / building the model in Keras"]  # fmt: skip
    return table(head, rows)


def milliseconds(spread: dict[str, float]) -> str:
    middle, low, high = (f"{1e3 * spread[key]:.1f}" for key in ("median", "min", "max"))
    return f"{middle} ms ({low} to {high})"


BENCHMARK = Benchmark(
    "channel_speed", __doc__, run, {"whole": whole, "parts": parts}, arguments,
    peers=("torch-pruning",),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
