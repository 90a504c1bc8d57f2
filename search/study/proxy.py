"""One process that speaks to a database for many workers: Optuna's gRPC proxy.

A database takes some hundred connections, a cluster may have more workers. The proxy holds a few
connections and keeps finished trials in its memory; what many ask for at once it reads once.

A proxy with many workers is busy with reading the trials of a study, which is asked for several
times a trial. While one reading is under way all that are asked for wait, and are answered by the
next one together: each still begins after it was asked for, so nobody sees less than before. The
next one begins when as much time has passed as the last one took (`LONGEST` at most): readings
take half of the time, however many ask for them, and writing has the other half.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from compress.core import credentials
from compress.core.errors import InputError
from compress.core.faults import PATIENCE
from compress.plan.fields import require
from search.optuna_internals import serve_storage
from search.study.storage import open_storage, storage_of, without_fork_support

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
T = TypeVar("T")
READING = "get_all_trials"
LONGEST = 0.5
"""Seconds between two readings at most: the first one of a long study takes many."""


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

        # without this two servers share a port, and each gets half of the requests
        alone = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(THREADS), options=alone)
        serve_storage(sharing(storage, read_by), self._server)
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
        self._server.wait_for_termination()

    def close(self) -> None:
        """Ends it; requests in hand have a second."""
        self._server.stop(1.0).wait()


def serve_only() -> None:
    """Tunes this process for answering many short requests; for one that does nothing else.

    A thread that computes holds the others up for `SWITCH` at most, each time that they come back
    from the database; and the trials that are kept are not looked through for garbage again and
    again while others are read.
    """
    sys.setswitchinterval(SWITCH)
    gc.freeze()
    gc.set_threshold(*COLLECT)


def sharing(
    storage: optuna.storages.BaseStorage, read_by: optuna.storages.BaseStorage | None = None
) -> optuna.storages.BaseStorage:
    """Returns a storage whose readings of a study's trials are shared by threads that wait.

    Only those that ask for no copies: what is shared is not to be changed.

    Args:
        storage: What is written to, and read for everything else.
        read_by: The same, opened once more; default: `storage`.
    """
    source = read_by or storage
    readings: dict[Any, Together[Any]] = {}

    def call(name: str, *args: Any, **kwargs: Any) -> Any:
        whole = kwargs.get("states") is None and not kwargs.get("deepcopy", True)
        if name != READING or not whole or len(args) != 1:
            return getattr(storage, name)(*args, **kwargs)
        if args not in readings:
            reading = Together(lambda: source.get_all_trials(*args, deepcopy=False))
            readings.setdefault(args, reading)
        return readings[args]()

    return storage_of(call)


class Together(Generic[T]):
    """Calls of a function from many threads, those that wait being answered by one.

    Args:
        function: Runs once at a time, with pauses as long as its runs, `LONGEST` at most.
        clock: Seconds that pass.
        sleep: Lets so many pass.

    Example:
        >>> Together(lambda: 7)()
        7
    """

    def __init__(
        self,
        function: Callable[[], T],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._function, self._clock, self._sleep = function, clock, sleep
        self._free_at = clock()
        self._lock, self._busy = threading.Lock(), threading.Lock()
        self._next: Future[T] | None = None

    def __call__(self) -> T:
        """Returns what a run of the function gives that began after this call."""
        with self._lock:
            first = self._next is None
            found = self._next = self._next or Future()
        if first:
            with self._busy:
                self._sleep(max(0.0, self._free_at - self._clock()))
                with self._lock:
                    self._next = None  # who asks from here on may have to know more
                began = self._clock()
                try:
                    found.set_result(self._function())
                except BaseException as error:
                    found.set_exception(error)
                ended = self._clock()
                self._free_at = ended + min(ended - began, LONGEST)
        return found.result()
