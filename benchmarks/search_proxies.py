"""Whether scores of untrained networks tell a search more than choices and costs do.

    python -m benchmarks.search_proxies [--curves FILE] [--seeds 0,1,2] [--resume FILE]

The 50 candidates of a result of benchmarks.search_curves are built again, not trained, and scored
by synflow, jacob_cov and NASWOT (_proxies.py) on 64 training images, with three seeds of their
weights. Shown: the rank correlation of each score with the recorded accuracy, by itself and beside
log MACs (partial); and that of what the search's predictor says of 25 candidates it was not told,
with and without the score among what it reads, over 100 random halves.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, spearmanr

from benchmarks._common import Benchmark, Mean, seed_list, table
from benchmarks._proxies import PROXIES
from benchmarks._stored import Stored, newest, read
from benchmarks.fashion_small import load
from compress.data import Dataset

BATCH = 64
HALVES = 100

Numbers = npt.NDArray[np.float64]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--curves", type=Path, help="a result of benchmarks.search_curves")
    seed_list(parser, range(3))


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Scores every candidate with every seed, then predicts."""
    source = read(given.curves, "search_curves") if given.curves else newest("search_curves")
    records = [item for item in source.result["candidates"] if item["accuracy"]]
    data = load()
    scores: dict[str, dict[str, list[float]]] = stored.result.setdefault("scores", {})
    seconds: dict[str, float] = stored.result.setdefault("seconds", {})
    for seed in given.seeds:
        if str(seed) in scores:
            continue
        found: dict[str, list[float]] = {name: [] for name in PROXIES}
        for record in records:
            for name, (value, spent) in scored(record, data, seed).items():
                found[name].append(value)
                seconds[name] = seconds.get(name, 0.0) + spent
        scores[str(seed)] = found
        print(f"seed {seed} scored", flush=True)
        stored.save(scores=scores, seconds=seconds)
    stored.save(
        scores=scores,
        seconds=seconds,
        built=len(scores) * len(records),
        **judged(records, scores, data),
    )


def scored(record: dict[str, Any], data: Dataset, seed: int) -> dict[str, tuple[float, float]]:
    """Builds a candidate and returns, by proxy, its score and the seconds that it took."""
    import keras
    import optuna

    from search.spaces import SPACES

    keras.utils.set_random_seed(seed)
    model = SPACES["cnn"].build(optuna.trial.FixedTrial(record["choices"]), data)
    x = np.asarray(data.train.x[:BATCH], np.float32)
    found = {}
    for name, score in PROXIES.items():
        began = time.perf_counter()
        value = score(model, x)
        found[name] = value, time.perf_counter() - began
    return found


def judged(
    records: list[dict[str, Any]], scores: dict[str, dict[str, list[float]]], data: Dataset
) -> dict[str, Any]:
    """Returns rank correlations of scores, and of predictions with and without them."""
    accuracy = np.array([max(item["accuracy"]) for item in records])
    macs = np.log([item["macs"] for item in records])
    alone: dict[str, list[list[float]]] = {}
    predicted: dict[str, list[float]] = {"nothing": halves(records, accuracy, data, None)}
    for name in PROXIES:
        for found in scores.values():
            score = finite(found[name])
            alone.setdefault(name, []).append(
                [float(spearmanr(score, accuracy).statistic), partial(score, accuracy, macs)]
            )
        mean = finite(np.mean([finite(found[name]) for found in scores.values()], axis=0))
        predicted[name] = halves(records, accuracy, data, mean)
    return {"alone": alone, "predicted": predicted,
            "macs": float(spearmanr(macs, accuracy).statistic)}  # fmt: skip


def finite(values: Any) -> Numbers:
    """Returns scores with what is no number in the place of the worst."""
    found = np.asarray(values, np.float64)
    return np.where(np.isfinite(found), found, found[np.isfinite(found)].min())


def partial(one: Numbers, other: Numbers, known: Numbers) -> float:
    """Returns the rank correlation of two, what both owe to a third left out."""
    a, b, c = (rankdata(item) for item in (one, other, known))
    rest = [item - np.polyval(np.polyfit(c, item, 1), c) for item in (a, b)]
    return float(np.corrcoef(*rest)[0, 1])


def halves(
    records: list[dict[str, Any]], accuracy: Numbers, data: Dataset, score: Numbers | None
) -> list[float]:
    """Returns rank correlations of what one half tells of the other, over random halves."""
    from compress.plan.fields import from_flat
    from search.plan import SearchPlan
    from search.samplers.pareto.predictor import Encoding, Predictor, _scaled
    from search.study.recovery import declared

    names = declared(from_flat(SearchPlan, {"space": "cnn"}), data)
    rows = Encoding(names).rows([item["choices"] for item in records])
    costs = np.log([[item["macs"]] for item in records])
    known = costs if score is None else np.concatenate([costs, score[:, None]], 1)
    (rows,) = _scaled([np.concatenate([rows, known], 1)], known.shape[1])
    found = []
    for number in range(HALVES):
        rng = np.random.default_rng(number)
        order = rng.permutation(len(records))
        told, others = order[: len(order) // 2], order[len(order) // 2 :]
        predict = Predictor(rows[told], accuracy[told], np.zeros(len(told)), rng)
        found.append(float(spearmanr(predict(rows[others])[0], accuracy[others]).statistic))
    return found


def told(result: dict[str, Any]) -> str | None:
    """Rank correlations by proxy."""
    if "predicted" not in result:
        return None
    base = result["predicted"]["nothing"]
    rows = [["choices and costs alone", f"{result['macs']:.2f} (log MACs)", "",
             Mean.of(base).number(), "", ""]]  # fmt: skip
    for name, found in result["alone"].items():
        own, beside = (Mean.of(list(column)) for column in zip(*found, strict=True))
        gain = Mean.of([a - b for a, b in zip(result["predicted"][name], base, strict=True)])
        spent = 1000 * result["seconds"][name] / result["built"]
        rows.append(
            [name, own.number(), beside.number(), Mean.of(result["predicted"][name]).number(),
             f"{gain.mean:+.3f} +- {gain.error:.3f}", f"{spent:.0f} ms"]
        )  # fmt: skip
    head = ["read besides", "rank correlation of the score", "beside log MACs",
            "of the prediction", "difference", "a score takes"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark(
    "search_proxies", __doc__, run, {"told": told}, arguments,
    resumable=True, grows=("seeds",), seeds=(0, 1, 2),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
