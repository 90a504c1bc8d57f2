"""Charts of a search: hypervolume, learning curves, importance."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from compress.report.live.charts import Chart, build_line
from compress.report.plot import format_metric_axis, get_metric_unit
from search.report.front import FRONT_COLOUR, STOPPED_COLOUR
from search.report.importance import REPEATS, rank_parameters
from search.report.search_report import SearchFacts, SearchReport
from search.study.directory import STOPPED, Candidate
from search.study.front import FrontProgress, is_finite

BARS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MAX_PARAMETERS = 10
"""Maximum number of parameters in a chart; the table shows all."""
MAX_LINES = 300
"""Maximum number of lines of a chart; the front is always drawn."""


def build_charts(report: SearchReport, facts: SearchFacts) -> Iterator[Chart]:
    """Yield the charts for which the records of a search are sufficient.

    Args:
        report: The report of the search.
        facts: Result of `compute_search_facts`.
    """
    if facts.progress is not None:
        yield from _build_hypervolume_charts(facts.progress)
    for chart in (_build_learning_curves(report), _build_importance_chart(facts)):
        if chart is not None:
            yield chart


def _build_hypervolume_charts(progress: FrontProgress) -> Iterator[Chart]:
    """Yield the charts of the front's hypervolume over trials and, if timed, over time."""
    yield _build_hypervolume_chart(
        "volume-trials", "Hypervolume over trials", _describe_growth(progress), progress, "trials",
        [*range(1, len(progress.shares) + 1)],
    )  # fmt: skip
    if progress.seconds and progress.seconds[-1] > 0:
        yield _build_hypervolume_chart(
            "volume-time",
            "Hypervolume over time",
            "The same over the time that building and training took, summed over all workers.",
            progress,
            "seconds of training, all workers together",
            progress.seconds,
        )


def _build_hypervolume_chart(
    name: str, title: str, caption: str, progress: FrontProgress, x_title: str, x: Sequence[float]
) -> Chart:
    """Return the step chart of the hypervolume, in % of the box, over trials or seconds."""
    trace = build_line(
        x, [100 * share for share in progress.shares], "hypervolume",
        line={"shape": "hv", "color": FRONT_COLOUR}, customdata=[*progress.ids],
        hovertemplate="after %{customdata}: %{y:.2f} %",
    )  # fmt: skip
    return Chart(
        name, title, caption, [trace],
        {"xaxis": {"title": {"text": x_title}}, "showlegend": False,
         "yaxis": {"title": {"text": "hypervolume, % of the box"}, "range": [0, 105]}},
    )  # fmt: skip


def _describe_growth(progress: FrontProgress) -> str:
    """Return the chart's caption: the last trial that extended the front."""
    trials = len(progress.ids)
    last = progress.last_growth
    if last == trials:
        return f"The front was still growing with the last of {trials} trials."
    return (
        f"The front last grew with trial {last} ({progress.ids[last - 1]}) of {trials}; it has not "
        f"in the {trials - last} after it."
    )


