"""Seconds and memory of channel pruning: coupling, selection, surgery; beside Torch-Pruning.

    python -m benchmarks.channel_speed [--peer PYTHON] [--rounds 7]

In each round paretune halves the channels of ResNet50 and MobileNetV2 on freshly built models;
with `--peer`, the Python of an environment that has torch-pruning (see
benchmarks/peers/torch_pruning_speed.py), Torch-Pruning then does the same in a process of its
own, so that both see the same machine. Also: the analysis of nets of 1x, 4x and 16x depth.
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

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import ratio, save

NETWORKS = {"resnet50": "ResNet50", "mobilenet_v2": "MobileNetV2"}
PEER = Path(__file__).parent / "peers" / "torch_pruning_speed.py"
DEPTHS = (1, 4, 16)


def main() -> None:
    """Runs the rounds and writes benchmarks/results/channel_speed.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="Python of an environment with torch-pruning")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", choices=NETWORKS, help="only the memory of one network")
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(memory(arguments.memory)))
        return
    ours: dict[str, list[dict[str, float]]] = {name: [] for name in NETWORKS}
    theirs: dict[str, list[dict[str, float]]] = {name: [] for name in NETWORKS}
    for name in NETWORKS:
        measure(name)  # what Python and TensorFlow set up once does not count
    for _ in range(arguments.rounds):
        for name in NETWORKS:
            ours[name].append(measure(name))
            if arguments.peer:
                theirs[name].append(peer(arguments.peer, name))
    result: dict[str, Any] = {"rounds": arguments.rounds, "depth": depths()}
    for name in NETWORKS:
        result[name] = summary(ours[name], theirs[name])
        result[name]["memory"] = in_own_process(name)
    save("channel_speed", result)
    print(json.dumps(result, indent=2))


def measure(name: str) -> dict[str, float]:
    """Prunes one network to half its channels; seconds of the parts."""
    import keras

    from compress.plan import ChannelOptions
    from compress.prune.channels.budget import select
    from compress.prune.channels.coupling import coupling_of
    from compress.prune.channels.criteria import CRITERIA, Context
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
    options = ChannelOptions(target="0.5", of="amount")
    selection = timed(
        "amount", lambda: select(coupling, options, CRITERIA["l2"], Context(coupling), 0.5)
    )
    goal = float(coupling.costs.macs(np.array([len(g.units) for g in coupling.groups]))) / 2
    by_macs = ChannelOptions(target="0.5x")
    timed("selection", lambda: select(coupling, by_macs, CRITERIA["l2"], Context(coupling), goal))
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
    command = [sys.executable, "-m", "benchmarks.channel_speed", "--memory", name]
    record: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
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
    from compress.prune.channels.coupling import coupling_of

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


if __name__ == "__main__":
    main()
