"""Parallel coordinates: each finished candidate's choices, quality and costs as one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from compress.core.pareto import log_costs
from compress.core.visible import short
from compress.measure import formats
from compress.report.canvas import INK, draw_svg
from search.folder.records import Candidate
from search.report.choices import Floats, Parameter, parameters
from search.study.hypervolume import losses_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ABSENT = -0.14
"""Height of "not asked", below the axes."""
SHIFT = 0.03
"""By how much the lines of the best and the worst candidate are shifted apart."""
LOG_FROM = 8.0
"""Ratio of the largest to the smallest number from which an axis is logarithmic."""
LABELS, LETTERS, NAME = 8, 14, 40
"""Categories that are labelled on one axis, letters of each, and letters of a parameter's name."""


def shown_parameters(
    candidates: Sequence[Candidate], order: Sequence[str], limit: int
) -> list[Parameter]:
    """Chooses the parameters to draw: those that all candidates have first.

    Args:
        candidates: What is drawn.
        order: Names, the most important first; those not in it come behind, those asked
            most often first.
        limit: How many at most.

    Returns:
        The chosen ones that vary among the candidates.
    """
    place = {name: index for index, name in enumerate(order)}
    varying = [item for item in parameters(candidates) if item.varies]
    varying.sort(key=lambda item: (place.get(item.name, len(place)), -int(item.asked.sum())))
    return sorted(varying[:limit], key=lambda item: not item.common)


def drawable(candidates: Sequence[Candidate], objectives: Sequence[str]) -> list[Candidate]:
    """Returns the finished candidates that have all objectives."""
    return [item for item in candidates if losses_of(item, objectives) is not None]


def parallel_coordinates(
    candidates: Sequence[Candidate],
    front: Sequence[str],
    objectives: Sequence[str],
    chosen: Sequence[Parameter],
) -> Markup:
    """Draws one line a candidate, coloured by the rank of its quality.

    Args:
        candidates: From `drawable`.
        front: Ids of those drawn thick.
        objectives: Quality, then costs: the last axes.
        chosen: From `shown_parameters`, over the same candidates.

    Returns:
        The picture; nothing with fewer than two candidates or no parameter.
    """
    if len(candidates) < 2 or not chosen:
        return Markup()
    quality, *costs = objectives
    lines, rank = crossings(candidates, objectives, chosen)
    reached = np.array([item.val[quality] for item in candidates])
    on_front = np.array([item.id in front for item in candidates])

    def draw(axes: Axes) -> None:
        from matplotlib import colormaps

        # from the worst to the best, the front last and so on top
        for index in np.lexsort((rank, on_front)):
            axes.plot(
                lines[index],
                color=colormaps["viridis_r"](0.08 + 0.92 * rank[index]),
                linewidth=2.2 if on_front[index] else 0.9,
                alpha=0.95 if on_front[index] else 0.5,
            )
        for place, item in enumerate(chosen):
            _label(axes, place, item)
        ends = (reached.min(), reached.max())
        _ends(axes, len(chosen), [formats.quality(quality, float(end)) for end in ends])
        for place, cost in enumerate(costs, start=len(chosen) + 1):
            values = [getattr(item, cost) for item in candidates]
            _ends(axes, place, [formats.cost(cost, end) for end in (min(values), max(values))])
        heads = [_two_lines(item.name) for item in chosen] + [f"val.\n{quality}", *costs]
        axes.set_xticks(range(len(heads)), heads, fontsize=8.5)
        axes.xaxis.tick_top()
        axes.tick_params(length=0, colors=INK)
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.vlines(range(len(heads)), 0, 1, color="#b8bdc7", linewidth=1.0)
        if any(not item.common for item in chosen):
            axes.axhline(ABSENT, color="#b8bdc7", linewidth=0.8, linestyle=":")
            axes.text(-0.1, ABSENT, "not asked", ha="right", va="center", fontsize=8, color=INK)
        axes.set_xlim(-0.6, len(heads) - 0.35)
        axes.set_ylim(ABSENT - 0.06, 1.08)

    return draw_svg("parallel", (max(6.0, 0.95 * lines.shape[1] + 1.0), 4.6), draw)


def crossings(
    candidates: Sequence[Candidate], objectives: Sequence[str], chosen: Sequence[Parameter]
) -> tuple[Floats, Floats]:
    """Returns where each candidate's line crosses each axis, and the rank of its quality.

    Args:
        candidates: From `drawable`, at least two.
        objectives: Quality, then costs: the last axes.
        chosen: From `shown_parameters`, over the same candidates.

    Returns:
        (candidates, axes), an axis being [0, 1] and `ABSENT` what was not asked; (candidates,)
        from 0, the worst, to 1.
    """
    columns = [np.where(item.asked, _scaled(_numbers(item)), ABSENT) for item in chosen]
    quality, *costs = objectives
    reached = np.array([item.val[quality] for item in candidates])
    spent = [log_costs([getattr(item, cost) for item in candidates]) for cost in costs]
    columns += [_scaled(reached), *map(_scaled, spent)]
    rank = np.argsort(np.argsort(reached, kind="stable"), kind="stable") / (len(candidates) - 1)
    # equal choices would lie on each other: lines are shifted by rank, those of objectives not
    shift = SHIFT * (rank[:, np.newaxis] - 0.5) * (np.arange(len(columns)) < len(chosen))
    return np.stack(columns, axis=1) + shift, rank


def _numbers(item: Parameter) -> Floats:
    """Returns the values as they are spaced on the axis."""
    return np.log10(item.values) if _is_log(item) else item.values


def _is_log(item: Parameter) -> bool:
    low, high = np.nanmin(item.values), np.nanmax(item.values)
    return not item.categories and bool(low > 0) and bool(high / low >= LOG_FROM)


def _scaled(values: Floats) -> Floats:
    """Returns values on [0, 1]; a half where all are equal."""
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / (high - low) if high > low else np.where(np.isnan(values), values, 0.5)


def _label(axes: Axes, place: int, item: Parameter) -> None:
    """Writes the categories, or both ends of the numbers, beside an axis."""
    if not item.categories:
        low, high = float(np.nanmin(item.values)), float(np.nanmax(item.values))
        _ends(axes, place, [formats.plain(_whole(low)), formats.plain(_whole(high))])
        return
    seen = sorted(set(item.values[item.asked].astype(int)))
    step = -(-len(seen) // LABELS)
    for index in seen[::step]:
        text = item.categories[index]
        height = (index - seen[0]) / (seen[-1] - seen[0])
        _text(axes, place, height, short(text, LETTERS))


def _ends(axes: Axes, place: int, words: list[str]) -> None:
    for height, word in zip((0.0, 1.0), words, strict=True):
        _text(axes, place, height, word)


def _text(axes: Axes, place: int, height: float, word: str) -> None:
    axes.text(
        place + 0.05, height, word, fontsize=8, va="center", color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
    )  # fmt: skip


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 1e9 else value


def _two_lines(name: str) -> str:
    """Breaks a long name at its last dot, or else at an underscore."""
    name = short(name, NAME)
    for mark in (".", "_"):
        head, found, tail = name.rpartition(mark)
        if found and len(name) > 9:
            return f"{head}{mark}\n{tail}"
    return name