def _build_learning_curves(report: SearchReport) -> Chart | None:
    """Return the chart of each trial's validation metric over epochs; None without histories."""
    metric = report.objectives[0]
    curves = extract_curves(report.candidates, metric)
    if not curves:
        return None
    factor, sign = get_metric_unit(metric)
    with_curves = [item for item in report.candidates if item.id in curves]
    max_epoch = max(epoch for points in curves.values() for epoch, _ in points)
    traces, named_groups = [], set[str]()
    for item in limit_candidates(with_curves, report.front):
        front = item.id in report.front
        group = "front" if front else "stopped" if item.state == STOPPED else report.treatment
        epochs, heights = zip(*curves[item.id], strict=True)
        traces.append(
            build_line(
                epochs,
                [factor * height for height in heights],
                group,
                mode="lines+markers",
                marker={
                    "symbol": "x" if group == "stopped" else "circle",
                    # only the last epoch is marked
                    "size": [0] * (len(epochs) - 1) + [8 if group == "stopped" else 4],
                },
                line={
                    "width": 2.2 if front else 1,
                    "color": FRONT_COLOUR
                    if front
                    else STOPPED_COLOUR
                    if group == "stopped"
                    else "#8A8F99",
                    "dash": "dot" if group == "stopped" else "solid",
                },
                opacity=1.0 if front else 0.55,
                legendgroup=group,
                showlegend=group not in named_groups,
                meta={"model": item.id},
                customdata=[item.id] * len(epochs),
                hovertemplate="%{customdata}, epoch %{x}: %{y:.4~g}" + sign,
            )
        )
        named_groups.add(group)
    return Chart(
        "curves",
        "Learning curves",
        f"Validation {metric} after each epoch. A cross marks where a trial was stopped "
        f"because others were better; thick lines are the front. At most {MAX_LINES} are drawn.",
        traces,
        {
            "xaxis": {"title": {"text": "epoch"}, "dtick": -(-max_epoch // 10)},
            "yaxis": {"title": {"text": format_metric_axis(f"validation {metric}", metric)}},
        },
    )


def extract_curves(
    candidates: Sequence[Candidate], metric: str
) -> dict[str, list[tuple[int, float]]]:
    """Return (epoch, validation metric) by candidate, for candidates with a history.

    Args:
        candidates: Candidates in any state.
        metric: Name of the metric; epochs without it are left out.
    """
    curves = {}
    for item in candidates:
        points = [
            (int(record.get("epoch", epoch)), float(record["val"][metric]))
            for epoch, record in enumerate(item.history, start=1)
            if is_finite((record.get("val") or {}).get(metric))
        ]
        if points:
            curves[item.id] = points
    return curves


def limit_candidates(
    candidates: Sequence[Candidate], front: Container[str], max_count: int = MAX_LINES
) -> list[Candidate]:
    """Return the front and other candidates at equal distances, in their order.

    A chart of ten thousand lines would be unreadable.

    Args:
        candidates: Candidates in any order.
        front: Ids of the candidates that are always included.
        max_count: Maximum number of candidates, unless the front is larger.

    Example:
        >>> many = [Candidate(f"{number:04d}", "complete", {}, 0) for number in range(9)]
        >>> [item.id for item in limit_candidates(many, {"0008"}, max_count=3)]
        ['0000', '0004', '0008']
    """
    if len(candidates) <= max_count:
        return list(candidates)
    others = [position for position, item in enumerate(candidates) if item.id not in front]
    remaining = max(0, max_count - (len(candidates) - len(others)))
    kept_indices = {others[index * len(others) // remaining] for index in range(remaining)}
    return [
        item
        for position, item in enumerate(candidates)
        if position in kept_indices or item.id in front
    ]


def _build_importance_chart(facts: SearchFacts) -> Chart | None:
    """Return the chart of the most important parameters, one bar per target; None without any."""
    ranked = rank_parameters(facts.importances)
    names = ranked[:MAX_PARAMETERS]
    if not names:
        return None
    explained = [item for item in facts.importances if item.shares]
    traces = [
        {
            "type": "bar", "orientation": "h", "name": item.target,
            "y": [name for name in names if name in item.shares],
            "x": [100 * item.shares[name].value for name in names if name in item.shares],
            "error_x": {
                "type": "data",
                "array": [100 * item.shares[name].spread for name in names if name in item.shares],
            },
            "marker": {"color": BARS[index % len(BARS)]},
            "hovertemplate": "%{y}: %{x:.1f} %",
        }
        for index, item in enumerate(explained)
    ]  # fmt: skip
    count_text = f"The {MAX_PARAMETERS} most important of {len(ranked)} parameters"
    return Chart(
        "importance", "Importance of parameters",
        f"{count_text if len(ranked) > MAX_PARAMETERS else 'Importance'} for "
        f"{' and '.join(item.target for item in explained)}; lines are the spread over {REPEATS} "
        "repetitions.",
        traces,
        {"barmode": "group", "yaxis": {"autorange": "reversed", "automargin": True},
         "xaxis": {"title": {"text": "share of the variance in %"}},
         "height": 200 + 34 * len(names)},
    )  # fmt: skip
