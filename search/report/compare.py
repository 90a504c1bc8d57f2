"""The page of a comparison: both fronts, their hypervolumes, and the better run by cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.atomic_files import write_text
from compress.core.errors import InputError
from compress.core.pareto import Losses, front_mask, hypervolume, log_costs
from compress.core.statistics import Difference, compare_examples, compare_shares
from compress.data.tasks import TASKS, is_share
from compress.measure import formats
from compress.measure.verdict import TEST
from compress.report.html import policy
from compress.report.live.charts import COST, Axis, Points, file_points
from compress.report.live.page import alive
from compress.report.markup import filled, style_sheet, templates
from compress.run.compressed import read_example_values
from compress.run.directory import RunFolder
from search.report import SearchReport, load_report
from search.report.front import candidate_points
from search.study.front import MARGIN

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")
DRAWN = ("macs", "params", "gzip_bytes", "size_bytes", "latency_ms")
"""Costs that are compared, where both runs have them."""


@dataclass(frozen=True)
class _Run:
    label: str
    report: SearchReport


@dataclass(frozen=True)
class Stretch:
    """Part of a cost in which the same run is better, or neither.

    Attributes:
        low, high: Of the cost, in its unit; `high` is infinity at the end.
        better: Place of the run, 0 or 1; None: neither is told apart from the other.
        most: By how much at most, in the quality's unit; infinity where the other has nothing
            that costs so little.
    """

    low: float
    high: float
    better: int | None
    most: float


@dataclass(frozen=True)
class Duel:
    """Two runs in one cost.

    Attributes:
        quality, cost: Axes.
        shares: Hypervolume of each front, as a share of the box that holds both.
        stretches: By rising cost.
    """

    quality: Axis
    cost: Axis
    shares: tuple[float, float]
    stretches: tuple[Stretch, ...]


Compare = Callable[[str, str, int], Difference | None]
"""(id of a point of the first run, of the second, how many pairs are compared) -> the difference of
their qualities, first minus second; None: its error is not known."""


@dataclass(frozen=True, order=True)
class Point:
    """A point of a front.

    Attributes:
        cost: Above 0.
        quality: By which it is on the front.
        id: Of the file or candidate.
    """

    cost: float
    quality: float
    id: str = ""


def compare_runs(paths: Sequence[str | Path], out: str | Path) -> Path:
    """Write a page that compares runs: their fronts, and the costs at which each is better.

    Args:
        paths: The `--out` folders of at least two runs, of the same task.
        out: The page.

    Raises:
        InputError: There are fewer than two, they cannot be compared, or `out` is a folder.

    Returns:
        The page.
    """
    place = Path(out)
    if len(paths) < 2:
        raise InputError(f"At least 2 runs must be compared. Received: {len(paths)}.")
    if place.is_dir():
        raise InputError(f"out must be a file, compare.html say. Received: the folder '{place}'.")
    labels = _labels([Path(path) for path in paths])
    runs = [_Run(label, load_report(path)) for label, path in zip(labels, paths, strict=True)]
    _check(runs)
    sets = [found for found in (_joined(runs, kind) for kind in ("files", "candidates")) if found]
    if not sets:
        raise InputError(
            "Runs must share what they can be compared by: exported files, or candidates. "
            "Received: none that all of them have."
        )
    style = style_sheet()
    live = alive(sets=sets, charts=[], cards={}, selected="")
    page = filled(
        templates(search="search.report"),
        "search/compare.html.j2",
        policy=policy(style, live["sources"]),
        style=style,
        live=live,
        title=f"{len(runs)} runs compared",
        runs=[(run.label, str(run.report.folder), run.report.summary()) for run in runs],
        warnings=_warnings(runs),
        duels=[*_verdicts(runs, sets)],
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place, str(page))
    return place


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        found = ["/".join(item[-count:]) for item in parts]
        if len(set(found)) == len(found):
            return found
    raise InputError(f"Runs must be different folders. Received: {', '.join(map(str, paths))}.")


def _check(runs: Sequence[_Run]) -> None:
    first = runs[0].report
    for run in runs[1:]:
        if (run.report.kind, run.report.main) != (first.kind, first.main):
            raise InputError(
                f"Runs must be of one task. Received: {first.kind} ({first.main}) in "
                f"'{first.folder}' and {run.report.kind} ({run.report.main}) in "
                f"'{run.report.folder}'."
            )


def _warnings(runs: Sequence[_Run]) -> list[str]:
    """Return the warnings of a comparison of these runs."""
    found = []
    if len({run.report.record["facts"].get("data") for run in runs}) > 1:
        found.append(
            "The runs had different examples, or split them otherwise: their qualities are of "
            "different validation parts, and small differences mean nothing."
        )
    for run in runs:
        if run.report.validation_learnt:
            found.append(f"{run.label}: models have learnt the validation part they are judged by.")
    places = sorted({_timed(run.report) for run in runs})
    if len(places) > 1:
        found.append(f"Latency is not compared: it was measured by {' and by '.join(places)}.")
    return found


def _timed(report: SearchReport) -> str:
    """Describe how and where a run's times were measured: of its files, else of candidates."""
    timed = next((row.latency for row in report.rows if row.latency), None)
    if timed is not None:
        return f"{timed.runtime} on {timed.device}, {timed.threads} threads"
    devices = {item.device for item in report.candidates if item.latency_ms is not None}
    return f"a search on {', '.join(sorted(devices))}" if devices else "nobody"


