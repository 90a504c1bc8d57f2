"""Charts of how a search went: hypervolume, learning curves, importance, parallel coordinates."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import numpy as np

from compress.core.pareto import log_costs
from compress.measure import formats
from compress.report.live.charts import Chart, line
from search.report.front import FRONT, GONE
from search.report.importance import REPEATS, Floats, Parameter, parameters, rank_parameters
from search.report.searched import SearchFacts, SearchReport
from search.study.directory import STOPPED, Candidate
from search.study.front import Progress, is_finite, losses_of

BARS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
SHOWN = 10
"""Parameters in a chart; a table has all."""
MOST = 300
"""Lines of a chart; those of the front are drawn whatever their number."""
ABSENT = -0.14
"""Height of "not asked", below the axes."""
SHIFT = 0.03
"""By how much the lines of the best and the worst candidate are shifted apart."""
LOG_FROM = 8.0
"""Ratio of the largest to the smallest number from which an axis is logarithmic."""


def search_charts(report: SearchReport, facts: SearchFacts) -> Iterator[Chart]:
    """Yield the charts that the records of a search are enough for.

    Args:
        report: Of the search.
        facts: From `search_facts`.
    """
    if facts.progress is not None:
        yield from _volumes(facts.progress)
    for chart in (_curves(report), _importance(facts), _parallel(report, facts)):
        if chart is not None:
            yield chart


def _volumes(found: Progress) -> Iterator[Chart]:
    """Yield the front's hypervolume over trials and, if they were timed, over time."""
    yield _volume(
        "volume-trials", "Hypervolume over trials", _growth(found), found, "trials",
        [*range(1, len(found.share) + 1)],
    )  # fmt: skip
    if found.seconds and found.seconds[-1] > 0:
        yield _volume(
            "volume-time",
            "Hypervolume over time",
            "The same over the time that building and training took, summed over all workers.",
            found,
            "seconds of training, all workers together",
            found.seconds,
        )


def _volume(
    name: str, title: str, caption: str, found: Progress, across: str, x: Sequence[float]
) -> Chart:
    trace = line(
        x, [100 * share for share in found.share], "hypervolume",
        line={"shape": "hv", "color": FRONT}, customdata=[*found.ids],
        hovertemplate="after %{customdata}: %{y:.2f} %",
    )  # fmt: skip
    return Chart(
        name, title, caption, [trace],
        {"xaxis": {"title": {"text": across}}, "showlegend": False,
         "yaxis": {"title": {"text": "hypervolume, % of the box"}, "range": [0, 105]}},
    )  # fmt: skip


def _growth(found: Progress) -> str:
    trials = len(found.ids)
    unknown = " It is not on record when trials ended: they are ordered by number."
    order = "" if found.timed else unknown
    last = found.last_growth
    if last == trials:
        return f"The front was still growing with the last of {trials} trials.{order}"
    return (
        f"The front last grew with trial {last} ({found.ids[last - 1]}) of {trials}; it has not in "
        f"the {trials - last} after it.{order}"
    )


