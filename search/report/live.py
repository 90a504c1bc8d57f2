"""The search's share of the live page: candidates as points, and how the search went as charts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compress.measure import formats
from compress.report.live.charts import Chart, Trace, line
from compress.report.live.points import COST, OTHER, QUALITY, Axis, Points
from compress.task import is_share
from search.folder.records import COMPLETE, STOPPED, Candidate
from search.report.candidates import choices_of, replay_command, search_line
from search.report.course import Picture, lines_drawn
from search.report.facts import SearchFacts
from search.report.fewer import some_of
from search.report.parallel import crossings
from search.report.plots import BARS, FRONT, GONE, SHOWN, curves_of, ranked
from search.report.searched import SearchReport

GROUPS = {
    "front": (FRONT, "circle"),
    "trained": ("#8A8F99", "circle-open"),
    "judged": ("#8A8F99", "circle-open"),
    "stopped early": (GONE, "x"),
}
"""Marks of candidates by how they ended; others have no quality, and stand in the table alone."""
_COSTS = (
    ("macs", "MACs", "counted at batch 1, before training", "~s", ""),
    ("params", "Parameters", "counted, before training", "~s", ""),
    ("size_bytes", "File", "counted: bytes of its float32 .tflite file", "~s", " B"),
    ("latency_ms", "Latency", "measured: median of that file on LiteRT, one thread", "~s", " ms"),
)
ESTIMATED = "estimated from times of single layers, measured before the search"


def candidate_points(report: SearchReport) -> Points:
    """Returns all candidates."""
    quality, found = report.objectives[0], report.candidates
    known = [
        Axis(key, title, COST, ESTIMATED if report.is_estimated(key) else how, tick, unit)
        for key, title, how, tick, unit in _COSTS
        if any(getattr(item, key) is not None for item in found)
    ]
    axes = [
        Axis("state", "Outcome", OTHER, "How it ended, and why.", drawn=False),
        Axis(
            f"val_{quality}", f"Validation {quality}", QUALITY, "measured, on the validation part",
            ".1%" if is_share(quality) else "~r",
        ),
        *known,
        Axis("seconds", "Seconds", COST, "measured: building and training", "~r"),
        Axis("epochs", "Epochs", COST, "trained", "d", shown=False),
        Axis(
            "choices", "Choices", OTHER, "What the sampler chose.", shown=False, drawn=False
        ),
    ]  # fmt: skip
    cost = report.objectives[1]
    return Points(
        "candidates",
        "Everything that was searched",
        f"{search_line(report)}.",
        axes,
        [_row(report, item) for item in found],
        cost if cost in {axis.key for axis in axes} else "macs",
        f"val_{quality}",
        GROUPS,
        "candidate",
    )


def _row(report: SearchReport, item: Candidate) -> dict[str, Any]:
    quality = report.objectives[0]
    ending = f"{item.state}: {item.reason}" if item.reason else item.state
    group = {COMPLETE: report.done, STOPPED: "stopped early"}.get(item.state, item.state)
    front = item.id in report.front
    value = item.val.get(quality)
    costs = {key: getattr(item, key) for key, *_ in _COSTS}
    texts = {key: formats.cost(key, cost) for key, cost in costs.items() if cost is not None}
    told = [*item.notes, choices_of(item), replay_command(report, item)]
    return {
        "id": item.id,
        "model": item.id,
        "group": "front" if front else group,
        "counts": item.state == COMPLETE,
        "tags": ["on the front"] if front else [],
        "values": {
            f"val_{quality}": value, **costs, "seconds": item.seconds, "epochs": len(item.history),
        },
        "texts": {
            "state": ending, f"val_{quality}": formats.quality(quality, value), **texts,
            "seconds": f"{item.seconds:.1f}", "epochs": f"{len(item.history)}",
            "choices": choices_of(item),
        },
        "told": [text for text in told if text],
    }  # fmt: skip


def search_charts(
    report: SearchReport, facts: SearchFacts, pictures: dict[str, Picture]
) -> Iterator[Chart]:
    """Yields charts of how the search went, in the words of the pictures that they stand for.

    Args:
        report: Of the search.
        facts: From `search_facts`.
        pictures: By name, see `search.report.course`.
    """
    made = {
        "volume-trials": _volume(facts, timed=False),
        "volume-time": _volume(facts, timed=True),
        "curves": _curves(report),
        "importance": _importance(facts),
        "parallel": _parallel(report, facts),
    }
    for name, found in made.items():
        picture = pictures.get(name)
        if picture is not None and found is not None:
            traces, layout = found
            yield Chart(
                name, picture.label, picture.caption, traces, layout, wide=name == "parallel"
            )


Made = tuple[list[Trace], dict[str, Any]]


def _volume(facts: SearchFacts, *, timed: bool) -> Made | None:
    found = facts.progress
    if found is None or (timed and (not found.seconds or found.seconds[-1] <= 0)):
        return None
    x = [*found.seconds] if timed else [*range(1, len(found.share) + 1)]
    trace = line(
        x, [100 * share for share in found.share], "hypervolume",
        line={"shape": "hv", "color": FRONT}, customdata=[*found.ids],
        hovertemplate="after %{customdata}: %{y:.2f} %",
    )  # fmt: skip
    title = "seconds of training, all workers together" if timed else "trials"
    return [trace], {
        "xaxis": {"title": {"text": title}}, "showlegend": False,
        "yaxis": {"title": {"text": "hypervolume, % of the box"}, "range": [0, 105]},
    }  # fmt: skip


def _curves(report: SearchReport) -> Made | None:
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
    return traces, {
        "xaxis": {"title": {"text": "epoch"}, "dtick": -(-most // 10)},
        "yaxis": {"title": {"text": f"validation {quality} in %"}},
    }


def _importance(facts: SearchFacts) -> Made | None:
    names = ranked(facts.importances)[:SHOWN]
    if not names:
        return None
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
        for place, item in enumerate(each for each in facts.importances if each.shares)
    ]  # fmt: skip
    return traces, {
        "barmode": "group", "yaxis": {"autorange": "reversed", "automargin": True},
        "xaxis": {"title": {"text": "share of the variance in %"}},
        "height": 200 + 34 * len(names),
    }  # fmt: skip


def _parallel(report: SearchReport, facts: SearchFacts) -> Made | None:
    drawn, chosen = lines_drawn(report, facts)
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
    return traces, {
        "showlegend": False, "height": 460, "hovermode": "closest",
        "xaxis": {"tickvals": [*range(len(heads))], "ticktext": heads, "side": "top",
                  "range": [-0.3, len(heads) - 0.7], "tickangle": -25},
        "yaxis": {"visible": False},
    }  # fmt: skip


def _tone(rank: float) -> str:
    """Returns a colour between pale and dark: the darker, the better."""
    pale, dark = (190, 214, 232), (0, 58, 115)
    mixed = (round(a + (b - a) * rank) for a, b in zip(pale, dark, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"
