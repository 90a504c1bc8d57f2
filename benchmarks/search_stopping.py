"""What stopping rules save and lose, replayed on recorded learning curves: nothing is trained.

The 50 candidates of benchmarks/results/search_curves.json arrive one after another, in random
orders; a rule judges each at its rungs against those before it. Shown: epochs of all / epochs
trained, and the hypervolume that the finished candidates lose (accuracy in [0.5, 1], log10
MACs in [4, 8], as shares of that box).

    python -m benchmarks.search_stopping
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._common import RESULTS, save
from compress.files import read_json
from compress.pareto import hypervolume
from search.plan import StoppingOptions
from search.stopping import Rule, make_rule, rungs

ORDERS = 200
LOWEST, REFERENCE = np.array([-1.0, 4.0]), np.array([-0.5, 8.0])


def volume(losses: Sequence[tuple[float, float]] | npt.NDArray[np.float64]) -> float:
    """Returns the normalised hypervolume of (-accuracy, MACs) pairs."""
    points = np.asarray(losses, float).reshape(-1, 2).copy()
    points[:, 1] = np.log10(points[:, 1])
    points = np.maximum(points, LOWEST)
    return hypervolume(points, REFERENCE) / float(np.prod(REFERENCE - LOWEST))


def replay(
    curves: Sequence[dict[str, Any]], rule: Rule | None, epochs: Sequence[int]
) -> tuple[int, float]:
    """Runs the candidates in this order; returns epochs trained and the front's hypervolume."""
    at: dict[int, list[tuple[float, float]]] = {epoch: [] for epoch in epochs}
    spent, finished = 0, []
    for item in curves:
        accuracy, macs = item["accuracy"], float(item["macs"])
        stopped = False
        for epoch in epochs if rule and accuracy else ():
            at[epoch].append((-max(accuracy[:epoch]), macs))
            if rule and rule.stops(np.array(at[epoch]), len(at[epoch]) - 1):
                spent, stopped = spent + epoch, True
                break
        if not stopped:
            spent += len(accuracy)
            finished += [(-max(accuracy), macs)] if accuracy else []
    return spent, volume(finished)


def judge(
    curves: Sequence[dict[str, Any]], rule: Rule | None, epochs: Sequence[int], orders: int = ORDERS
) -> dict[str, float]:
    """Returns medians over random orders, with 5th and 95th percentiles of the loss."""
    rng = np.random.default_rng(0)
    all_epochs, best = replay(curves, None, ())
    savings, losses = [], []
    for _ in range(orders):
        spent, found = replay([curves[i] for i in rng.permutation(len(curves))], rule, epochs)
        savings.append(all_epochs / spent)
        losses.append(1 - found / best)
    return {
        "epochs_ratio": float(np.median(savings)),
        "loss": float(np.median(losses)),
        "loss_mean": float(np.mean(losses)),
        "loss_p95": float(np.percentile(losses, 95)),
    }


def main() -> None:
    content = read_json(RESULTS / "search_curves.json")
    curves, full = content["candidates"], content["epochs"]
    defaults = StoppingOptions()
    rows = {}
    settings: list[tuple[str, str, float, float, tuple[int, ...]]] = [
        ("default", defaults.rule, defaults.margin, defaults.eta, ()),
        *(("dominance", "dominance", margin, 3.0, chosen)
          for margin in (0.0, 0.01, 0.02, 0.03) for chosen in ((2, 4), (1, 2, 4), (4,), (2,))),
        *(("halving", "halving", 0.0, eta, chosen)
          for eta in (2.0, 3.0, 4.0) for chosen in ((1, 2, 4), (2, 4), (2, 4, 6))),
    ]  # fmt: skip
    for label, name, margin, eta, given in settings:
        chosen = rungs(name, full, given)
        found = judge(curves, make_rule(name, margin, eta), chosen)
        detail = f"margin {margin:g}" if name == "dominance" else f"eta {eta:g}"
        key = f"{label}: {name}, {detail}, rungs {','.join(map(str, chosen))}"
        rows[key] = found
        print(f"{key:55} epochs {found['epochs_ratio']:.2f}x fewer, hypervolume "
              f"-{100 * found['loss']:.2f} % (mean -{100 * found['loss_mean']:.2f} %, "
              f"95th -{100 * found['loss_p95']:.2f} %)")  # fmt: skip
    save("search_stopping", {"candidates": len(curves), "orders": ORDERS, "rules": rows})


if __name__ == "__main__":
    main()
