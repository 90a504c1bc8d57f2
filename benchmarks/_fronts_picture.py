"""A picture of the fronts of several ways to make a net faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Files = Mapping[str, Mapping[str, float]]

COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#000000")
"""Okabe and Ito's, which readers who see few colours can tell apart."""
TICKS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05, 0.035)
MARKS = ("o", "s", "D", "^", "v", "*")


def drawn(ways: Mapping[str, Sequence[Files]]) -> Figure:
    """Draws test accuracy against the time left: float32 filled, int8 hollow.

    Files of the first way are joined by a line where no other of them is better and faster.

    Args:
        ways: By what the legend calls it, for each seed the files of a way: "time" and "test" by
            name; names end in the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for place, ((label, seeds), colour, mark) in enumerate(
        zip(ways.items(), COLOURS, MARKS, strict=False)
    ):
        for name, item in [pair for files in seeds for pair in files.items()]:
            axes.plot(
                item["time"], 100 * item["test"], mark, color=colour, label=label,
                markerfacecolor="none" if name.endswith("int8") else colour,
            )  # fmt: skip
            label = "_"  # one line of the legend
        for files in seeds if place == 0 else ():
            axes.plot(*_front(list(files.values())), color=colour, linewidth=1)
    axes.set_xscale("log")
    least = axes.get_xlim()[0]
    ticks = [tick for tick in TICKS if tick >= least]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("time left, of the dense float32 file's (measured); hollow: int8")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    # beside the axes: marks may be anywhere in them
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize="small", frameon=False
    )
    return figure


def _front(items: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    """Returns times and accuracies of those that none is better and as fast as."""
    times, tests, best = [], [], -np.inf
    for item in sorted(items, key=lambda one: (one["time"], -one["test"])):
        if item["test"] > best:
            best = item["test"]
            times.append(item["time"])
            tests.append(100 * best)
    return times, tests
