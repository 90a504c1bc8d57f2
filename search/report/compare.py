"""The page of a comparison of runs: fronts, hypervolumes, and the better run by cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.atomic_files import write_text
from compress.core.errors import InputError
from compress.core.pareto import Losses, compute_front_mask, compute_log_costs, measure_hypervolume
from compress.core.statistics import Difference, compare_examples, compare_shares
from compress.core.summary import Summary
from compress.data.tasks import TASKS, is_share
from compress.measure import formatting
from compress.measure.verdict import TEST
from compress.plan.fields import replace_former_paths
from compress.report.file_selection import select_files
from compress.report.html import build_policy, build_title
from compress.report.live.charts import COST, Axis, Points, build_file_points
from compress.report.live.page import build_page_data
from compress.report.markup import load_templates, read_style_sheet, render_template
from compress.run.compressed_model import read_example_values
from compress.run.directory import RunFolder
from search.plan import SearchPlan
from search.report import SearchReport, load_report
from search.report.front import build_candidate_points
from search.study.front import MARGIN

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")
COMPARED_COSTS = ("macs", "params", "size_bytes", "latency_ms")
"""Costs that are compared if both runs have them."""
UNCOMPARED_KEYS = ("out", "device", "threads", "memory", "log", "search.workers")
"""Options that do not change what a run computes."""
MAX_SHOWN_DIFFERENCES = 6
"""Maximum number of differing options on the terminal; the page has all."""


@dataclass(frozen=True)
class ComparedRun:
    """One of several runs that are compared.

    Attributes:
        label: Short name of its folder.
        report: Its report.
    """

    label: str
    report: SearchReport


@dataclass(frozen=True)
class CostRange:
    """A range of costs in which the same run is better, or neither.

    Attributes:
        low, high: Bounds of the range, in the unit of the cost; `high` is infinity at the end.
        better_run: Index of the better run, 0 or 1; None: a tie.
        max_gap: Largest difference of the metric, in its unit; infinity if the other run has no
            point at such a low cost.
    """

    low: float
    high: float
    better_run: int | None
    max_gap: float


@dataclass(frozen=True)
class FrontComparison:
    """The comparison of two runs for one cost.

    Attributes:
        metric, cost: Axes.
        shares: Hypervolume of each front, as a share of the box around both.
        cost_ranges: Ranges in ascending order of cost.
    """

    metric: Axis
    cost: Axis
    shares: tuple[float, float]
    cost_ranges: tuple[CostRange, ...]


ComparePoints = Callable[[str, str, int], Difference | None]
"""Function from (id in the first run, id in the second run, number of compared pairs) to the
difference of their metrics, first minus second; None: its error is unknown."""


@dataclass(frozen=True, order=True)
class Point:
    """A point of a front.

    Attributes:
        cost: Cost, above 0.
        metric_value: Value of the metric that defines the front.
        id: Id of the file or candidate.
    """

    cost: float
    metric_value: float
    id: str = ""


def write_comparison(runs: Sequence[ComparedRun], out: str | Path) -> Path:
    """Write a page that compares loaded runs: their fronts, and the better run by cost.

    Args:
        runs: The runs, see `load_runs`.
        out: Path of the page.

    Returns:
        The path of the page.

    Raises:
        InputError: The runs have no kind of point in common, or `out` is a folder.
    """
    page_path = Path(out)
    if page_path.is_dir():
        raise InputError(
            f"out must be a file, compare.html say. Received: the folder '{page_path}'."
        )
    point_sets = [
        points
        for points in (_merge_points(runs, kind) for kind in ("files", "candidates"))
        if points
    ]
    if not point_sets:
        raise InputError(
            "Runs must share what they can be compared by: exported files, or candidates. "
            "Received: none that all of them have."
        )
    style = read_style_sheet()
    live = build_page_data(sets=point_sets, charts=[], cards={}, selected="")
    page = render_template(
        load_templates(search="search.report"),
        "search/compare.html.j2",
        policy=build_policy(style, live["sources"]),
        style=style,
        live=live,
        title=f"{len(runs)} runs compared",
        shipped=build_comparison_summary(runs),
        differences=list_differences(runs),
        warnings=_list_warnings(runs),
        comparisons=[*_build_comparisons(runs, point_sets)],
    )
    page_path.parent.mkdir(parents=True, exist_ok=True)
    write_text(page_path, str(page))
    return page_path


def load_runs(paths: Sequence[str | Path]) -> list[ComparedRun]:
    """Return runs to compare, with the shortest labels that distinguish them.

    Args:
        paths: The `--out` folders of the runs.

    Raises:
        InputError: There are fewer than two, or they cannot be compared.
    """
    if len(paths) < 2:
        raise InputError(f"At least 2 runs must be compared. Received: {len(paths)}.")
    labels = _shorten_paths([Path(path) for path in paths])
    runs = [
        ComparedRun(label, load_report(path)) for label, path in zip(labels, paths, strict=True)
    ]
    _check_runs(runs)
    return runs


def build_comparison_summary(runs: Sequence[ComparedRun], page: Path | None = None) -> Summary:
    """Return a screen with a row per run: its target, the shipped file, its metric and costs.

    Args:
        runs: The runs.
        page: The page of the comparison; None: not named.
    """
    main = runs[0].report.main
    rows = []
    for run in runs:
        _, _, target = build_title(run.report).partition(": ")
        shipped = select_files(run.report).to_ship
        cells = ["-"] * 4
        if shipped is not None:
            item, latency = shipped.row.artifact, shipped.row.latency
            cells = [
                formatting.format_metric(main, item.test.get(main)),
                formatting.format_size(item.size_bytes),
                formatting.format_time(latency.median_ms) if latency is not None else "-",
                item.id,
            ]
        rows.append((run.label, *cells, target))
    fields = () if page is None else (("Report", str(page)),)
    return Summary(
        f"{len(runs)} runs compared",
        tuple(f"differs: {text}" for text in list_differences(runs)[:MAX_SHOWN_DIFFERENCES]),
        ("Run", f"test {main}", "size", "latency", "ships", "target"),
        tuple(rows),
        tuple(_list_warnings(runs)),
        "runs",
        fields=fields,
    )


def list_differences(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the options that differ between runs, with the value of each run in order.

    Options that a command or an earlier version does not have are left out.

    Args:
        runs: The runs.
    """
    records = [replace_former_paths(SearchPlan, run.report.record["plan"]) for run in runs]
    plans = [dict(_flatten(record)) for record in records]
    texts = []
    for key in plans[0]:
        if key in UNCOMPARED_KEYS or any(key not in plan for plan in plans):
            continue
        values = ["-" if plan[key] is None else str(plan[key]) for plan in plans]
        if len(set(values)) > 1:
            texts.append(f"{key} {' / '.join(values)}")
    return texts


