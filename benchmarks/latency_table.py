"""Times from a table of measured calls, against whole nets: LiteRT, float32, one thread.

    python -m benchmarks.latency_table [--nets resnet20,mobilenetv2,densenet] [--choices 50]

ResNet-20 at 28 x 28 x 1, MobileNetV2 (alpha 0.5) at 96 x 96 x 3 and a DenseNet-like net of 28 x 28,
untrained: time does not depend on weights. The table is measured once, with the time and precision
of `paretune shrink`; then nets of random widths are cut out, and their times, measured as whole
files, are compared with what the table says of them. Apart from that all calls of these nets are
measured themselves, more precisely: what interpolation between widths adds to the error.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks._common import Benchmark, table
from benchmarks._small_nets import densenet
from benchmarks._stored import Stored
from benchmarks.resnet20 import build
from compress.core.device import silence_tensorflow

STEP = {"resnet20": 4, "mobilenetv2": 8, "densenet": 4}
"""Kept totals are multiples of it."""
LEAST = 0.25
"""Share of a group's channels that a random net keeps at least."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nets", default=",".join(STEP), help="with commas")
    parser.add_argument("--choices", type=int, default=50, help="nets of random widths")


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Measure a table for each net and compare it with whole files."""
    silence_tensorflow()
    nets = {}
    for name in given.nets.split(","):
        nets[name] = _net(name, given.choices)
        stored.save(nets=nets)


def _net(name: str, choices: int) -> dict[str, Any]:
    import keras

    from compress.exporting.batch_conversion import write_latency_files
    from compress.measure.latency_table import measure_calls
    from compress.plan import ChannelOptions
    from compress.prune.channels.analysis import analyze_coupling
    from compress.prune.channels.selection.allowed_counts import compute_allowed_counts
    from compress.prune.channels.selection.costs import CostModel
    from compress.prune.channels.selection.latency_measurement import (
        LOCAL_ERROR,
        LOCAL_SECONDS,
        TimedCalls,
        measure_latency_model,
        time_models,
    )

    makers: dict[str, Callable[[], Any]] = {
        "resnet20": build,
        "mobilenetv2": lambda: keras.applications.MobileNetV2(
            (96, 96, 3), weights=None, alpha=0.5, classes=10
        ),
        "densenet": densenet,
    }
    model = makers[name]()
    coupling = analyze_coupling(model)
    allowed = compute_allowed_counts(coupling, ChannelOptions(min_kept=LEAST), STEP[name])
    began = time.perf_counter()
    times, measured = measure_latency_model(
        coupling, allowed, write_latency_files, error=LOCAL_ERROR, budget=LOCAL_SECONDS
    )
    seconds = time.perf_counter() - began
    kept = _drawn(allowed, choices)
    many = np.resize(kept, (10_000, kept.shape[1]))
    began = time.perf_counter()
    predicted = times.predict(many)[:choices]
    ten_thousand = time.perf_counter() - began
    calls = TimedCalls(coupling, allowed)
    bare = calls.build_latency_model(measured)
    chosen = [calls.list_calls(row) for row in kept]
    own = {key: make for row in chosen for _, key, make in row}
    lacking = {key: own[key] for key in measured.find_missing(own)}
    every = measured.merge(measure_calls(lacking, write_latency_files)) if lacking else measured
    added = [every.overhead_ms + sum(every[key].ms for _, key, _ in row) for row in chosen]
    found = time_models(coupling, kept, write_latency_files)
    macs = CostModel.from_coupling(coupling).macs(kept)
    return {
        "calls": len(measured.calls), "seconds": seconds, "ten_thousand_seconds": ten_thousand,
        "rounds": sorted({call.rounds for call in measured.calls}),
        "overhead_ms": measured.overhead_ms, "estimated": list(times.estimated),
        "warnings": list(every.warnings), "calibration": times.calibration.to_json(),
        "held_out": _held_out(chosen, [bare.predict_by_layer(row) for row in kept], every, lacking),
        "choices": [
            {"macs": float(m), "predicted_ms": float(p), "added_ms": float(a), "whole_ms": float(w)}
            for m, p, a, w in zip(macs, predicted, added, found, strict=True)
        ],
    }  # fmt: skip


def _drawn(allowed: Any, count: int) -> np.ndarray:
    """Return kept units of random choices; other ones than those that the fit has seen."""
    rng = np.random.default_rng(1)
    between = rng.random((count, len(allowed.total))) * (allowed.total - allowed.lowest)
    return np.asarray(allowed.round_totals(allowed.lowest + between) - allowed.fixed)


def _held_out(
    chosen: list[Any], interpolated: list[Any], every: Any, lacking: dict[Any, Any]
) -> dict[str, Any]:
    """Compare interpolated times of calls with measured ones that the table had not."""
    pairs: dict[Any, tuple[float, float]] = {}
    for row, named in zip(chosen, interpolated, strict=True):
        for name, key, _ in row:
            if key in lacking:
                pairs[key] = (float(named[name]), every[key].ms)
    if not pairs:
        return {"calls": 0}
    says, is_ = np.array(list(pairs.values())).T
    relative = np.abs(says / is_ - 1)
    return {
        "calls": len(pairs), "median_error": float(np.median(relative)),
        "p90_error": float(np.quantile(relative, 0.9)),
        "share_of_total": float(np.abs(says - is_).sum() / is_.sum()),
    }  # fmt: skip


def agreement(result: dict[str, Any]) -> str:
    """Return the table of agreement between single calls and whole files, a row a net."""
    rows = []
    for name, net in result["nets"].items():
        measured = np.array([item["whole_ms"] for item in net["choices"]])
        span = f"{1e3 * measured.min():.0f} to {1e3 * measured.max():.0f} us"
        row: list[object] = [name, net["calls"], f"{net['seconds']:.0f} s", len(measured), span]
        for kind in ("predicted_ms", "added_ms"):
            ratio = np.array([item[kind] for item in net["choices"]]) / measured
            off = 100 * np.abs(ratio - 1)
            row.append(
                f"median {np.median(off):.1f} %, worst {off.max():.1f} % (r = "
                f"{np.corrcoef(ratio * measured, measured)[0, 1]:.4f})"
            )
        macs = np.array([item["macs"] for item in net["choices"]])
        row.append(f"r = {np.corrcoef(macs, measured)[0, 1]:.4f}")
        rows.append(row)
    return table(
        ["model", "calls measured", "in", "random models", "time of whole files",
         "error of the table", "error of the bare sum over their own calls", "MACs and time"],
        rows,
    )  # fmt: skip


def interpolated(result: dict[str, Any]) -> str:
    """Return the table of calls at widths that were interpolated, a row a net."""
    return table(
        ["model", "calls held out", "median error", "90 % quantile", "of their total time"],
        [
            [name, held["calls"], *(f"{100 * held[key]:.1f} %" for key in
                                    ("median_error", "p90_error", "share_of_total"))]
            for name, net in result["nets"].items()
            if (held := net["held_out"])["calls"]
        ],
    )  # fmt: skip


BENCHMARK = Benchmark(
    "latency_table", __doc__, run, {"agreement": agreement, "interpolated": interpolated}, arguments
)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
