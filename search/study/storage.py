"""The storage of studies: a run's journal, or any storage of Optuna's.

Database servers restart, connections break, transactions of many workers meet. What Optuna does
not try again is tried again here, for some minutes: a run loses nothing by it.

A database takes some hundred connections, a cluster may have more workers. Optuna's gRPC proxy
holds a few connections and keeps finished trials in its memory. With many workers it is busy with
reading the trials of a study, which is asked for several times a trial. While one reading is under
way all that are asked for wait, and are answered by the next one together: each still begins after
it was asked for, so nobody sees less than before. The next one begins when as much time has passed
as the last one took (`LONGEST` at most): readings take half of the time, however many ask for them,
and writing has the other half.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import inspect
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial

from compress.core import credentials, linux
from compress.core.errors import InputError, ParetuneError
from compress.core.faults import PATIENCE, fault_of, patiently
from compress.core.interpreter import require_packages
from compress.core.linux import Lock
from compress.plan.fields import require
from search.optuna_internals import serve_storage
from search.study.directory import SearchFolder

DRIVERS = {
    "postgresql": ("postgresql", "psycopg2", "psycopg"),
    "postgres": ("postgresql", "psycopg2", "psycopg"),
    "mysql": ("mysql", "MySQLdb", "pymysql"),
}
"""Scheme -> (its name for SQLAlchemy, the driver that SQLAlchemy takes, the one that we name)."""
_PASSING = ("OperationalError", "InterfaceError", "StorageInternalError", "TimeoutError")
_GRPC_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
_LASTING = ("password", "authentication", "permission denied", "no such table", "does not exist")
HOST = "127.0.0.1"
"""The proxy knows neither passwords nor encryption: it listens to its own machine alone."""
CONNECTIONS = 16
"""To the database."""
THREADS = 64
"""Requests in hand at once: those that wait for a reading of others use no connection."""
T = TypeVar("T")
LONGEST = 0.5
"""Seconds between two readings at most: the first one of a long study takes many."""


def study_name(folder: SearchFolder, url: str) -> str:
    """Return the study's name; in a shared storage the folder's place makes it unique."""
    if not url:
        return "paretune"
    digest = hashlib.sha256(str(folder.known_as).encode()).hexdigest()
    return f"paretune-{folder.known_as.name}-{digest[:8]}"


def open_storage(
    where: str | Path,
    option: str,
    *,
    patience: float = 0.0,
    connections: int = 1,
    cached: bool = True,
) -> BaseStorage:
    """Open the storage of a study.

    Args:
        where: A URL, as plans hold it without its password, or the path of a run's journal.
            `grpc://host:port` is Optuna's proxy in front of another storage.
        option: Who asked for it, for errors.
        patience: Seconds for which this and every later call wait for a database that does not
            answer.
        connections: How many threads ask at once.
        cached: Whether trials of a database that have ended are kept in memory. What keeps them
            lets one thread write at a time.

    Raises:
        InputError: The URL is malformed or cannot be reached, or the journal is damaged.
        MissingDependency: The database's driver is not installed.
        NoAnswer: It could not be reached in time.
    """
    if isinstance(where, Path):
        try:
            return open_journal(where, where)
        except OSError:
            raise
        except Exception as error:  # whatever a damaged line sets off
            raise InputError(
                f"{option} must be a journal of Optuna's without damage. Received: '{where}' "
                f"({type(error).__name__}). The run's own command mends it."
            ) from None
    url = credentials.whole(where)
    try:
        if not patience:
            return _opened(url, connections, cached)
        opened = patiently(
            lambda: _opened(url, connections, cached),
            f"the storage '{where}'",
            is_passing,
            patience,
        )
        return patient(opened, patience)
    except ParetuneError:
        raise
    except Exception as error:  # SQLAlchemy and the drivers have many kinds of errors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{option} must be a URL that Optuna can open. Received: '{where}' "
            f"({credentials.hidden(reason, url)})."
        ) from None


def open_journal(path: Path, journal: Path) -> JournalStorage:
    """Open a journal, or the file that will take its place.

    Args:
        path: What is opened.
        journal: Whose lock is taken for writing.
    """
    lock: Any = JournalLock(journal.with_suffix(".lock"))
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _opened(url: str, connections: int, cached: bool) -> BaseStorage:
    scheme = url.partition(":")[0]
    if scheme == "grpc":
        return _proxy(url)
    if scheme == "sqlite":
        made = optuna.storages.RDBStorage(url)
    else:
        # a connection that broke is found out before it is used
        pool = {"pool_size": connections, "max_overflow": 1, "pool_pre_ping": True}
        made = optuna.storages.RDBStorage(_with_driver(url), engine_kwargs=pool)
    return optuna.storages.get_storage(made) if cached else made


def _with_driver(url: str) -> str:
    """Name the driver that is installed where a URL names none.

    Raises:
        MissingDependency: There is none.
    """
    scheme, colon, rest = url.partition(":")
    usual, taken, ours = DRIVERS.get(scheme, (scheme, "", ""))
    if not taken or importlib.util.find_spec(taken) is not None:
        return url
    require_packages((ours,), f"a storage at {scheme}://")
    return f"{usual}+{ours}{colon}{rest}"


def _proxy(url: str) -> BaseStorage:
    without_fork_support()
    place = urlsplit(url)
    if place.hostname is None or place.port is None:
        raise ValueError("write grpc://host:port")
    # that it is new is told where it is chosen: docs/cluster.md
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        proxy = GrpcStorageProxy(host=place.hostname, port=place.port)
    proxy.wait_server_ready(timeout=10)
    return proxy


def without_fork_support() -> None:
    """Let this process fork after it has used gRPC; to be called before that is imported.

    Its handlers of forks end the child with a failed check. Our forks use no connection of their
    parent's.
    """
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def is_passing(error: BaseException) -> bool:
    """Tell whether an error of a storage may be gone in a moment.

    Connections that broke, servers that start, transactions that met another: yes. A wrong
    password, a full disk, a rule that was broken: no.
    """
    if fault_of(error) is not None:
        return False
    code = getattr(error, "code", None)
    if callable(code) and type(error).__module__.startswith("grpc"):
        return getattr(code(), "name", "") in _GRPC_PASSING
    link: BaseException | None = error
    while link is not None:
        if any(word in str(link).lower() for word in _LASTING):
            return False
        link = link.__cause__
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & set(_PASSING)) or bool(getattr(error, "connection_invalidated", False))


def patient(storage: BaseStorage, seconds: float = PATIENCE) -> BaseStorage:
    """Return a storage whose calls are repeated as `patiently` does.

    A call whose answer was lost may have been carried out. Most may be carried out twice; a
    trial that was begun so is nobody's, and the next start of the run queues it again; one that
    was ended so has ended (`search.study.study.tell`).
    """

    def repeat(name: str) -> Callable[..., Any]:
        def repeated(_: Any, *args: Any, **kwargs: Any) -> Any:
            call = partial(getattr(storage, name), *args, **kwargs)
            return patiently(call, "the storage", is_passing, seconds)

        return repeated

    names = [name for name, _ in inspect.getmembers(BaseStorage, inspect.isfunction)]
    methods = {name: repeat(name) for name in names if not name.startswith("_")}
    made: BaseStorage = type("Storage", (BaseStorage,), methods)()
    return made


class JournalLock:
    """A lock for Optuna's journal that the system releases when its holder is killed.

    Optuna's own locks are files: one left by a killed worker stops every other worker for
    half a minute.

    Args:
        path: The file that is locked; it may exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: Lock | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held = linux.lock(self._path, wait=True)
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._held is not None:
            self._held.release()
            self._held = None


