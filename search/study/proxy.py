"""One process that speaks to a database for many workers: Optuna's gRPC proxy.

A database takes some hundred connections, a cluster may have more workers. The proxy holds a few
connections and keeps finished trials in its memory; what many ask for at once it reads once.
"""

from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

from compress.core import credentials
from compress.core.errors import InputError
from compress.core.faults import PATIENCE
from compress.plan.fields import require
from search.study.shared_readings import sharing
from search.study.storage import open_storage, without_fork_support

if TYPE_CHECKING:
    import optuna

HOST = "127.0.0.1"
"""The proxy knows neither passwords nor encryption: it listens to its own machine alone."""
CONNECTIONS = 16
"""To the database."""
THREADS = 64
"""Requests in hand at once: those that wait for a reading of others use no connection."""
SWITCH = 0.0005
"""Seconds, a tenth of Python's."""
COLLECT = (100_000, 20, 100)
"""Objects of a generation, collections of it before one of the next; Python has 700, 10, 10."""
_NONE = ("grpc", "journal")


class Proxy:
    """A proxy that listens, until it is closed.

    Args:
        storage: What it speaks to.
        read_by: The same, opened once more: what trials are read by.
        port: Where it listens; 0: any free port.

    Raises:
        InputError: The port is not free.
    """

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        read_by: optuna.storages.BaseStorage,
        port: int,
    ) -> None:
        without_fork_support()
        import grpc
        from optuna.storages._grpc.auto_generated import api_pb2_grpc

        # Optuna's `run_grpc_proxy_server` tells neither its port nor that another listens there
        self._over = threading.Event()
        # without this two servers share a port, and each gets half of the requests
        alone = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(THREADS), options=alone)
        join: Any = api_pb2_grpc.add_StorageServiceServicer_to_server
        join(_service_kind()(sharing(storage, read_by)), self._server)
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


@cache
def _service_kind() -> Any:
    """Returns the class of what answers: Optuna's, which writes a trial once for all that ask.

    A hundred workers ask for the same trials, and to write one for the way takes as long as to
    read it.
    """
    from optuna.storages._grpc import servicer
    from optuna.storages._grpc.auto_generated import api_pb2

    class Service(servicer.OptunaStorageProxyService):
        def __init__(self, storage: Any) -> None:
            super().__init__(storage)
            self._written: dict[int, tuple[Any, Any]] = {}

        def GetTrials(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
            import grpc

            try:
                trials = self._backend.get_all_trials(request.study_id, deepcopy=False)
            except KeyError as error:
                context.abort(code=grpc.StatusCode.NOT_FOUND, details=str(error))
            wanted = set(request.included_trial_ids)
            return api_pb2.GetTrialsReply(
                trials=[
                    self._on_the_way(trial)
                    for trial in trials
                    if trial._trial_id > request.trial_id_greater_than or trial._trial_id in wanted
                ]
            )

        def _on_the_way(self, trial: Any) -> Any:
            # a trial that has changed is another object: the storage below makes it anew
            held, message = self._written.get(trial._trial_id, (None, None))
            if held is not trial:
                message = servicer._to_proto_trial(trial)
                self._written[trial._trial_id] = trial, message
            return message

    return Service


def serve_only() -> None:
    """Tunes this process for answering many short requests; for one that does nothing else.

    A thread that computes holds the others up for `SWITCH` at most, each time that they come back
    from the database; and the trials that are kept are not looked through for garbage again and
    again while others are read.
    """
    sys.setswitchinterval(SWITCH)
    gc.freeze()
    gc.set_threshold(*COLLECT)


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
    storage = open_storage(
        short, "storage", patience=PATIENCE, connections=CONNECTIONS, cached=False
    )
    return Proxy(storage, open_storage(short, "storage", patience=PATIENCE), port)
