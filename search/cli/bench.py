"""`paretune bench`, `inspect` and `latency-table`: costs of models, here and on other devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from compress.core.atomic_files import write_json
from compress.core.interpreter import FORMATS, import_plugins, require_packages
from compress.core.quantities import MORE_THREADS, MOST_THREADS, parse_whole_number, threads_text
from compress.measure import formats
from compress.plan.bench import BENCH_FORMATS, BenchPlan, InputShape, given
from compress.plan.fields import require
from compress.plan.forms import listed
from compress.plan.shrink import ShrinkChannels
from search.cli._console import display, reporting_errors, show, written
from search.cli._help import add_command, command_group
from search.cli._options import Plugins, completer

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
    """Return the table, what was skipped, the verdicts and the conditions."""
    from compress.benchmarking import BenchResult
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


def inspect(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="a .keras or .h5 file, a .tflite file, or a SavedModel's folder"
        ),
    ],
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="also write the tables as JSON")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="measure each layer's share of the time")
    ] = False,
    threads: Annotated[
        str, typer.Option("--threads", metavar="N", help="CPU threads of --profile")
    ] = "1",
    input_shape: Annotated[
        str,
        typer.Option(
            "--input-shape",
            metavar="LIST",
            help="sizes of one example, where the model leaves them open: 224,224,3; of several "
            "inputs by name: image=96,96,3,table=12",
        ),
    ] = "",
    signature: Annotated[
        str,
        typer.Option(
            "--signature", metavar="NAME", help="of a SavedModel or .tflite file that has several"
        ),
    ] = "",
    plugins: Plugins = "",
) -> None:
    """Show what a model costs by layer, and which channels and residual branches can be removed.

    Channels that belong together stand in one group; for those that must stay it says why. Of
    a .tflite file or a SavedModel it shows inputs, outputs and the costs of its operators.
    """
    from compress.benchmarking import profiled
    from compress.benchmarking.models import fixed
    from compress.measure import count_macs
    from compress.measure.graph_files import read_graph_file
    from compress.model.inference import left_out
    from compress.model.io import load_model
    from compress.model.kinds import require_inspectable
    from compress.prune.channels import coupled_groups
    from compress.report.terminal import (
        costs_json,
        render_costs,
        render_coupling,
        render_graph_file,
    )

    with reporting_errors("The same command starts again."):
        import_plugins(listed(plugins))
        shape = given(BenchPlan(input_shape=input_shape).input_shape)
        count = parse_whole_number(threads, "threads", least=1, most=MOST_THREADS, why=MORE_THREADS)
        graph = require_inspectable(model, profile=profile)
        files = [json] if json is not None else []
        if graph is not None:
            of_graph = read_graph_file(model, shape, signature=signature)
            if json is not None:
                record = {**of_graph.to_json(), "costs": costs_json(of_graph.costs, {}, "")}
                write_json(json, record)
            show(render_graph_file(of_graph), saved=json or "", last=written(files))
            return
        require(not signature, "signature", "be of a SavedModel or a .tflite file", f"'{model}'")
        if profile:
            require_packages(FORMATS["onnx"], "--profile")
        loaded = load_model(model)
        analysis = count_macs(loaded, shape)
        shares: dict[str, float] = {}
        how = ""
        if profile:
            found = profiled(fixed(loaded, shape), threads=count)
            shares = {name: found.share(name) for name in found.seconds}
            how = f"{found.runtime}, {threads_text(count)}, medians of {found.runs} runs"
            how = "; ".join([how, *left_out(loaded)])
        coupled = coupled_groups(loaded, input_shape=shape)
        if json is not None:
            write_json(json, {**coupled.to_json(), "costs": costs_json(analysis, shares, how)})
    show(
        render_costs(loaded.name, analysis, shares, how),
        render_coupling(coupled),
        saved=json or "",
        last=written(files),
    )


latency_table = command_group(
    "latency-table", "Time a phone or a board, so that a goal can be its."
)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a .keras or .h5 file")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new folder for the files")],
    formats: Annotated[
        str,
        typer.Option(
            "--formats",
            metavar="LIST",
            help="of the files beside float32, with commas",
            autocompletion=completer(lambda: BENCH_FORMATS, several=True),
        ),
    ] = "int8",
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", help="CPU threads to time with")
    ] = 1,
    round_to: Annotated[
        int, typer.Option("--round-to", metavar="N", help="as in `shrink`, which must be told it")
    ] = ShrinkChannels.round_to,
    min_kept: Annotated[
        float,
        typer.Option("--min-kept", metavar="NUMBER", help="as in `shrink`, which must be told it"),
    ] = ShrinkChannels.min_kept,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input-shape",
            metavar="LIST",
            help="sizes of one example, where the model leaves them open",
        ),
    ] = None,
) -> None:
    """Write files of single calls and whole nets, and the scripts that time them on a device."""
    from compress.devices.exporting import SCRIPTS, export_latency_table

    with reporting_errors("The same command starts again."), display() as shown:
        shown.phase(f"Writing what {model.name} is made of", 0, 1, steps=True)
        made = export_latency_table(
            model,
            folder,
            formats=listed(formats),
            threads=threads,
            round_to=round_to,
            min_kept=min_kept,
            input_shape=None if input_shape is None else InputShape.parse(input_shape).given,
            on_progress=lambda text, share: shown.worker(0, text, share),
        )
    scripts = " or ".join(SCRIPTS)
    show(
        f"Time them on the device with {scripts} (their first lines say how), then: "
        f"paretune latency-table import {made} --device NAME",
        saved=made,
        last=written([made]),
    )


def read(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="of `export`, with the device's results/ in it")
    ],
    device: Annotated[
        str, typer.Option("--device", metavar="TEXT", help="what to call it: 'Pixel 8, 1 big core'")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="the table, ending in .json")
    ] = Path("latency-table.json"),
) -> None:
    """Read what was timed on a device: `shrink --latency-table FILE` takes it."""
    from compress.devices import import_latency_table

    with reporting_errors("Nothing was written."):
        found = import_latency_table(folder, device, out)
    for name in found.formats:
        show(f"{found.model}, {name}: {formats.time(found.own_ms(name))} on {device}, measured")
    show(
        f"Then: paretune shrink MODEL --latency 0.5x --latency-table {out}",
        saved=out,
        last=written([out]),
    )


add_command(latency_table, "export", export)
add_command(latency_table, "import", read)
