"""Depth and widths by measured LiteRT time: the part of repair_resnet20 that trains nothing.

The times of all widths and blocks follow from single calls, measured once on this machine. Each way
of choosing comes to the same factor of less time: widths and blocks by damage, widths alone, blocks
alone, each the best of choices near the first one, and uniform widths. What comes out is timed as a
file against the dense file; where that differs from the factor by more than 2 %, the choice is made
once more for a time put right by it. All are repaired on the same examples.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._common import Mean, table
from benchmarks._latency import bounds
from benchmarks._repair import ROUND_TO, Inputs, by_name, examples, macs_of, points, span
from benchmarks._stored import Stored
from benchmarks.prune_resnet20 import Variants, timed
from compress.plan import ChannelOptions, LatencyOptions

FACTOR = 2.4
CLOSE = 0.02
CRITERION = "reconstruction"
LABELS = {
    "both": "widths and blocks by damage",
    "widths": "widths alone by damage",
    "blocks": "blocks alone by damage",
    "uniform": "uniform widths",
}


class Choice(NamedTuple):
    """A kept set.

    Attributes:
        mask: Kept units.
        dropped: Blocks that leave.
        milliseconds: That the table says.
    """

    mask: Any
    dropped: tuple[Any, ...]
    milliseconds: float


class Chooser:
    """Chooses widths and blocks of a net by time.

    Args:
        dense: The net.
        budget: Seconds of timing calls; default: what `measured_times` takes.
    """

    def __init__(self, dense: Any, budget: float | None = None) -> None:
        from compress.exporting.side_by_side import litert_files
        from compress.prune.channels.analysis import coupling_of
        from compress.prune.channels.coupling.blocks import blocks_of
        from compress.prune.channels.selection.allowed import allowed_for
        from compress.prune.channels.selection.measured_times import measured_times

        began = time.perf_counter()
        self.dense, self.coupling = dense, coupling_of(dense)
        self.options = ChannelOptions(scope="damage", round_to=ROUND_TO, blocks=True)
        self.allowed = allowed_for(self.coupling, self.options, ROUND_TO)
        self.times, found = measured_times(
            self.coupling, self.allowed, litert_files, blocks_of(self.coupling), budget=budget
        )
        self.calls, self.seconds = len(found.calls), time.perf_counter() - began
        self.before = float(self.times.time(self.coupling.whole))

    def weighed(self, x: Inputs, seed: int) -> tuple[Any, Any]:
        """Return the output errors of all widths and blocks, and what evaluates choices."""
        from compress.prune.channels.criteria import Context, named
        from compress.prune.channels.selection.damage import Judge, measure_sensitivity
        from compress.train.given import as_examples

        data = as_examples(x, model=self.dense)
        context = Context(self.coupling, data=data, seed=seed, aggregate=self.options.aggregate)
        judge = Judge(self.coupling, context)
        criterion = named(CRITERION)[1]
        found = measure_sensitivity(self.coupling, context, criterion, judge, blocks=True)
        return found, judge

    def choose(self, how: str, weighed: tuple[Any, Any], target: float) -> Choice:
        """Comes to a target in milliseconds.

        Args:
            how: A name in `LABELS`.
            weighed: From the method of that name.
            target: What the table shall say.
        """
        from compress.prune.channels.selection.by_output_error import by_damage, refined
        from compress.prune.channels.selection.by_rank import by_rank, keep_best

        sensitivity, judge = weighed
        if how == "uniform":
            scores = [np.array(group.scores) for group in sensitivity.groups]
            choice = by_rank(scores, self.allowed, self.times.time, target, uniform=True)
            mask = keep_best(self.coupling, scores, choice.totals - self.allowed.fixed)
            return Choice(mask, (), choice.cost)
        options, cost = self.options, self.times.time
        if how == "widths":
            sensitivity = replace(sensitivity, blocks=())
        elif how == "blocks":
            options = replace(options, exclude=("*",))
        found = refined(
            sensitivity, lambda near: by_damage(self.coupling, options, near, target, cost), judge,
            options.tries, judge.seed,
        ).found  # fmt: skip
        return Choice(found.mask, found.dropped, found.choice.cost)

    def cut(self, choice: Choice) -> tuple[Any, Any]:
        """Returns the smaller net, not repaired, and the kept indices."""
        from compress.prune.channels.surgery import kept_indices, sliced_model

        parts = self.coupling, choice.mask, choice.dropped
        return sliced_model(*parts), kept_indices(*parts)

    def factor(self, model: Any) -> float:
        """Returns how much less time a net's file takes than the dense file."""
        from compress.exporting.litert import export_litert
        from compress.measure import measure_latency

        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / f"{name}.tflite" for name in ("dense", "small")}
            export_litert(self.dense, files["dense"])
            export_litert(model, files["small"])
            found = measure_latency(files, LatencyOptions(budget=10.0))
        return found["dense"].median_ms / found["small"].median_ms

    def nearest(self, how: str, weighed: tuple[Any, Any], factor: float) -> tuple[Choice, float]:
        """Chooses for a factor of less time, put right once by what the file takes."""
        return nearest(
            lambda target: self.choose(how, weighed, target),
            lambda choice: self.factor(self.cut(choice)[0]),
            self.before, factor,
        )  # fmt: skip