def _joined(runs: Sequence[_Run], kind: str) -> Points | None:
    """Return the points of all runs, each under its label; None where one has none."""
    if kind == "files":
        each = [file_points(run.report) for run in runs]
    else:
        each = [candidate_points(run.report) if run.report.candidates else None for run in runs]
    if any(item is None for item in each):
        return None
    known = [item for item in each if item is not None]
    keys = set.intersection(*({axis.key for axis in item.axes} for item in known))
    if len({_timed(run.report) for run in runs}) > 1:
        keys -= {"latency_ms", "latency_p95_ms", "speedup"}
    axes = [axis for axis in known[0].axes if axis.key in keys]
    rows = [
        {**row, "id": f"{run.label}: {row['id']}", "model": f"{run.label}: {row['model']}",
         "group": run.label, "told": []}
        for run, item in zip(runs, known, strict=True)
        for row in item.rows
    ]  # fmt: skip
    groups = {
        run.label: (COLOURS[place % len(COLOURS)], SYMBOLS[place % len(SYMBOLS)])
        for place, run in enumerate(runs)
    }
    quality = next((item.y for item in known if item.y in keys), axes[-1].key)
    costs = [axis.key for axis in axes if axis.role == COST]
    cost = next((item.x for item in known if item.x in costs), costs[0])
    return replace(known[0], lead="", axes=axes, rows=rows, groups=groups, x=cost, y=quality)


def _verdicts(runs: Sequence[_Run], sets: Sequence[Points]) -> Iterator[dict[str, Any]]:
    """Yield the table's row of each set of points and each run beside the first."""
    first = runs[0]
    for points in sets:
        axes = {axis.key: axis for axis in points.axes}
        for other in runs[1:]:
            found = [
                made
                for key in DRAWN
                if key in axes
                and (made := _duel(points, (first, other), axes[points.y], axes[key])) is not None
            ]
            if found:
                yield {
                    "title": f"{points.title}: {first.label} and {other.label}",
                    "quality": axes[points.y].title,
                    "labels": (first.label, other.label),
                    "tie": _describe_ties((first, other), points),
                    "rows": [_told(item, (first.label, other.label)) for item in found],
                }


def _duel(points: Points, pair: tuple[_Run, _Run], quality: Axis, cost: Axis) -> Duel | None:
    rows = tuple(
        [
            {**row["values"], "id": str(row["id"]).removeprefix(f"{run.label}: ")}
            for row in points.rows
            if row["group"] == run.label and row["counts"]
        ]
        for run in pair
    )
    compare = _compare_files(pair) if points.id == "files" else _candidates(pair, quality.key, rows)
    return duel((rows[0], rows[1]), quality, cost, compare)


