"""The page and the summary of a comparison of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from compress.core.atomic_files import write_text
from compress.core.errors import InputError
from compress.core.statistics import Difference, compare_examples, compare_shares
from compress.core.summary import Summary
from compress.data.tasks import TASKS, is_share
from compress.measure import formatting
from compress.measure.verdict import TEST
from compress.plan.nesting import replace_former_paths
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
from search.report.front_comparison import ComparePoints, CostRange, FrontComparison, compare_fronts

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
        counts = (
            reports[0].count_test_examples(first_row),
            reports[1].count_test_examples(second_row),
        )
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