def nearest(
    choose: Callable[[float], Choice], measure: Callable[[Choice], float], before: float,
    factor: float,
) -> tuple[Choice, float]:  # fmt: skip
    """Chooses for a factor of less time; once more where what is measured is not close to it.

    Args:
        choose: Milliseconds -> a choice.
        measure: A choice -> factor of less time, measured.
        before: Milliseconds of the dense net.
        factor: Wanted.

    Returns:
        The choice whose measured factor is nearer, and that factor.
    """
    first = choose(before / factor)
    reached = measure(first)
    if abs(reached / factor - 1) <= CLOSE:
        return first, reached
    second = choose(first.milliseconds * reached / factor)
    again = measure(second)
    near = abs(np.log(again / factor)) < abs(np.log(reached / factor))
    return (second, again) if near else (first, reached)


def run(given: argparse.Namespace, stored: Stored, variants: Variants) -> None:
    """Chooses, repairs and tests what is missing, then times all files together."""
    from compress.reconstruction import repair

    runs, dense = stored.result.setdefault("runs", {}), variants.dense.model
    if "dense" not in stored.result:
        stored.save(dense={"test": variants.accuracy(dense, "test"), "macs": macs_of(dense)})
    chooser = Chooser(dense)
    stored.result.setdefault("times", {}).update(
        calls=chooser.calls, seconds=chooser.seconds, dense_ms=chooser.before
    )
    models: dict[str, Any] = {"dense": dense}
    for seed in given.seeds:
        x = examples(variants, seed, given.examples)
        began = time.perf_counter()
        weighed = chooser.weighed(x, seed)
        weighing = time.perf_counter() - began
        for how in LABELS:
            key = f"{how}, seed {seed}"
            began = time.perf_counter()
            choice, quick = chooser.nearest(how, weighed, given.factor)
            choosing = time.perf_counter() - began
            model, kept = chooser.cut(choice)
            report = repair(model, dense, x, kept=kept, examples=len(x), seed=seed)
            models[key] = model
            runs[key] = {
                "test": variants.accuracy(model, "test"), "macs": macs_of(model),
                "predicted": chooser.before / choice.milliseconds, "quickly_timed": quick,
                "dropped": [block.name for block in choice.dropped],
                "weighing_seconds": weighing, "choosing_seconds": choosing,
                "repair_seconds": report.seconds,
            }  # fmt: skip
            print(key, json.dumps(runs[key]), flush=True)
            stored.save(runs=runs)
    stored.save(files=timed(models, variants.data))


def chosen_by_time(result: dict[str, Any]) -> str | None:
    """Points lost and measured time of each way of choosing."""
    if "times" not in result or "rates" in result or "files" not in result:
        return None
    dense, runs = result["dense"], result["runs"]
    tests, macs, predicted = (by_name(runs, field) for field in ("test", "macs", "predicted"))
    repairs, weighing, choosing = (
        by_name(runs, f"{name}_seconds") for name in ("repair", "weighing", "choosing")
    )
    dropped = by_name(runs, "dropped")
    rows = []
    for name, label in LABELS.items():
        if name not in tests:
            continue
        keys = [key for key in runs if key.rpartition(", seed")[0] == name]
        times = [result["files"][key]["latency"] for key in keys]
        ratios = [row["ratio"] for row in times]
        told = Mean.of(ratios).number(2)
        first = times[0]
        ends = bounds(first, f"{first['ratio_low']:.2f}", f"{first['ratio_high']:.2f}")
        rows.append([
            label, points(dense["test"], tests[name]), f"{told} (first seed {ends})",
            span(predicted[name], 2), f"{np.mean(macs[name]) / dense['macs']:.3f}x",
            span([len(blocks) for blocks in dropped[name]]),
            span(repairs[name], 1), span(weighing[name], 1) if name != "uniform" else "",
            span(choosing[name], 1),
        ])  # fmt: skip
    head = ["chosen", "points lost, untrained", "LiteRT time old/new, measured",
            "said by the table", "MACs", "blocks that left", "seconds of the repair",
            "of the damages", "of the choice and its timing"]  # fmt: skip
    return table(head, rows)
