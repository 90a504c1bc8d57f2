"""What stopping trials saves and loses, replayed on recorded learning curves: nothing is trained.

The candidates of a result of benchmarks.search_curves (the newest, or `--curves FILE`) arrive one
after another, in random orders; the rule judges each at its rungs against those before it. Shown:
epochs of all / epochs trained, and the hypervolume that the finished candidates lose (accuracy in
[0.5, 1], log10 MACs in [4, 8], as shares of that box).

    python -m benchmarks.search_stopping
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._common import Benchmark, table
from benchmarks._stored import ROOT, Stored, newest, read
from compress.core.pareto import hypervolume
from search.plan import StoppingOptions
from search.plan.stopping import rungs
from search.study.objective import is_dominated

ORDERS = 200
LOWEST, REFERENCE = np.array([-1.0, 4.0]), np.array([-0.5, 8.0])


def volume(losses: Sequence[tuple[float, float]] | npt.NDArray[np.float64]) -> float:
    """Returns the normalised hypervolume of (-accuracy, MACs) pairs."""
    points = np.asarray(losses, float).reshape(-1, 2).copy()
    points[:, 1] = np.log10(points[:, 1])
    points = np.maximum(points, LOWEST)
    return hypervolume(points, REFERENCE) / float(np.prod(REFERENCE - LOWEST))


def replay(
    curves: Sequence[dict[str, Any]], margin: float, epochs: Sequence[int]
) -> tuple[int, float]:
    """Runs the candidates in this order; returns epochs trained and the front's hypervolume."""
    at: dict[int, list[tuple[float, float]]] = {epoch: [] for epoch in epochs}
    spent, finished = 0, []
    for item in curves:
        accuracy, macs = item["accuracy"], float(item["macs"])
        stopped = False
        for epoch in epochs if accuracy else ():
            at[epoch].append((-max(accuracy[:epoch]), macs))
            if is_dominated(np.array(at[epoch]), len(at[epoch]) - 1, margin):
                spent, stopped = spent + epoch, True
                break
        if not stopped:
            spent += len(accuracy)
            finished += [(-max(accuracy), macs)] if accuracy else []
    return spent, volume(finished)


def judge(
    curves: Sequence[dict[str, Any]],
    margin: float,
    epochs: Sequence[int],
    orders: int = ORDERS,
) -> dict[str, float]:
    """Returns medians over random orders, with 5th and 95th percentiles of the loss."""
    rng = np.random.default_rng(0)
    all_epochs, best = replay(curves, margin, ())
    savings, losses = [], []
    for _ in range(orders):
        spent, found = replay([curves[i] for i in rng.permutation(len(curves))], margin, epochs)
        savings.append(all_epochs / spent)
        losses.append(1 - found / best)
    return {
        "epochs_ratio": float(np.median(savings)),
        "loss": float(np.median(losses)),
        "loss_mean": float(np.mean(losses)),
        "loss_p95": float(np.percentile(losses, 95)),
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--curves", type=Path, help="a result of benchmarks.search_curves")


def run(options: argparse.Namespace, stored: Stored) -> None:
    """Judges every margin and every choice of rungs."""
    source = read(options.curves, "search_curves") if options.curves else newest("search_curves")
    print(f"replayed: curves stored of {source.origin()}", flush=True)
    content = source.result
    curves, full = content["candidates"], content["epochs"]
    defaults = StoppingOptions()
    rows: dict[str, dict[str, float]] = {}
    settings: list[tuple[str, float, tuple[int, ...]]] = [
        ("default", defaults.margin, ()),
        *(("dominance", margin, chosen)
          for margin in (0.0, 0.01, 0.02, 0.03) for chosen in ((2, 4), (1, 2, 4), (4,), (2,))),
    ]  # fmt: skip
    for label, margin, given in settings:
        chosen = rungs("dominance", full, given)
        key = f"{label}: dominance, margin {margin:g}, rungs {','.join(map(str, chosen))}"
        rows[key] = judge(curves, margin, chosen)
    path = (source.path or Path()).resolve()
    stored.save(
        candidates=len(curves), orders=ORDERS, rules=rows,
        curves=path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name,
    )  # fmt: skip


def rules(result: dict[str, Any]) -> str:
    """What each setting saves and loses."""
    rows = []
    for key, row in result["rules"].items():
        label, _, rest = key.partition(": ")
        settings, _, rungs = rest.partition(", rungs ")
        losses = (row["loss"], row["loss_mean"], row["loss_p95"])
        rows.append([
            f"**{settings} (the default)**" if label == "default" else settings,
            rungs.replace(",", ", "),
            f"{row['epochs_ratio']:.2f}x",
            ", ".join(f"{100 * max(0.0, loss):.2f} %" for loss in losses),
        ])  # fmt: skip
    head = ["rule", "rungs", "epochs old/new",
            "hypervolume lost: median, mean, 95th percentile"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark("search_stopping", __doc__, run, {"rules": rules}, arguments)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
