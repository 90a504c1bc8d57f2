"""`paretune storage`: a server that shares a study's database."""

from __future__ import annotations

from typing import Annotated

import typer

from compress.core.quantities import parse_integer
from search.cli._console import report_errors, show
from search.cli._help import add_command, create_command_group

storage = create_command_group("storage", "Serve a study's database to many workers.")


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

    The connection has neither encryption nor authentication: other machines connect
    through a tunnel (ssh -N -L 13000:127.0.0.1:13000 HOST).
    """
    from search.study.storage import create_proxy, tune_for_serving

    with report_errors("The same command starts it again: the database has everything."):
        proxy = create_proxy(url, parse_integer(port, "port"))
        tune_for_serving()
        show(f"--storage {proxy.url} (Ctrl-C ends it)")
        try:
            proxy.wait()
        except KeyboardInterrupt:
            # Ctrl-C is the regular end of this command
            proxy.close()


add_command(storage, "serve", serve)
