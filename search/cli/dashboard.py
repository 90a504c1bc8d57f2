"""`paretune dashboard` and `storage`: servers for viewing and sharing a run's study."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from compress.core.errors import InputError
from compress.core.module_loading import require_packages
from compress.core.quantities import parse_integer
from compress.plan.fields import require
from search.cli._console import report_errors, show
from search.cli._help import add_command, create_command_group

if TYPE_CHECKING:
    from search.study.directory import SearchFolder

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
MAX_READ_BYTES = 2**20
"""Maximum number of bytes that are read from a refused request's body."""

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve_dashboard(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="the --out folder of the run")],
    port: Annotated[
        str, typer.Option("--port", metavar="N", help="port of the page; 0: any that is free")
    ] = "8080",
) -> None:
    """Show a run's study in optuna-dashboard, even while the run is active.

    Nothing can be changed there.
    """
    with (
        report_errors(""),
        create_dashboard(folder, parse_integer(port, "port")) as server,
    ):
        url = f"http://{HOST}:{server.server_port}{server.start}"
        show(f"{url} (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            # Ctrl-C is the regular end of this command
            return


class Server(ThreadingMixIn, WSGIServer):
    """A server that handles several requests at a time and ends with the command.

    Attributes:
        start: Path of the study's page.
    """

    daemon_threads = True
    start = "/"


def create_dashboard(path: Path, port: int) -> Server:
    """Return a server of the run's study that is bound to a local port but not yet serving.

    Args:
        path: The folder of the run.
        port: The port to listen on; 0: any free port.

    Raises:
        InputError: The path is not the folder of a search, the folder has no study (yet), or the
            port is in use.
        MissingDependency: optuna-dashboard is not installed.
    """
    from search.study.directory import SearchFolder
    from search.study.events import ARTIFACTS_FOLDER

    require(0 <= port <= 65535, "port", "be in [0, 65535]", port)
    folder = SearchFolder(path)
    search = folder.read_plan_record()["plan"].get("search")
    if search is None:
        raise InputError(f"'{path}' must be the folder of a search. Received: a compression's.")
    require_packages(("optuna_dashboard",), "paretune dashboard")
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    storage, study_id = _open_study(folder, search.get("storage", ""))
    artifacts = folder.path / ARTIFACTS_FOLDER
    options: dict[str, Any] = {}
    if artifacts.is_dir():
        options["artifact_store"] = FileSystemArtifactStore(base_path=artifacts)
    application = require_local_host(refuse_writes(wsgi(storage, **options)))
    try:
        server = make_server(HOST, port, application, Server, _QuietHandler)
    except OSError as error:
        raise InputError(
            f"port must be free. Received: {port} ({error.strerror}). Choose another with --port."
        ) from None
    server.start = f"/dashboard/studies/{study_id}"
    return server


def _open_study(folder: SearchFolder, url: str) -> tuple[Any, int]:
    """Return the storage of a run's study, and the study's id in it."""
    import optuna

    from search.study.storage import build_study_name, open_storage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = build_study_name(folder, url)
    missing = InputError(
        f"'{folder.path}' must have a study. Received: none called '{name}' in "
        f"{url or folder.journal}. It appears when the search begins."
    )
    if not url and not folder.journal.exists():
        raise missing  # opening a missing journal would create it
    storage = open_storage(url or folder.journal, "storage")
    try:
        return storage, storage.get_study_id_from_name(name)
    except KeyError:
        raise missing from None


def _refuse_request(
    start: Callable[..., Any], status: str, reason: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/json"), *headers])
    return [json.dumps({"reason": reason}).encode()]


def require_local_host(application: App) -> App:
    """Return an application that refuses requests to other host names.

    This protects against web pages whose domain name has been pointed at this machine.
    """

    def check_host(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "")
        name, _, port = host.rpartition(":") if host.count(":") == 1 else (host, "", "")
        if name not in HOSTS or (port and not port.isdigit()):
            return _refuse_request(start, "403 Forbidden", f"Host must be {' or '.join(HOSTS)}")
        return application(environ, start)

    return check_host


def refuse_writes(application: App) -> App:
    """Return an application that refuses requests that could change the study.

    The run may be writing to the study at the same time.
    """

    def check_method(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start)
        length = environ.get("CONTENT_LENGTH") or "0"
        if not length.isascii() or not length.isdigit():
            return _refuse_request(start, "400 Bad Request", "Content-Length must be a number")
        # closing the connection before the body is read would hide the response
        environ["wsgi.input"].read(min(int(length), MAX_READ_BYTES))
        reason = "paretune shows this study read-only"
        return _refuse_request(start, "405 Method Not Allowed", reason, ("Allow", "GET"))

    return check_method


class _QuietHandler(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing."""


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
