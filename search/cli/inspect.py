"""`paretune inspect MODEL`: what a model costs, layer by layer, and what can be removed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.model.ports import InputShape
from search.cli._console import reporting_errors, show, written
from search.cli._options import Plugins


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
    from compress.core.atomic_files import write_json
    from compress.core.interpreter import FORMATS, import_plugins, require_packages
    from compress.core.quantities import (
        MORE_THREADS,
        MOST_THREADS,
        parse_whole_number,
        threads_text,
    )
    from compress.measure import count_macs
    from compress.model.inference import left_out
    from compress.model.io import load_model
    from compress.model.kinds import require_inspectable
    from compress.plan.bench import BenchPlan, given
    from compress.plan.fields import require
    from compress.plan.forms import listed
    from compress.prune.channels import coupled_groups
    from compress.report.terminal import costs_json, render_costs, render_coupling

    with reporting_errors("The same command starts again."):
        import_plugins(listed(plugins))
        shape = given(BenchPlan(input_shape=input_shape).input_shape)
        count = parse_whole_number(threads, "threads", least=1, most=MOST_THREADS, why=MORE_THREADS)
        graph = require_inspectable(model, profile=profile)
        if graph is not None:
            _inspect_graph(model, json, shape, signature)
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
        last=written([json] if json else []),
    )


def _inspect_graph(model: Path, json: Path | None, shape: InputShape | None, name: str) -> None:
    """Shows what is no Keras model."""
    from compress.core.atomic_files import write_json
    from compress.measure.graph_files import read_graph_file
    from compress.report.terminal import costs_json, render_graph_file

    found = read_graph_file(model, shape, signature=name)
    if json is not None:
        write_json(json, {**found.to_json(), "costs": costs_json(found.costs, {}, "")})
    show(render_graph_file(found), saved=json or "", last=written([json] if json else []))
