"""`paretune dashboard` and `storage`: servers of a run's study, to look at and to write to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from compress.core.errors import InputError, MissingDependency
from compress.core.quantities import parse_whole_number
from compress.plan.fields import require
from search.cli._console import reporting_errors, show
from search.cli._help import add_command, command_group
from search.study.directory import SearchFolder
from search.study.events import PLACE

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
MOST_READ = 2**20
"""Bytes of a refused request's body that are read."""
INSTALL = "optuna-dashboard is not installed. Install it with: pip install 'paretune[dashboard]'"

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def dashboard(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="the --out folder of the run")],
    port: Annotated[
        str, typer.Option("--port", metavar="N", help="port of the page; 0: any that is free")
    ] = "8080",
) -> None:
    """Show a run's study in optuna-dashboard, also while the run goes on.

    Nothing can be changed there.
    """
    with (
        reporting_errors(""),
        make_dashboard(folder, parse_whole_number(port, "port")) as server,
    ):
        url = f"http://{HOST}:{server.server_port}{server.start}"
        show(f"{url} (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            # the one way in which this command ends
            return


class Server(ThreadingMixIn, WSGIServer):
    """A server that answers several requests at a time and ends with the command.

    Attributes:
        start: Path of the study's page.
    """

    daemon_threads = True
    start = "/"


def make_dashboard(path: Path, port: int) -> Server:
    """Return a server of the run's study that is bound to this machine, not yet serving.

    Args:
        path: The run's folder.
        port: Where it listens; 0: any free port.

    Raises:
        InputError: It is no run's folder, or has no study (yet); the port is not free.
        MissingDependency: optuna-dashboard is not installed.
    """
    require(0 <= port <= 65535, "port", "be in [0, 65535]", port)
    folder = SearchFolder(path)
    search = folder.read_plan_record()["plan"].get("search")
    if search is None:
        raise InputError(f"'{path}' must be the folder of a search. Received: a compression's.")
    try:
        from optuna.artifacts import FileSystemArtifactStore
        from optuna_dashboard import wsgi
    except ImportError:
        raise MissingDependency(INSTALL) from None
    storage, number = _study(folder, search.get("storage", ""))
    artifacts = folder.path / PLACE
    more: dict[str, Any] = {}
    if artifacts.is_dir():
        more["artifact_store"] = FileSystemArtifactStore(base_path=artifacts)
    application = for_this_machine(read_only(wsgi(storage, **more)))
    try:
        server = make_server(HOST, port, application, Server, _Quiet)
    except OSError as error:
        raise InputError(
            f"port must be free. Received: {port} ({error.strerror}). Choose another with --port."
        ) from None
    server.start = f"/dashboard/studies/{number}"
    return server


def _study(folder: SearchFolder, url: str) -> tuple[Any, int]:
    import optuna

    from search.study.storage import open_storage, study_name

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = study_name(folder, url)
    missing = InputError(
        f"'{folder.path}' must have a study. Received: none called '{name}' in "
        f"{url or folder.journal}. It appears when the search begins."
    )
    if not url and not folder.journal.exists():
        raise missing  # opening it would make it
    storage = open_storage(url or folder.journal, "storage")
    try:
        return storage, storage.get_study_id_from_name(name)
    except KeyError:
        raise missing from None


def _refused(
    start: Callable[..., Any], status: str, reason: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/json"), *headers])
    return [json.dumps({"reason": reason}).encode()]


def for_this_machine(application: App) -> App:
    """Refuse requests to another host: a page of a stranger's that had its name point here."""

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        name, _, port = host.rpartition(":") if host.count(":") == 1 else (host, "", "")
        if name not in HOSTS or (port and not port.isdigit()):
            return _refused(start, "403 Forbidden", f"Host must be {' or '.join(HOSTS)}")
        return application(environ, start)

    return guarded


def read_only(application: App) -> App:
    """Refuse every request that could change the study: a run may be writing to it."""

    def guarded(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start)
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isascii() or not length.isdigit():
            return _refused(start, "400 Bad Request", "Content-Length must be a number")
        # the body is read: a connection closed before would hide the answer
        environ["wsgi.input"].read(min(int(length), MOST_READ))
        reason = "paretune shows this study read-only"
        return _refused(start, "405 Method Not Allowed", reason, ("Allow", "GET"))

    return guarded


class _Quiet(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing."""


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