def _compare_files(pair: tuple[_Run, _Run]) -> Compare:
    """Return a comparison of files by test data, which put none of them on a front."""
    reports = [run.report for run in pair]
    rows = [{row.artifact.id: row for row in report.rows} for report in reports]
    facts = [report.record["facts"].get("data") for report in reports]
    main, paired = reports[0].main, facts[0] is not None and facts[0] == facts[1]

    def compare(first: str, second: str, comparisons: int) -> Difference | None:
        if paired:
            one, other = (
                read_example_values(RunFolder(report.folder), name, TEST)
                for report, name in zip(reports, (first, second), strict=True)
            )
            if one is not None and other is not None and one.shape == other.shape:
                return compare_examples(one, other, comparisons=comparisons)
        a, b = rows[0][first], rows[1][second]
        counts = reports[0].tested(a), reports[1].tested(b)
        if main not in TASKS[reports[0].kind].shares or not all(counts):
            return None
        return compare_shares(
            a.artifact.test[main], counts[0] or 0, b.artifact.test[main], counts[1] or 0,
            comparisons=comparisons,
        )  # fmt: skip

    return compare


def _candidates(
    pair: tuple[_Run, _Run], quality: str, rows: Sequence[Sequence[Mapping[str, Any]]]
) -> Compare | None:
    """Return a comparison of candidates by validation data; None: the error is not known.

    The same data put the best of many on the front: the level is corrected for all pairs.
    """
    counts = _examples(pair, quality)
    if counts is None:
        return None
    values = [{row["id"]: float(row[quality]) for row in part if row.get(quality) is not None}
              for part in rows]  # fmt: skip
    choices = len(values[0]) * len(values[1])

    def compare(first: str, second: str, _: int) -> Difference:
        one, other = values[0][first], values[1][second]
        return compare_shares(one, counts[0], other, counts[1], comparisons=choices)

    return compare


def _examples(pair: tuple[_Run, _Run], quality: str) -> tuple[int, int] | None:
    """Return the number of examples behind a quality of each run; None: it is no share of them."""
    name = quality.removeprefix("val_")
    part = "val" if quality.startswith("val_") else "test"
    if name not in TASKS[pair[0].report.kind].shares:
        return None
    first, second = (run.report.data.get("examples", {}).get(part) for run in pair)
    return (first, second) if first and second else None


def _describe_ties(pair: tuple[_Run, _Run], points: Points) -> str:
    if points.id == "files":
        return (
            "Fronts are by validation data. Which file is better is by test data: what a 95 % "
            "interval of the difference cannot tell apart, corrected for the number of pairs, "
            "is called a tie; the examples are paired where both runs have the same."
        )
    counts = _examples(pair, points.y)
    if counts is None:
        return "Only equal qualities are called a tie: the error of this one is not known."
    return (
        "What a 95 % interval of the difference of two shares cannot tell apart, of "
        f"{counts[0]:,} and {counts[1]:,} examples, is called a tie; it is corrected for the "
        "number of candidates, of which the best are compared."
    )


def _told(item: Duel, labels: tuple[str, str]) -> dict[str, Any]:
    a, b = item.shares
    return {
        "cost": item.cost.title,
        "shares": (f"{a * 100:.1f} %", f"{b * 100:.1f} %"),
        "stretches": [_stretch(part, item, labels) for part in item.stretches],
    }


def _stretch(part: Stretch, item: Duel, labels: tuple[str, str]) -> str:
    show = formats.size if item.cost.unit.strip() == "B" else partial(formats.cost, item.cost.key)
    low = show(part.low)
    where = f"from {low}" if math.isinf(part.high) else (f"from {low} to {show(part.high)}")
    if part.better is None:
        return f"{where}: a tie"
    name = labels[part.better]
    if math.isinf(part.most):
        return f"{where}: {name} alone reaches so low"
    name_of = item.quality.key.removeprefix("val_")
    gap = f"{part.most * 100:.2f} pp" if is_share(name_of) else f"{part.most:.4g}"
    return f"{where}: {name}, by up to {gap}"