def _curves(report: SearchReport) -> Chart | None:
    """Return every trial's validation quality over its epochs; None without histories."""
    quality = report.objectives[0]
    curves = curves_of(report.candidates, quality)
    if not curves:
        return None
    known = [item for item in report.candidates if item.id in curves]
    most = max(epoch for points in curves.values() for epoch, _ in points)
    traces, named = [], set[str]()
    for item in some_of(known, report.front):
        front = item.id in report.front
        group = "front" if front else "stopped" if item.state == STOPPED else report.done
        epochs, heights = zip(*curves[item.id], strict=True)
        traces.append(
            line(
                epochs, [100 * height for height in heights], group,
                mode="lines+markers",
                marker={
                    "symbol": "x" if group == "stopped" else "circle",
                    # where it ended, or all there is of it
                    "size": [0] * (len(epochs) - 1) + [8 if group == "stopped" else 4],
                },
                line={
                    "width": 2.2 if front else 1,
                    "color": FRONT if front else GONE if group == "stopped" else "#8A8F99",
                    "dash": "dot" if group == "stopped" else "solid",
                },
                opacity=1.0 if front else 0.55, legendgroup=group, showlegend=group not in named,
                meta={"model": item.id}, customdata=[item.id] * len(epochs),
                hovertemplate="%{customdata}, epoch %{x}: %{y:.2f} %",
            )
        )  # fmt: skip
        named.add(group)
    return Chart(
        "curves",
        "Learning curves",
        f"Validation {quality} after each epoch. A cross marks where a trial was stopped "
        f"because others were better; thick lines are the front. At most {MOST} are drawn.",
        traces,
        {
            "xaxis": {"title": {"text": "epoch"}, "dtick": -(-most // 10)},
            "yaxis": {"title": {"text": f"validation {quality} in %"}},
        },
    )


def curves_of(candidates: Sequence[Candidate], quality: str) -> dict[str, list[tuple[int, float]]]:
    """Return (epoch, validation quality) by candidate, where there is a history.

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


def some_of(
    candidates: Sequence[Candidate], front: Container[str], most: int = MOST
) -> list[Candidate]:
    """Return the front and others at equal distances, in their order.

    A chart of ten thousand lines shows nothing.

    Args:
        candidates: In any order.
        front: Ids that are always there.
        most: Others are left out beyond so many in all.

    Example:
        >>> many = [Candidate(f"{number:04d}", "complete", {}, 0) for number in range(9)]
        >>> [item.id for item in some_of(many, {"0008"}, most=3)]
        ['0000', '0004', '0008']
    """
    if len(candidates) <= most:
        return list(candidates)
    others = [place for place, item in enumerate(candidates) if item.id not in front]
    room = max(0, most - (len(candidates) - len(others)))
    kept = {others[index * len(others) // room] for index in range(room)}
    return [item for place, item in enumerate(candidates) if place in kept or item.id in front]


def _importance(facts: SearchFacts) -> Chart | None:
    """Return the most important parameters, one bar a target; None if there are none."""
    ranked = rank_parameters(facts.importances)
    names = ranked[:SHOWN]
    if not names:
        return None
    known = [item for item in facts.importances if item.shares]
    traces = [
        {
            "type": "bar", "orientation": "h", "name": item.target,
            "y": [name for name in names if name in item.shares],
            "x": [100 * item.shares[name].value for name in names if name in item.shares],
            "error_x": {
                "type": "data",
                "array": [100 * item.shares[name].spread for name in names if name in item.shares],
            },
            "marker": {"color": BARS[place % len(BARS)]},
            "hovertemplate": "%{y}: %{x:.1f} %",
        }
        for place, item in enumerate(known)
    ]  # fmt: skip
    shown = f"The {SHOWN} most important of {len(ranked)} parameters"
    return Chart(
        "importance", "Importance of parameters",
        f"{shown if len(ranked) > SHOWN else 'Importance'} for "
        f"{' and '.join(item.target for item in known)}; lines are the spread over {REPEATS} "
        "repetitions.",
        traces,
        {"barmode": "group", "yaxis": {"autorange": "reversed", "automargin": True},
         "xaxis": {"title": {"text": "share of the variance in %"}},
         "height": 200 + 34 * len(names)},
    )  # fmt: skip


def _parallel(report: SearchReport, facts: SearchFacts) -> Chart | None:
    """Return one line a candidate; None with fewer than two or no parameter that varies."""
    finished = drawable(report.candidates, report.objectives)
    drawn = some_of(finished, set(report.front))
    order = rank_parameters(facts.importances)
    chosen = shown_parameters(drawn, order, SHOWN)
    if len(drawn) < 2 or not chosen:
        return None
    lines, rank = crossings(drawn, report.objectives, chosen)
    quality, *costs = report.objectives
    heads = [*(item.name for item in chosen), f"validation {quality}", *costs]
    traces = []
    for place in np.argsort(rank):
        item = drawn[place]
        front = item.id in report.front
        shown = [
            *(formats.plain(item.choices[own.name]) if own.name in item.choices else "not asked"
              for own in chosen),
            formats.quality(quality, item.val[quality]),
            *(formats.cost(cost, getattr(item, cost)) for cost in costs),
        ]  # fmt: skip
        traces.append(
            line(
                [*range(len(heads))], [round(float(y), 4) for y in lines[place]], item.id,
                line={"width": 2.4 if front else 1, "color": _tone(float(rank[place]))},
                opacity=0.95 if front else 0.5, meta={"model": item.id}, customdata=shown,
                hovertemplate="%{fullData.name}: %{customdata}",
            )
        )  # fmt: skip
    of = f"{len(finished):,}"
    if len(drawn) < len(finished):
        of = f"{len(drawn)} (the front, and others at equal distances) of {of}"
    which = _which(chosen, len(shown_parameters(finished, order, limit=10**6)), bool(order))
    return Chart(
        "parallel", "Parallel coordinates",
        f"Each line is one of {of} finished candidates: its choices, then quality and "
        f"costs. The darker, the better in quality; the front is thick. Shown are {which}. "
        "Numbers that span a factor of 8 and all costs are on logarithmic scales; lines are "
        "shifted a little so that equal choices do not hide each other.",
        traces,
        {"showlegend": False, "height": 460, "hovermode": "closest",
         "xaxis": {"tickvals": [*range(len(heads))], "ticktext": heads, "side": "top",
                   "range": [-0.3, len(heads) - 0.7], "tickangle": -25},
         "yaxis": {"visible": False}},
        wide=True,
    )  # fmt: skip


def _which(chosen: Sequence[Parameter], count: int, ranked: bool) -> str:
    """Describe which of `count` parameters are shown."""
    text = f"all {len(chosen)} parameters that vary"
    if count > len(chosen):
        by = "most important" if ranked else "most often asked"
        text = f"the {len(chosen)} {by} of {count} parameters"
    if any(not item.common for item in chosen):
        text += "; those that only some trials have stand to the right"
    return text


def _tone(rank: float) -> str:
    """Return a colour between pale and dark: the darker, the better."""
    pale, dark = (190, 214, 232), (0, 58, 115)
    mixed = (round(a + (b - a) * rank) for a, b in zip(pale, dark, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def shown_parameters(
    candidates: Sequence[Candidate], order: Sequence[str], limit: int
) -> list[Parameter]:
    """Choose the parameters to draw: those that all candidates have first.

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
    """Return the finished candidates that have all objectives."""
    return [item for item in candidates if losses_of(item, objectives) is not None]


def crossings(
    candidates: Sequence[Candidate], objectives: Sequence[str], chosen: Sequence[Parameter]
) -> tuple[Floats, Floats]:
    """Return where each candidate's line crosses each axis, and the rank of its quality.

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
    """Return the values as they are spaced on the axis."""
    low, high = np.nanmin(item.values), np.nanmax(item.values)
    is_log = not item.categories and low > 0 and high / low >= LOG_FROM
    return np.log10(item.values) if is_log else item.values


def _scaled(values: Floats) -> Floats:
    """Return values on [0, 1]; a half where all are equal."""
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / (high - low) if high > low else np.where(np.isnan(values), values, 0.5)
