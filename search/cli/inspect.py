"""`paretune inspect MODEL`: what a model costs, layer by layer, and what can be removed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.cli._console import reporting_errors, show


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a .keras or .h5 file")],
    json: Annotated[
        Path | None, typer.Option("--json", help="write the tables as JSON too")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="measure each layer's share of the time")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", help="CPU threads of --profile")] = 1,
    input_shape: Annotated[
        str, typer.Option("--input-shape", help="of one example, where sizes are open: 224,224,3")
    ] = "",
) -> None:
    """Show a model's costs by layer, which channels belong together and what is held."""
    from compress.benchmarking.models import fixed
    from compress.benchmarking.profile import profiled
    from compress.core.atomic_files import write_json
    from compress.core.counts import MORE_THREADS, MOST_THREADS, whole
    from compress.core.requirements import FORMATS, require_packages
    from compress.measure import count_macs
    from compress.model.inference import left_out
    from compress.model.io import check_model_file, load_model
    from compress.plan.bench import BenchPlan
    from compress.prune.channels import coupled_groups
    from compress.report.costs import costs_json, render_costs
    from compress.report.coupling import render_coupling

    with reporting_errors("The same command starts again."):
        shape = BenchPlan(input_shape=input_shape).parsed_shape()
        whole(threads, "threads", least=1, most=MOST_THREADS, why=MORE_THREADS)
        check_model_file(model)
        if profile:
            require_packages(FORMATS["onnx"], "--profile")
        loaded = load_model(model)
        analysis = count_macs(loaded, shape)
        shares: dict[str, float] = {}
        how = ""
        if profile:
            found = profiled(fixed(loaded, shape), threads=threads)
            shares = {name: found.share(name) for name in found.seconds}
            how = f"{found.runtime}, {threads} thread(s), medians of {found.runs} runs"
            how = "; ".join([how, *left_out(loaded)])
        coupled = coupled_groups(loaded, input_shape=shape)
        if json is not None:
            write_json(json, {**coupled.to_json(), "costs": costs_json(analysis, shares, how)})
    show(
        render_costs(loaded.name, analysis, shares, how), render_coupling(coupled), saved=json or ""
    )
