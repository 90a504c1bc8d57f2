"""`paretune latency-table`: files to time on another device, and what was timed there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.plan.bench import BENCH_FORMATS, InputShape
from compress.plan.forms import listed
from compress.plan.shrink import ShrinkChannels
from search.cli._console import display, reporting_errors, show, written
from search.cli._help import add_command, command_group
from search.cli._options import completer

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
    from compress.measure import formats

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
