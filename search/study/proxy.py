"""One process that speaks to a database for many workers: Optuna's gRPC proxy.

A database takes some hundred connections, a cluster may have more workers. The proxy holds a few
connections and keeps finished trials in its memory; what many ask for at once it reads once.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from compress.core import credentials
from compress.core.errors import InputError
from compress.core.patience import PATIENCE
from compress.plan.fields import require
from search.study.shared_readings import sharing
from search.study.storage import open_storage, without_fork_support

if TYPE_CHECKING:
    import optuna

HOST = "127.0.0.1"
"""The proxy knows neither passwords nor encryption: it listens to its own machine alone."""
THREADS = 16
"""Requests that are answered at once, each with a connection of its own."""
_NONE = ("grpc", "journal")


class Proxy:
    """A proxy that listens, until it is closed.

    Args:
        storage: What it speaks to.
        port: Where it listens; 0: any free port.

    Raises:
        InputError: The port is not free.
    """

    def __init__(self, storage: optuna.storages.BaseStorage, port: int) -> None:
        without_fork_support()
        import grpc
        from optuna.storages._grpc.auto_generated import api_pb2_grpc
        from optuna.storages._grpc.servicer import OptunaStorageProxyService

        # Optuna's `run_grpc_proxy_server` tells neither its port nor that another listens there
        self._over = threading.Event()
        # without this two servers share a port, and each gets half of the requests
        alone = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(THREADS), options=alone)
        join: Any = api_pb2_grpc.add_StorageServiceServicer_to_server
        join(OptunaStorageProxyService(sharing(storage)), self._server)
        try:
            self.port = int(self._server.add_insecure_port(f"{HOST}:{port}"))
        except RuntimeError:
            raise InputError(
                f"port must be free. Received: {port}. Choose another with --port."
            ) from None
        self._server.start()

    @property
    def url(self) -> str:
        """What `--storage` is given on this machine."""
        return f"grpc://{HOST}:{self.port}"

    def wait(self) -> None:
        """Serves until it is closed."""
        self._over.wait()

    def close(self) -> None:
        """Ends it; requests in hand have a second."""
        self._server.stop(1.0).wait()
        self._over.set()


def make_proxy(url: str, port: int) -> Proxy:
    """Returns a proxy in front of a database.

    Args:
        url: Of the database.
        port: Where it listens; 0: any free port.

    Raises:
        InputError: It is no database that a proxy serves, or does not answer; the port is not
            free.
    """
    require(0 <= port <= 65535, "port", "be in [0, 65535]", port)
    scheme = url.partition(":")[0]
    if "://" not in url or scheme in _NONE:
        raise InputError(
            "storage must be the URL of a database: a proxy serves no journal, and no other proxy. "
            f"Received: '{credentials.hidden(url)}'."
        )
    short = credentials.keep(url)
    open_storage(short, "storage")  # what is wrong now does not pass
    return Proxy(open_storage(short, "storage", patience=PATIENCE, connections=THREADS), port)