def duel(
    rows: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
    quality: Axis,
    cost: Axis,
    compare: Compare | None = None,
) -> Duel | None:
    """Compare two runs.

    Args:
        rows: `values` of the points of each run, and "id" of each.
        quality: What is better the higher it is.
        cost: What is better the lower it is, above 0.
        compare: Compares two points; what it cannot tell apart is a tie. None: only equal
            qualities are.

    Returns:
        The comparison; None where one of them has no point with both figures.

    Reference:
        Zitzler & Thiele 1999, "Multiobjective Evolutionary Algorithms" (hypervolume). Costs count
        as logarithms; the reference lies a tenth of the range beyond the worst of both fronts.
    """
    first, second = (_select_front(part, quality.key, cost.key) for part in rows)
    if not first or not second:
        return None
    shares = _measure_shares(first, second)
    return Duel(quality, cost, shares, _find_stretches(first, second, compare))


def _select_front(rows: Sequence[Mapping[str, Any]], quality: str, cost: str) -> tuple[Point, ...]:
    known = {
        Point(float(row[cost]), float(row[quality]), str(row.get("id", "")))
        for row in rows
        if row.get(cost) is not None and row.get(quality) is not None and row[cost] > 0
    }
    if not known:
        return ()
    points = sorted(known)
    kept = front_mask(np.array([(point.cost, -point.quality) for point in points]))
    front, seen = [], set()
    for point, keep in zip(points, kept, strict=True):
        if keep and (point.cost, point.quality) not in seen:  # of equal ones one is enough
            seen.add((point.cost, point.quality))
            front.append(point)
    return tuple(front)


def _measure_shares(first: Sequence[Point], second: Sequence[Point]) -> tuple[float, float]:
    each = [_losses(part) for part in (first, second)]
    both = np.concatenate(each)
    best, spread = both.min(0), np.ptp(both, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    edge = np.full(2, 1 + MARGIN)
    found = [hypervolume((part - best) / scale, edge) / float(edge.prod()) for part in each]
    return found[0], found[1]


def _losses(front: Sequence[Point]) -> Losses:
    costs = log_costs([point.cost for point in front])
    return np.stack([costs, [-point.quality for point in front]], axis=1)


def _find_stretches(
    first: Sequence[Point], second: Sequence[Point], compare: Compare | None
) -> tuple[Stretch, ...]:
    edges = sorted({point.cost for point in (*first, *second)})
    pairs = [(_find_best(first, low), _find_best(second, low)) for low in edges]
    comparisons = len({pair for pair in pairs if None not in pair})
    found: list[Stretch] = []
    for low, high, (a, b) in zip(edges, [*edges[1:], math.inf], pairs, strict=True):
        better, most = _find_better(a, b, compare, comparisons)
        if found and (found[-1].better, math.isinf(found[-1].most)) == (better, math.isinf(most)):
            found[-1] = Stretch(found[-1].low, high, better, max(found[-1].most, most))
        else:
            found.append(Stretch(low, high, better, most))
    return tuple(found)


def _find_best(front: Sequence[Point], cost: float) -> Point | None:
    """Return the best point for a cost; None where nothing costs so little."""
    reached = [point for point in front if point.cost <= cost]
    return max(reached, key=lambda point: point.quality, default=None)


def _find_better(
    a: Point | None, b: Point | None, compare: Compare | None, comparisons: int
) -> tuple[int | None, float]:
    if a is None or b is None:
        return (1 if a is None else 0), math.inf
    found = compare(a.id, b.id, comparisons) if compare is not None else None
    if found is None:
        gap = a.quality - b.quality
        found = Difference(gap, gap, gap)
    if found.is_tie:
        return None, abs(found.estimate)
    return (0 if found.low > 0 else 1), abs(found.estimate)
