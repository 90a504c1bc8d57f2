"""`paretune bench`, `inspect` and `latency-table`: costs of models, here and on other devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.core.atomic_files import write_json
from compress.core.module_loading import FORMAT_PACKAGES, import_plugins, require_packages
from compress.core.quantities import MAX_THREADS, MAX_THREADS_REASON, format_threads, parse_integer
from compress.measure import formatting
from compress.plan.bench import BENCH_FORMATS, BenchPlan, InputShape, unwrap_input_shape
from compress.plan.conversion import split_items
from compress.plan.fields import require
from compress.plan.shrink import ShrinkChannels
from search.cli._console import format_written, report_errors, show, show_progress, show_result
from search.cli._help import add_command, create_command_group
from search.cli._options import Plugins, create_completer

BASIC = ("compare", "runtimes", "formats", "threads", "input_shape", "budget", "out")
"""The options that `paretune bench --help` shows."""
GROUPS = {
    **dict.fromkeys(
        ("compare", "runtimes", "formats", "threads", "input_shape", "signature"), "What is timed"
    ),
    **dict.fromkeys(("precision", "budget"), "How long"),
}
"""Group titles in help, because the plan of `bench` has no sections."""


def bench(models: list[Path], plan: BenchPlan) -> None:
    """Time models and files against each other.

    Every model is timed with each runtime, format and thread count that is asked for.
    """
    from compress.benchmarking import bench as run_bench

    with report_errors("The same command starts again."), show_progress() as progress:
        progress.start_phase("Benchmarking", 0, 1, is_stepwise=True)
        result = run_bench(
            models, plan, on_progress=lambda text, share: progress.update_worker(0, text, share)
        )
    files = [plan.out / f"bench.{suffix}" for suffix in ("json", "csv", "png")] if plan.out else []
    show_result(result, result.to_json, files[0] if files else "")


def inspect(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="a .keras or .h5 file, a .tflite file, or a SavedModel's folder"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="also write the tables as JSON to this file"),
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
    """Show the costs of a model by layer, and its prunable channels and residual blocks.

    Channels that belong together stand in one group; for those that must stay it says why. Of
    a .tflite file or a SavedModel it shows inputs, outputs and the costs of its operators.
    """
    from compress.benchmarking import profile_layers
    from compress.benchmarking.models import fix_input_shape
    from compress.measure import count_macs
    from compress.measure.graph_files import read_graph_file
    from compress.model.file_formats import require_inspectable
    from compress.model.io import load_model
    from compress.model.layer_patches import describe_excluded_layers
    from compress.prune.channels import coupled_groups
    from compress.report.terminal import (
        build_costs_json,
        render_costs,
        render_coupling,
        render_graph_file,
    )

    with report_errors("The same command starts again."):
        import_plugins(split_items(plugins))
        shape = unwrap_input_shape(BenchPlan(input_shape=input_shape).input_shape)
        count = parse_integer(threads, "threads", least=1, most=MAX_THREADS, why=MAX_THREADS_REASON)
        graph = require_inspectable(model, profile=profile)
        files = [out] if out is not None else []
        if graph is not None:
            graph_costs = read_graph_file(model, shape, signature=signature)
            if out is not None:
                record = {
                    **graph_costs.to_json(),
                    "costs": build_costs_json(graph_costs.costs, {}, ""),
                }
                write_json(out, record)
            show(render_graph_file(graph_costs), saved=out or "", last=format_written(files))
            return
        require(not signature, "signature", "be of a SavedModel or a .tflite file", f"'{model}'")
        if profile:
            require_packages(FORMAT_PACKAGES["onnx"], "--profile")
        loaded = load_model(model)
        analysis = count_macs(loaded, shape)
        shares: dict[str, float] = {}
        conditions = ""
        if profile:
            layer_profile = profile_layers(fix_input_shape(loaded, shape), threads=count)
            shares = {name: layer_profile.compute_share(name) for name in layer_profile.seconds}
            conditions = "; ".join(
                [
                    f"{layer_profile.runtime}, {format_threads(count)}, medians of "
                    f"{layer_profile.runs} runs",
                    *describe_excluded_layers(loaded),
                ]
            )
        coupling = coupled_groups(loaded, input_shape=shape)
        if out is not None:
            write_json(
                out,
                {**coupling.to_json(), "costs": build_costs_json(analysis, shares, conditions)},
            )
    show(
        render_costs(loaded.name, analysis, shares, conditions),
        render_coupling(coupling),
        saved=out or "",
        last=format_written(files),
    )


latency_table = create_command_group(
    "latency-table", "Time a phone or a board, so that a goal can be its."
)


def export_table(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a .keras or .h5 file")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new folder for the files")],
    formats: Annotated[
        str,
        typer.Option(
            "--formats",
            metavar="LIST",
            help="of the files beside float32, with commas",
            autocompletion=create_completer(lambda: BENCH_FORMATS, several=True),
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
    """Write files of single calls and whole models, and the scripts that time them on a device."""
    from compress.devices.exporting import SCRIPTS, export_latency_table

    with report_errors("The same command starts again."), show_progress() as progress:
        progress.start_phase(f"Writing what {model.name} is made of", 0, 1, is_stepwise=True)
        table_folder = export_latency_table(
            model,
            folder,
            formats=split_items(formats),
            threads=threads,
            round_to=round_to,
            min_kept=min_kept,
            input_shape=None if input_shape is None else InputShape.parse(input_shape).value,
            on_progress=lambda text, share: progress.update_worker(0, text, share),
        )
    scripts = " or ".join(SCRIPTS)
    show(
        f"Time them on the device with {scripts} (their first lines say how), then: "
        f"paretune latency-table import {table_folder} --device NAME",
        saved=table_folder,
        last=format_written([table_folder]),
    )


def import_table(
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
    """Import the latencies measured on a device, for `shrink --latency-table FILE`."""
    from compress.devices import import_latency_table

    with report_errors("Nothing was written."):
        device_table = import_latency_table(folder, device, out)
    for name in device_table.formats:
        show(
            f"{device_table.model}, {name}: {formatting.format_time(device_table.own_ms(name))} on "
            f"{device}, measured"
        )
    show(
        f"Then: paretune shrink MODEL --latency 0.5x --latency-table {out}",
        saved=out,
        last=format_written([out]),
    )


add_command(latency_table, "export", export_table)
add_command(latency_table, "import", import_table)
