"""`paretune bench MODEL...`: time models and files against each other."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType

from compress.plan.bench import BenchPlan
from search.cli._console import display, reporting_errors, show, written

BASIC = ("compare", "runtimes", "formats", "threads", "input_shape", "budget", "out")
"""The options that `paretune bench --help` shows."""
GROUPS = {
    **dict.fromkeys(
        ("compare", "runtimes", "formats", "threads", "input_shape", "signature"), "What is timed"
    ),
    **dict.fromkeys(("precision", "budget"), "How long"),
}
"""Titles in help: the plan of `bench` has no sections."""
SPARSE = 0.01
"""Share of zeros from which a model's zeros are told: biases of any model may be zero."""


def bench(models: list[Path], plan: BenchPlan) -> None:
    """Time models and files against each other.

    Every model is timed with each runtime, format and thread count that is asked for.
    """
    from compress.benchmarking import bench as run_bench

    with reporting_errors("The same command starts again."), display() as shown:
        shown.phase("Benchmarking", 0, 1, steps=True)
        result = run_bench(
            models, plan, on_progress=lambda text, share: shown.worker(0, text, share)
        )
    made = [plan.out / f"bench.{suffix}" for suffix in ("json", "csv", "png")] if plan.out else []
    show(render_bench(result), saved=made[0] if made else "", last=written(made))


def render_bench(result: object) -> RenderableType:
    """Returns the table, what was skipped, the verdicts and the conditions."""
    from compress.benchmarking import BenchResult
    from compress.measure import formats
    from compress.report.terminal import Grid, said

    assert isinstance(result, BenchResult)
    by_name = {model.name: model for model in result.models}
    table = Grid(
        "Latency of one inference at batch 1",
        ("Model", "Runtime", "Format", "Threads", "MACs", "File", "Latency", "p95", "min",
         "Speed-up"),
        ("Model", "Runtime", "Format"),
        drop=("min", "p95", "MACs", "File"),
        same=("Threads", "Format", "Runtime"),
        elsewhere="A wider terminal and bench.csv in --out have them.",
    )  # fmt: skip
    last = ""
    for row in sorted(result.timed, key=lambda r: list(by_name).index(r.model)):
        if last not in ("", row.model):
            table.add_section()
        last = row.model
        table.put(
            (
                row.model,
                row.runtime,
                row.format,
                str(row.latency.threads),
                formats.count(by_name[row.model].macs),
                formats.size(row.size_bytes),
                formats.latency(row.latency),
                formats.time(row.latency.p95_ms),
                formats.time(row.latency.min_ms),
                formats.speedup(row.latency),
            )
        )
    parts: list[RenderableType] = [table, said(result.conditions(), "dim")]
    for item in result.skipped:
        parts.append(said(f"{item.model}, {item.runtime} {item.format}: skipped: {item.reason}"))
    for model in result.models:
        if model.zeros >= SPARSE:
            share = formats.percent(model.zeros)
            parts.append(said(f"{model.name}: {share} of all parameters are zero"))
        if model.unsupported:
            names = "; ".join(model.unsupported)
            parts.append(said(f"{model.name}: MACs leave out {names}"))
        parts += [said(f"{model.name}: {note}") for note in model.notes]
    parts += [said(line, "bold") for line in result.verdicts()]
    return Group(*parts)
