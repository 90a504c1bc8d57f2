"""Pictures of a search: hypervolume over time, learning curves, importance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from compress.core.visible import short
from compress.report.canvas import GREY, INK, draw_svg, finish
from compress.report.plot import cut_floor
from search.folder.records import COMPLETE, STOPPED, Candidate
from search.report.fewer import some_of
from search.report.importance import Importance
from search.study.hypervolume import Progress, is_finite

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (5.2, 3.9)
FRONT, GONE = "#0072B2", "#D55E00"
BARS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
SHOWN, NAME = 10, 40
"""Parameters in a picture (a table has all), and letters of a name."""


def volume_by_trial(found: Progress) -> Markup:
    """Draws the front's hypervolume over the number of trials that ended."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        numbers = list(range(1, len(found.share) + 1))
        axes.step(numbers, [share * 100 for share in found.share], where="post", color=FRONT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        order = "as they ended" if found.timed else "by their numbers"
        axes.set_xlabel(f"trials, {order}")
        _volume_axis(axes)

    return draw_svg("volume-trials", SIZE, draw)


def volume_by_time(found: Progress) -> Markup:
    """Draws the front's hypervolume over the time that trials took; nothing without times."""
    if not found.seconds or found.seconds[-1] <= 0:
        return Markup()
    unit, seconds = ("min", 60.0) if found.seconds[-1] < 7200 else ("h", 3600.0)
    if found.seconds[-1] < 180:
        unit, seconds = "s", 1.0

    def draw(axes: Axes) -> None:
        times = [0.0, *(time / seconds for time in found.seconds)]
        heights = [0.0, *(share * 100 for share in found.share)]
        axes.step(times, heights, where="post", color=FRONT)
        axes.set_xlabel(f"time of training, all workers together, in {unit}")
        _volume_axis(axes)

    return draw_svg("volume-time", SIZE, draw)


def _volume_axis(axes: Axes) -> None:
    axes.set_ylim(0, 105)
    axes.set_ylabel("hypervolume, % of the box")
    finish(axes)


def curves_of(candidates: Sequence[Candidate], quality: str) -> dict[str, list[tuple[int, float]]]:
    """Returns (epoch, validation quality) by candidate, where there is a history.

    Args:
        candidates: Any.
        quality: Its name; epochs without it are left out.
    """
    found = {}
    for item in candidates:
        points = [
            (int(record.get("epoch", place)), float(record["val"][quality]))
            for place, record in enumerate(item.history, start=1)
            if is_finite((record.get("val") or {}).get(quality))
        ]
        if points:
            found[item.id] = points
    return found


def learning_curves(candidates: Sequence[Candidate], front: Sequence[str], quality: str) -> Markup:
    """Draws every trial's validation quality over its epochs; nothing without histories.

    Args:
        candidates: Any.
        front: Ids of those highlighted.
        quality: Its name.
    """
    curves = curves_of(candidates, quality)
    if not curves:
        return Markup()
    states = {item.id: item.state for item in candidates}
    known = [item for item in candidates if item.id in curves]
    drawn = {item.id for item in some_of(known, front)}
    groups = {
        "trained to the end": [n for n in curves if states[n] == COMPLETE and n not in front],
        "stopped (x)": [n for n in curves if states[n] == STOPPED],
        "front": [n for n in curves if n in front],
    }
    styles: dict[str, Any] = {
        "trained to the end": {"color": GREY, "linewidth": 0.9, "alpha": 0.6},
        "stopped (x)": {"color": GONE, "linewidth": 0.9, "alpha": 0.65},
        "front": {"color": FRONT, "linewidth": 1.9, "alpha": 0.95},
    }

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        ends = []
        for label, names in groups.items():
            for place, name in enumerate(name for name in names if name in drawn):
                epochs, heights = zip(*curves[name], strict=True)
                scaled = [height * 100 for height in heights]
                shown = f"{label}: {len(names)}" if place == 0 else None
                marker = "x" if states[name] == STOPPED else "o"
                axes.plot(
                    epochs, scaled, label=shown, marker=marker, markevery=[-1],
                    markersize=5 if marker == "x" else 2.5, **styles[label],
                )  # fmt: skip
                ends.append(scaled[-1])
        cut_floor(axes, ends, [curves[name][-1][1] * 100 for name in groups["front"]])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"validation {quality} in %")
        finish(axes)

    return draw_svg("curves", SIZE, draw)


def importance_bars(found: Sequence[Importance]) -> Markup:
    """Draws the most important parameters, one bar a target; nothing where there are none."""
    shown = [item for item in found if item.shares]
    names = ranked(found)[:SHOWN]
    if not names:
        return Markup()
    height = 0.8 / len(shown)

    def draw(axes: Axes) -> None:
        for place, item in enumerate(shown):
            rows = [row for row, name in enumerate(names) if name in item.shares]
            shares = [item.shares[names[row]] for row in rows]
            axes.barh(
                [row + (place - (len(shown) - 1) / 2) * height for row in rows],
                [share.value * 100 for share in shares],
                height,
                xerr=[share.spread * 100 for share in shares],
                color=BARS[place % len(BARS)],
                error_kw={"ecolor": INK, "elinewidth": 0.9},
                label=item.target,
            )
        axes.set_yticks(range(len(names)), [short(name, NAME) for name in names])
        axes.invert_yaxis()
        axes.axvline(0, color="#b8bdc7", linewidth=0.8)
        axes.set_xlabel("share of the variance in %")
        finish(axes, "x")

    return draw_svg("importance", (SIZE[0], 1.5 + 0.32 * len(names)), draw)


def ranked(found: Sequence[Importance]) -> list[str]:
    """Returns the parameters by their largest share in any target."""
    best: dict[str, float] = {}
    for item in found:
        for name, share in item.shares.items():
            best[name] = max(best.get(name, share.value), share.value)
    return sorted(best, key=lambda name: -best[name])
