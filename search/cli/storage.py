"""`paretune storage`: what stands between many workers and a study's database."""

from __future__ import annotations

from typing import Annotated

import typer

from compress.core.quantities import parse_whole_number
from search.cli._console import reporting_errors, show
from search.cli._help import add_command, command_group

storage = command_group("storage", "Serve a study's database to many workers.")


def serve(
    url: Annotated[
        str,
        typer.Option(
            "--storage",
            metavar="URL",
            help="the database, as --storage of `run` takes it; its password: in "
            "PARETUNE_STORAGE_PASSWORD",
        ),
    ],
    port: Annotated[
        str, typer.Option("--port", metavar="N", help="where it listens; 0: any free port")
    ] = "13000",
) -> None:
    """Serve a database by Optuna's gRPC proxy, to this machine alone.

    Nothing that goes through it is encrypted, and nobody is asked who he is: other machines come
    by a tunnel (ssh -N -L 13000:127.0.0.1:13000 HOST).
    """
    from search.study.storage import make_proxy, serve_only

    with reporting_errors("The same command starts it again: the database has everything."):
        proxy = make_proxy(url, parse_whole_number(port, "port"))
        serve_only()
        show(f"--storage {proxy.url} (Ctrl-C ends it)")
        try:
            proxy.wait()
        except KeyboardInterrupt:
            # the one way in which this command ends
            proxy.close()


add_command(storage, "serve", serve)
