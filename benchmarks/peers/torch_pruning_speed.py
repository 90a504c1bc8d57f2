"""Seconds and memory that Torch-Pruning takes to halve the channels of two networks.

Run it with the Python of an environment of its own, which needs neither TensorFlow nor
paretune:

    python3 -m venv /tmp/tp
    /tmp/tp/bin/pip install torch torchvision torch-pruning==1.6.1
    /tmp/tp/bin/python benchmarks/peers/torch_pruning_speed.py > torch_pruning_speed.json

Each network runs in a process of its own and each repeat on freshly built models. A forward pass
comes before everything timed, so that most of what PyTorch sets up lazily does not count. The
weights are random: neither time nor the number of channels removed depends on them.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

NETWORKS = ("resnet50", "mobilenet_v2")
THREADS = 2
RATIO = 0.5
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="fresh models timed per network")
    parser.add_argument("--network", choices=NETWORKS, help="measure this one in this process")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    if arguments.network:
        print(json.dumps(measure(arguments.network, arguments.repeats)))
        return
    result: dict[str, Any] = {
        "versions": versions(),
        "threads": THREADS,
        "pruning_ratio": RATIO,
        "input": [1, 3, SIZE, SIZE],
    }
    for network in NETWORKS:
        result[network] = in_own_process(network, arguments.repeats)
    print(json.dumps(result, indent=2))


def versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "torch-pruning")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def in_own_process(network: str, repeats: int) -> dict[str, Any]:
    """Measures one network in a new process, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--network", network, "--repeats", str(repeats)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: dict[str, Any] = json.loads(output)
    return measured


def measure(network: str, repeats: int) -> dict[str, Any]:
    """Measures one network in this process.

    Args:
        network: A name in `torchvision.models`.
        repeats: Fresh models for each list.

    Returns:
        A record of these entries:
            forward_s: One forward pass with gradients in inference mode, on a fresh model;
                tracing the graph contains one.
            graph_s: `DependencyGraph().build_dependency` alone, on a fresh model.
            build_s: The pruner's constructor, which builds the graph and enumerates its
                groups, on another fresh model.
            prune_s: `pruner.step()` of that pruner: importance, ranking and removal.
            total_s: build_s + prune_s, what a user waits.
            params, macs: [before, after].
            rss_mib: Resident memory with PyTorch loaded and one model built, before anything runs.
            peak_rss_mib: The most that the process held until the last pruning was done.
    """
    import torch
    import torch_pruning as tp
    import torchvision

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    example = torch.randn(1, 3, SIZE, SIZE)

    def fresh() -> Any:
        gc.collect()  # graphs are cyclic: an earlier repeat's must not count here
        return getattr(torchvision.models, network)(weights=None).eval()

    def repeat() -> dict[str, float]:
        kept.clear()
        forward, _ = seconds(partial(fresh(), example))
        graph, _ = seconds(partial(tp.DependencyGraph().build_dependency, fresh(), example))
        model = fresh()
        constructor = partial(
            tp.pruner.BasePruner,
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            global_pruning=False,
            pruning_ratio=RATIO,
            ignored_layers=[classifier(model)],
        )
        build, pruner = seconds(constructor)
        prune, _ = seconds(pruner.step)
        kept["pruned"] = model
        return {
            "forward_s": forward,
            "graph_s": graph,
            "build_s": build,
            "prune_s": prune,
            "total_s": build + prune,
        }

    kept: dict[str, Any] = {}
    model = fresh()
    rss = memory("VmRSS")
    model(example)
    del model
    rounds = [repeat() for _ in range(repeats)]
    peak = memory("VmHWM")  # before counting, which copies the model
    macs, params = tp.utils.count_ops_and_params(fresh(), example)
    pruned_macs, pruned_params = tp.utils.count_ops_and_params(kept["pruned"], example)
    if kept["pruned"](example).shape != (1, 1000):
        raise RuntimeError(f"the pruned {network} must still give 1,000 classes")
    return {
        **{name: [times[name] for times in rounds] for name in rounds[0]},
        "params": [params, pruned_params],
        "macs": [macs, pruned_macs],
        "rss_mib": rss,
        "peak_rss_mib": peak,
    }


def classifier(model: Any) -> Any:
    """Returns the last fully connected layer."""
    import torch

    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def memory(field: str) -> float:
    """Returns a field of /proc/self/status in MiB; unlike getrusage, it starts anew on exec."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