def make_proxy(url: str, port: int) -> Proxy:
    """Return a proxy in front of a database.

    Args:
        url: Of the database.
        port: Where it listens; 0: any free port.

    Raises:
        InputError: It is no database that a proxy serves, or does not answer; the port is not
            free.
    """
    require(0 <= port <= 65535, "port", "be in [0, 65535]", port)
    scheme = url.partition(":")[0]
    if "://" not in url or scheme in ("grpc", "journal"):
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

    def __init__(self, storage: BaseStorage, read_by: BaseStorage, port: int) -> None:
        without_fork_support()
        import grpc

        # without this two servers share a port, and each gets half of the requests
        alone = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(THREADS), options=alone)
        serve_storage(storage, share_readings(read_by), self._server)
        try:
            self.port = int(self._server.add_insecure_port(f"{HOST}:{port}"))
        except RuntimeError:
            raise InputError(
                f"port must be free. Received: {port}. Choose another with --port."
            ) from None
        self._server.start()

    @property
    def url(self) -> str:
        """The proxy's URL, for `--storage` on this machine."""
        return f"grpc://{HOST}:{self.port}"

    def wait(self) -> None:
        """Serve until the proxy is closed."""
        self._server.wait_for_termination()

    def close(self) -> None:
        """End the server; requests in hand have a second."""
        self._server.stop(1.0).wait()


def serve_only() -> None:
    """Tune this process for answering many short requests; for one that does nothing else.

    A thread that computes holds the others up for half a millisecond at most, a tenth of Python's
    time, each time that they come back from the database; and the trials that are kept are not
    looked through for garbage again and again while others are read.
    """
    sys.setswitchinterval(0.0005)
    gc.freeze()
    # Python has 700, 10, 10
    gc.set_threshold(100_000, 20, 100)


def share_readings(storage: BaseStorage) -> Callable[[int], Sequence[FrozenTrial]]:
    """Return a function that reads a study's trials by its id, once for all waiting threads.

    What it returns is shared, and not to be changed.
    """
    readings: dict[int, Together[Sequence[FrozenTrial]]] = {}

    def read(study_id: int) -> Sequence[FrozenTrial]:
        call = partial(storage.get_all_trials, study_id, deepcopy=False)
        return readings.setdefault(study_id, Together(call))()

    return read


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
        """Return the result of a run of the function that began after this call."""
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
