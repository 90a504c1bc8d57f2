"""How channel counts are chosen: the default beside each of its methods alone, not trained.

    python -m benchmarks.channel_methods [--nets resnet20,lstm,vww] [--targets 0.5,0.25,0.125]
        [--seeds 0,1,2] [--mlperf FOLDER] [--resume FILE]

The nets of repair_nets.py, the stored ResNet-20 and two that were trained otherwise (AdamW; neither
flips nor much weight decay), and MLPerf Tiny's person detector (see
repair_int8.py). Channels are removed down to a share of the MACs by l2 over all layers, uniformly
(the same share of every layer, ordered by the criterion reconstruction), by measured output error,
and by the default, which compares the three on held-back examples. The smaller model is
reconstructed on 1,000 unlabelled training images; a seed draws them. Test images evaluate it; where
they are few, with paired intervals.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, Mean, seed_list, table, verdict
from benchmarks._repair import EXAMPLES
from benchmarks._stored import Stored
from benchmarks.repair_int8 import MOBILE, Case, cases, evaluated
from benchmarks.repair_nets import REPAIRED
from benchmarks.resnet20 import load_fashion
from compress.core.device import silence_tensorflow
from compress.core.errors import FeasibleError
from compress.core.statistics import compare_examples
from compress.data import sample_inputs

FEW = 1000
"""Number of test examples up to which paired intervals are shown."""
RESNETS = ("resnet20", "resnet20_adamw", "resnet20_plain")
NETS = (*RESNETS, *REPAIRED, MOBILE)
METHODS: dict[str, dict[str, Any]] = {
    "l2 over all layers": {"criterion": "l2", "scope": "global"},
    "uniform channel counts": {"criterion": "reconstruction", "scope": "layer"},
    "output error": {"criterion": "reconstruction", "scope": "output_error"},
    "default": {},
}


def examine(case: Case, method: str, target: float, seed: int) -> dict[str, Any]:
    """Prune and reconstruct a model by a method, and evaluate it."""
    from compress.prune.channels import prune_channels

    model, data, labelled = case
    x = sample_inputs(data, EXAMPLES, seed)
    began = time.process_time()  # of all threads: it may run beside other work
    found = prune_channels(model, macs=target, data=x, seed=seed, **METHODS[method])
    seconds = time.process_time() - began
    macs = found.report.macs
    assert macs is not None, "sizes are known"
    return {
        "quality": evaluated(found.model, data, labelled), "seconds": seconds,
        "share": macs[1] / macs[0], "method": found.report.criterion,
        "right": find_right(found.model, case),
    }  # fmt: skip


def find_right(model: Any, case: Case) -> str:
    """Return for each test example 1 where the class is right, else 0; empty of many examples."""
    data = case[1]
    if not case[2] or len(data.test.y) > FEW:
        return ""
    made = np.asarray(model.predict(data.inputs("test"), batch_size=500, verbose=0))
    return "".join(map(str, (made.argmax(-1) == data.test.y).astype(int)))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""

    def shares(text: str) -> tuple[float, ...]:
        return tuple(float(word) for word in text.split(","))

    parser.add_argument("--nets", default=",".join(NETS), help="with commas")
    parser.add_argument("--targets", type=shares, default=(0.5, 0.25, 0.125), help="of the MACs")
    parser.add_argument("--mlperf", type=Path, help="a folder with vww_96.h5 and vww_test.zip")
    seed_list(parser)


def measure(given: argparse.Namespace, stored: Stored) -> None:
    """Prune and evaluate what is missing."""
    from compress.data import load_data

    silence_tensorflow()
    data, plain = load_fashion(), load_data("fashion_mnist", normalize="unit")
    runs = stored.result.setdefault("runs", {})
    dense = stored.result.setdefault("dense", {})
    right = stored.result.setdefault("right", {})
    for name in given.nets.split(","):
        if name == MOBILE and given.mlperf is None:
            print("vww: not run: no --mlperf", flush=True)
            continue
        parts = list(cases(name, data, plain, given.mlperf))
        if name not in dense:
            dense[name] = float(np.mean([evaluated(*case) for case in parts]))
            right[name] = "".join(find_right(case[0], case) for case in parts)
        for seed in given.seeds:
            for target in given.targets:
                for method in METHODS:
                    key = f"{name}, {target:g}x, {method}, seed {seed}"
                    if key in runs:
                        continue
                    try:
                        rows = [examine(case, method, target, seed) for case in parts]
                    except FeasibleError as error:
                        runs[key] = {"not run": str(error)}
                        continue
                    runs[key] = {
                        **{figure: float(np.mean([row[figure] for row in rows]))
                           for figure in ("quality", "seconds", "share")},
                        "method": ", ".join(dict.fromkeys(row["method"] for row in rows)),
                        "right": "".join(row["right"] for row in rows),
                    }  # fmt: skip
                    print(key, f"{runs[key]['quality']:.4f}", flush=True)
                    stored.save(runs=runs, dense=dense, right=right)


def methods_table(result: dict[str, Any]) -> str:
    """Return the table of points lost and seconds of processor time, by net, target and method."""
    rows = []
    for name, target in dict.fromkeys(tuple(key.split(", ")[:2]) for key in result["runs"]):
        means, seconds, chosen = {}, {}, ""
        for method in METHODS:
            begin = f"{name}, {target}, {method}, seed"
            own = [run for key, run in result["runs"].items() if key.startswith(begin)]
            own = [run for run in own if "quality" in run]
            if own:
                means[method] = Mean.of([run["quality"] for run in own])
                seconds[method] = np.mean([run["seconds"] for run in own])
                chosen = ", ".join(dict.fromkeys(run["method"] for run in own))
        if "default" not in means or len(means) < len(METHODS):
            continue
        best = max((m for m in means if m != "default"), key=lambda m: means[m].mean)
        dense = result["dense"][name]
        cells = [
            f"{100 * (dense - mean.mean):.2f}"
            + ("" if mean.error is None else f" +- {100 * mean.error:.2f}")
            + f" ({seconds[method]:.0f} s)"
            for method, mean in means.items()
        ]
        rows.append([name, target, *cells, chosen, verdict(means["default"], means[best])])
    head = ["model", "MACs", *(f"{method}, pp lost" for method in METHODS), "the default chose",
            "default against the best alone, pp"]  # fmt: skip
    return table(head, rows)


def intervals_table(result: dict[str, Any]) -> str | None:
    """Return the table of the default's paired differences over the test examples, by seed."""
    rows = []
    for key, run in result["runs"].items():
        name, target, method, seed = key.split(", ")
        if method != "default" or not run.get("right"):
            continue
        new, old = (np.array(list(text), float) for text in (run["right"], result["right"][name]))
        change = compare_examples(new, old)
        rows.append([
            name, target, seed.removeprefix("seed "), len(new), run["method"],
            f"{100 * old.mean():.2f} -> {100 * new.mean():.2f} %",
            f"{-100 * change.estimate:+.2f} [{-100 * change.high:+.2f}, {-100 * change.low:+.2f}]",
        ])  # fmt: skip
    head = ["model", "MACs", "seed", "test examples", "the default chose", "test accuracy",
            "pp lost"]  # fmt: skip
    return table(head, rows) if rows else None


BENCHMARK = Benchmark(
    "channel_methods", __doc__, measure,
    {"methods": methods_table, "intervals": intervals_table}, arguments, resumable=True,
    grows=("nets", "targets", "seeds", "mlperf"),
)  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    BENCHMARK.run()


if __name__ == "__main__":
    main()