def _flatten(plan: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plan.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shorten_paths(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that distinguish them."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        candidates = ["/".join(item[-count:]) for item in parts]
        if len(set(candidates)) == len(candidates):
            return candidates
    raise InputError(f"Runs must be different folders. Received: {', '.join(map(str, paths))}.")


def _check_runs(runs: Sequence[ComparedRun]) -> None:
    first = runs[0].report
    for run in runs[1:]:
        if (run.report.kind, run.report.main) != (first.kind, first.main):
            raise InputError(
                f"Runs must be of one task. Received: {first.kind} ({first.main}) in "
                f"'{first.folder}' and {run.report.kind} ({run.report.main}) in "
                f"'{run.report.folder}'."
            )


def _list_warnings(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the warnings of a comparison of these runs."""
    texts = []
    if not has_same_data(runs):
        texts.append(
            "The runs had different examples, or split them otherwise: their qualities are of "
            "different validation parts, and small differences mean nothing."
        )
    timing_texts = sorted({_describe_timing(run.report) for run in runs})
    if len(timing_texts) > 1:
        texts.append(
            f"Latency is not compared: it was measured by {' and by '.join(timing_texts)}."
        )
    return texts


def _describe_timing(report: SearchReport) -> str:
    """Return a description of the setup of a run's latency measurements.

    They are of its files, or of its candidates if there are no files.
    """
    latency = next((row.latency for row in report.rows if row.latency), None)
    if latency is not None:
        return f"{latency.runtime} on {latency.device}, {latency.threads} threads"
    devices = {item.device for item in report.candidates if item.latency_ms is not None}
    return f"a search on {', '.join(sorted(devices))}" if devices else "no run"


def _merge_points(runs: Sequence[ComparedRun], kind: str) -> Points | None:
    """Return the points of all runs, labelled by run; None if a run has none."""
    if kind == "files":
        optional_points = [build_file_points(run.report) for run in runs]
    else:
        optional_points = [
            build_candidate_points(run.report) if run.report.candidates else None for run in runs
        ]
    if any(item is None for item in optional_points):
        return None
    run_points = [item for item in optional_points if item is not None]
    keys = set.intersection(*({axis.key for axis in item.axes} for item in run_points))
    if len({_describe_timing(run.report) for run in runs}) > 1:
        keys -= {"latency_ms", "latency_p95_ms", "speedup"}
    axes = [axis for axis in run_points[0].axes if axis.key in keys]
    rows = [
        {**row, "id": f"{run.label}: {row['id']}", "model": f"{run.label}: {row['model']}",
         "group": run.label, "told": []}
        for run, item in zip(runs, run_points, strict=True)
        for row in item.rows
    ]  # fmt: skip
    groups = {
        run.label: (COLOURS[index % len(COLOURS)], SYMBOLS[index % len(SYMBOLS)])
        for index, run in enumerate(runs)
    }
    metric = next((item.y for item in run_points if item.y in keys), axes[-1].key)
    costs = [axis.key for axis in axes if axis.role == COST]
    cost = next((item.x for item in run_points if item.x in costs), costs[0])
    return replace(run_points[0], lead="", axes=axes, rows=rows, groups=groups, x=cost, y=metric)


def _build_comparisons(
    runs: Sequence[ComparedRun], point_sets: Sequence[Points]
) -> Iterator[dict[str, Any]]:
    """Yield the table of each set of points and each pair of the first run and another."""
    first = runs[0]
    for points in point_sets:
        axes = {axis.key: axis for axis in points.axes}
        for other in runs[1:]:
            comparisons = [
                comparison
                for key in COMPARED_COSTS
                if key in axes
                and (
                    comparison := _compare_points(points, (first, other), axes[points.y], axes[key])
                )
                is not None
            ]
            if comparisons:
                yield {
                    "title": f"{points.title}: {first.label} and {other.label}",
                    "quality": axes[points.y].title,
                    "labels": (first.label, other.label),
                    "has_shares": has_same_data((first, other)),
                    "tie": _describe_ties((first, other), points),
                    "rows": [
                        _format_comparison(item, (first.label, other.label)) for item in comparisons
                    ],
                }


def has_same_data(runs: Sequence[ComparedRun]) -> bool:
    """Return whether runs have the same examples in the same parts.

    Args:
        runs: The runs.
    """
    return len({run.report.record["facts"].get("data") for run in runs}) == 1


def _compare_points(
    points: Points, pair: tuple[ComparedRun, ComparedRun], metric: Axis, cost: Axis
) -> FrontComparison | None:
    """Return two runs' comparison for one cost; None if a run has no point with both values."""
    rows = tuple(
        [
            {**row["values"], "id": str(row["id"]).removeprefix(f"{run.label}: ")}
            for row in points.rows
            if row["group"] == run.label and row["counts"]
        ]
        for run in pair
    )
    compare = (
        _compare_files(pair)
        if points.id == "files"
        else _compare_candidates(pair, metric.key, rows)
    )
    return compare_fronts((rows[0], rows[1]), metric, cost, compare)


def _compare_files(pair: tuple[ComparedRun, ComparedRun]) -> ComparePoints:
    """Return a comparison function for files by test data, which did not select the fronts."""
    reports = [run.report for run in pair]
    rows = [{row.artifact.id: row for row in report.rows} for report in reports]
    data_facts = [report.record["facts"].get("data") for report in reports]
    main, is_paired = reports[0].main, data_facts[0] is not None and data_facts[0] == data_facts[1]

    def compare(first: str, second: str, comparisons: int) -> Difference | None:
        if is_paired:
            first_values, second_values = (
                read_example_values(RunFolder(report.folder), name, TEST)
                for report, name in zip(reports, (first, second), strict=True)
            )
            if (
                first_values is not None
                and second_values is not None
                and first_values.shape == second_values.shape
            ):
                return compare_examples(first_values, second_values, comparisons=comparisons)
        first_row, second_row = rows[0][first], rows[1][second]
        counts = reports[0].tested(first_row), reports[1].tested(second_row)
        if main not in TASKS[reports[0].kind].shares or not all(counts):
            return None
        return compare_shares(
            first_row.artifact.test[main],
            counts[0] or 0,
            second_row.artifact.test[main],
            counts[1] or 0,
            comparisons=comparisons,
        )

    return compare


def _compare_candidates(
    pair: tuple[ComparedRun, ComparedRun], metric: str, rows: Sequence[Sequence[Mapping[str, Any]]]
) -> ComparePoints | None:
    """Return a comparison function for candidates, based on validation data; None: unknown error.

    The same data selected the front from many candidates, so the level is corrected for all pairs.
    """
    counts = _count_examples(pair, metric)
    if counts is None:
        return None
    values = [{row["id"]: float(row[metric]) for row in part if row.get(metric) is not None}
              for part in rows]  # fmt: skip
    pair_count = len(values[0]) * len(values[1])

    def compare(first: str, second: str, _: int) -> Difference:
        first_value, second_value = values[0][first], values[1][second]
        return compare_shares(
            first_value, counts[0], second_value, counts[1], comparisons=pair_count
        )

    return compare


def _count_examples(pair: tuple[ComparedRun, ComparedRun], metric: str) -> tuple[int, int] | None:
    """Return the number of examples behind a metric of each run.

    It is None if the metric is not a share of the examples.
    """
    name = metric.removeprefix("val_")
    part = "val" if metric.startswith("val_") else "test"
    if name not in TASKS[pair[0].report.kind].shares:
        return None
    first, second = (run.report.data.get("examples", {}).get(part) for run in pair)
    return (first, second) if first and second else None


def _describe_ties(pair: tuple[ComparedRun, ComparedRun], points: Points) -> str:
    """Return the note on which differences count as ties: by interval, or only equal metrics."""
    if points.id == "files":
        return (
            "Fronts are by validation data. Which file is better is by test data: what a 95 % "
            "interval of the difference cannot tell apart, corrected for the number of pairs, "
            "is called a tie; the examples are paired where both runs have the same."
        )
    counts = _count_examples(pair, points.y)
    if counts is None:
        return "Only equal qualities are called a tie: the error of this one is not known."
    return (
        "What a 95 % interval of the difference of two shares cannot tell apart, of "
        f"{counts[0]:,} and {counts[1]:,} examples, is called a tie; it is corrected for the "
        "number of candidates, of which the best are compared."
    )


def _format_comparison(comparison: FrontComparison, labels: tuple[str, str]) -> dict[str, Any]:
    """Return a comparison as texts for the template: cost, hypervolumes in %, ranges of cost."""
    first_share, second_share = comparison.shares
    return {
        "cost": comparison.cost.title,
        "shares": (f"{first_share * 100:.1f} %", f"{second_share * 100:.1f} %"),
        "cost_ranges": [
            _format_cost_range(cost_range, comparison, labels)
            for cost_range in comparison.cost_ranges
        ],
    }


def _format_cost_range(
    cost_range: CostRange, comparison: FrontComparison, labels: tuple[str, str]
) -> str:
    """Return a sentence on a range of costs: its ends, the better run and the largest gap."""
    show = (
        formatting.format_size
        if comparison.cost.unit.strip() == "B"
        else partial(formatting.format_cost, comparison.cost.key)
    )
    low = show(cost_range.low)
    range_text = (
        f"from {low}" if math.isinf(cost_range.high) else (f"from {low} to {show(cost_range.high)}")
    )
    if cost_range.better_run is None:
        return f"{range_text}: a tie"
    name = labels[cost_range.better_run]
    if math.isinf(cost_range.max_gap):
        return f"{range_text}: {name} alone reaches so low"
    metric_name = comparison.metric.key.removeprefix("val_")
    gap = (
        f"{cost_range.max_gap * 100:.2f} pp"
        if is_share(metric_name)
        else f"{cost_range.max_gap:.4g}"
    )
    return f"{range_text}: {name}, by up to {gap}"


def compare_fronts(
    rows: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
    metric: Axis,
    cost: Axis,
    compare: ComparePoints | None = None,
) -> FrontComparison | None:
    """Return the comparison of the fronts of two runs.

    Args:
        rows: `values` of the points of each run, with the "id" of each.
        metric: Axis of the metric, higher is better.
        cost: Axis of the cost, lower is better, above 0.
        compare: Compares two points; differences that are not significant are ties. None: only
            equal metrics are ties.

    Returns:
        The comparison; None if a run has no point with both values.

    Reference:
        Zitzler & Thiele 1999, "Multiobjective Evolutionary Algorithms" (hypervolume). Costs count
        as logarithms; the reference lies a tenth of the range beyond the worst of both fronts.
    """
    first, second = (_select_front(part, metric.key, cost.key) for part in rows)
    if not first or not second:
        return None
    shares = _measure_shares(first, second)
    return FrontComparison(metric, cost, shares, _find_cost_ranges(first, second, compare))


def _select_front(rows: Sequence[Mapping[str, Any]], metric: str, cost: str) -> tuple[Point, ...]:
    """Return the Pareto front by ascending cost; a point needs a metric and a cost above 0."""
    points = sorted(
        Point(float(row[cost]), float(row[metric]), str(row.get("id", "")))
        for row in rows
        if row.get(cost) is not None and row.get(metric) is not None and row[cost] > 0
    )
    # equal points are drawn once
    distinct = [next(equal) for _, equal in groupby(points, attrgetter("cost", "metric_value"))]
    losses = np.array([(point.cost, -point.metric_value) for point in distinct]).reshape(-1, 2)
    is_member = compute_front_mask(losses)
    return tuple(point for point, keep in zip(distinct, is_member, strict=True) if keep)


def _measure_shares(first: Sequence[Point], second: Sequence[Point]) -> tuple[float, float]:
    """Return each front's hypervolume as a share of the box around both, costs as logarithms."""
    losses = [_compute_losses(part) for part in (first, second)]
    all_losses = np.concatenate(losses)
    best, spread = all_losses.min(0), np.ptp(all_losses, axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    edge = np.full(2, 1 + MARGIN)
    shares = [
        measure_hypervolume((part - best) / scale, edge) / float(edge.prod()) for part in losses
    ]
    return shares[0], shares[1]


def _compute_losses(front: Sequence[Point]) -> Losses:
    costs = compute_log_costs([point.cost for point in front])
    return np.stack([costs, [-point.metric_value for point in front]], axis=1)


def _find_cost_ranges(
    first: Sequence[Point], second: Sequence[Point], compare: ComparePoints | None
) -> tuple[CostRange, ...]:
    """Return ranges from the lowest cost to infinity, adjacent ones of one winner merged."""
    edges = sorted({point.cost for point in (*first, *second)})
    pairs = [(_find_best(first, low), _find_best(second, low)) for low in edges]
    comparisons = len({pair for pair in pairs if None not in pair})
    cost_ranges = [
        CostRange(low, high, *_find_better(a, b, compare, comparisons))
        for low, high, (a, b) in zip(edges, [*edges[1:], math.inf], pairs, strict=True)
    ]
    merged = []
    for _, group in groupby(cost_ranges, lambda item: (item.better_run, math.isinf(item.max_gap))):
        alike = list(group)
        max_gap = max(item.max_gap for item in alike)
        merged.append(replace(alike[0], high=alike[-1].high, max_gap=max_gap))
    return tuple(merged)


def _find_best(front: Sequence[Point], cost: float) -> Point | None:
    """Return the best point up to a cost; None if all points cost more."""
    affordable = [point for point in front if point.cost <= cost]
    return max(affordable, key=lambda point: point.metric_value, default=None)


def _find_better(
    a: Point | None, b: Point | None, compare: ComparePoints | None, comparisons: int
) -> tuple[int | None, float]:
    """Return which point is better (0, 1; None: a tie) and the gap, infinite if one is missing."""
    if a is None or b is None:
        return (1 if a is None else 0), math.inf
    difference = compare(a.id, b.id, comparisons) if compare is not None else None
    if difference is None:
        gap = a.metric_value - b.metric_value
        difference = Difference(gap, gap, gap)
    if difference.is_tie:
        return None, abs(difference.estimate)
    return (0 if difference.low > 0 else 1), abs(difference.estimate)
