"""The storage of studies: a run's journal, or any storage of Optuna.

Database servers restart, connections break, and transactions of workers conflict. Operations that
Optuna does not retry are retried here for some minutes, so that a run survives such faults.

A database accepts some hundred connections, but a cluster may have more workers. Optuna's gRPC
proxy holds a few connections and caches finished trials in memory. With many workers, its main
load is reading the trials of a study, which each trial requests several times. While one reading
is running, all new requests wait and share the next one. Each reading still begins after its
requests, so it is as recent as a separate reading would be. The next reading begins after a
pause as long as the last reading took (`MAX_PAUSE` at most): readings use half of the time at any
number of requests, and writes have the other half.
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
from typing import IO, Any, Generic, TypeVar
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial

from compress.core import credentials, linux
from compress.core.errors import InputError, ParetuneError
from compress.core.faults import RETRY_SECONDS, find_fault, retry_call
from compress.core.module_loading import require_packages
from compress.plan.fields import require
from search.optuna_internals import serve_storage
from search.study.directory import SearchFolder

DRIVERS = {
    "postgresql": ("postgresql", "psycopg2", "psycopg"),
    "postgres": ("postgresql", "psycopg2", "psycopg"),
    "mysql": ("mysql", "MySQLdb", "pymysql"),
}
"""Scheme -> (SQLAlchemy dialect, SQLAlchemy's default driver, our driver)."""
_TRANSIENT_ERRORS = ("OperationalError", "InterfaceError", "StorageInternalError", "TimeoutError")
_TRANSIENT_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
_PERMANENT_WORDS = (
    "password",
    "authentication",
    "permission denied",
    "no such table",
    "does not exist",
)
HOST = "127.0.0.1"
"""Address of the proxy, which is local because it has neither passwords nor encryption."""
CONNECTIONS = 16
"""Number of connections from the proxy to the database."""
THREADS = 64
"""Number of concurrent requests; those that wait for a shared reading use no connection."""
T = TypeVar("T")
MAX_PAUSE = 0.5
"""Maximum seconds between two readings; the first reading of a long study takes much longer."""


def build_study_name(folder: SearchFolder, url: str) -> str:
    """Return the study's name; in a shared storage, a hash of the folder's path makes it unique.

    Args:
        folder: The folder of the run.
        url: URL of the storage; "": the run's journal.
    """
    if not url:
        return "paretune"
    digest = hashlib.sha256(str(folder.origin_path).encode()).hexdigest()
    return f"paretune-{folder.origin_path.name}-{digest[:8]}"


def open_storage(
    location: str | Path,
    option: str,
    *,
    patience: float = 0.0,
    connections: int = 1,
    is_cached: bool = True,
) -> BaseStorage:
    """Open the storage of a study.

    Args:
        location: A URL in the form of plans, without its password, or the path of a run's journal.
            `grpc://host:port` is Optuna's proxy in front of another storage.
        option: Name of the option for error messages.
        patience: Seconds for which this and every later call wait for a database that does not
            respond.
        connections: Number of threads that use the storage at once.
        is_cached: Whether finished trials of a database are cached in memory. With a cache, only
            one thread writes at a time.

    Raises:
        InputError: The URL is malformed or cannot be reached, or the journal is corrupt.
        OSError: The journal cannot be opened.
        MissingDependency: The database's driver is not installed.
        ServiceTimeout: The storage could not be reached in time.
    """
    if isinstance(location, Path):
        try:
            return open_journal(location, location)
        except OSError:
            raise
        except Exception as error:  # a corrupt line may raise any error
            raise InputError(
                f"{option} must be a readable journal of Optuna's. Received: '{location}' "
                f"({type(error).__name__}). The run's own command repairs it."
            ) from None
    url = credentials.restore_password(location)
    try:
        if not patience:
            return _open_url(url, connections, is_cached)
        storage = retry_call(
            lambda: _open_url(url, connections, is_cached),
            f"the storage '{location}'",
            is_transient,
            patience,
        )
        return add_retries(storage, patience)
    except ParetuneError:
        raise
    except Exception as error:  # SQLAlchemy and each driver have their own errors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{option} must be a URL that Optuna can open. Received: '{location}' "
            f"({credentials.hide_passwords(reason, url)})."
        ) from None


def open_journal(path: Path, journal: Path) -> JournalStorage:
    """Open a journal, or the temporary file that will replace it.

    Args:
        path: The file to open.
        journal: The journal whose lock is used for writing.
    """
    lock: Any = JournalLock(journal.with_suffix(".lock"))
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _open_url(url: str, connections: int, is_cached: bool) -> BaseStorage:
    """Open a database, or a gRPC proxy, by its URL; `connections` is the size of its pool."""
    scheme = url.partition(":")[0]
    if scheme == "grpc":
        return _open_proxy(url)
    if scheme == "sqlite":
        database = optuna.storages.RDBStorage(url)
    else:
        # `pool_pre_ping` detects a broken connection before it is used
        pool = {"pool_size": connections, "max_overflow": 1, "pool_pre_ping": True}
        database = optuna.storages.RDBStorage(_add_driver(url), engine_kwargs=pool)
    return optuna.storages.get_storage(database) if is_cached else database


def _add_driver(url: str) -> str:
    """Add the name of an installed driver to a URL that names none.

    Raises:
        MissingDependency: No driver is installed.
    """
    scheme, colon, rest = url.partition(":")
    dialect, default_driver, supported_driver = DRIVERS.get(scheme, (scheme, "", ""))
    if not default_driver:
        return url
    if importlib.util.find_spec(default_driver) is not None:
        return f"{dialect}{colon}{rest}"
    require_packages((supported_driver,), f"a storage at {scheme}://")
    return f"{dialect}+{supported_driver}{colon}{rest}"


def _open_proxy(url: str) -> BaseStorage:
    """Return the storage behind grpc://host:port, once it responds; ValueError without a port."""
    disable_fork_support()
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise ValueError("write grpc://host:port")
    # docs/cluster.md mentions that the proxy is experimental
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        proxy = GrpcStorageProxy(host=parts.hostname, port=parts.port)
    proxy.wait_server_ready(timeout=10)
    return proxy


def disable_fork_support() -> None:
    """Disable gRPC's fork handlers, so that this process can fork; call it before importing gRPC.

    The handlers end a forked child with a failed check. Our forks use no connection of their
    parent, so they do not need the handlers.
    """
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def is_transient(error: BaseException) -> bool:
    """Return whether an error of a storage may disappear with a retry.

    Broken connections, starting servers and conflicting transactions are transient. Wrong
    passwords, full disks and violated constraints are not.
    """
    if find_fault(error) is not None:
        return False
    code = getattr(error, "code", None)
    if callable(code) and type(error).__module__.startswith("grpc"):
        return getattr(code(), "name", "") in _TRANSIENT_CODES
    cause: BaseException | None = error
    while cause is not None:
        if any(word in str(cause).lower() for word in _PERMANENT_WORDS):
            return False
        cause = cause.__cause__
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & set(_TRANSIENT_ERRORS)) or bool(
        getattr(error, "connection_invalidated", False)
    )


def add_retries(storage: BaseStorage, seconds: float = RETRY_SECONDS) -> BaseStorage:
    """Return a storage that repeats failed calls with `retry_call`.

    A call without a response may have been carried out. Most calls may safely run twice. A trial
    begun by such a call belongs to no worker, and the next start of the run queues it again; a
    trial that it ended stays ended (`search.study.study.finish_trial`).

    Args:
        storage: The storage to wrap.
        seconds: Time limit for the retries of a call.
    """

    def create_method(name: str) -> Callable[..., Any]:
        def call_method(_: Any, *args: Any, **kwargs: Any) -> Any:
            call = partial(getattr(storage, name), *args, **kwargs)
            return retry_call(call, "the storage", is_transient, seconds)

        return call_method

    names = [name for name, _ in inspect.getmembers(BaseStorage, inspect.isfunction)]
    methods = {name: create_method(name) for name in names if not name.startswith("_")}
    retrying_storage: BaseStorage = type("Storage", (BaseStorage,), methods)()
    return retrying_storage


class JournalLock:
    """A lock for Optuna's journal that the system releases when its holder is killed.

    Optuna's own locks are files: a lock left by a killed worker blocks every other worker for
    half a minute.

    Args:
        path: The lock file; it may exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock and return True."""
        self._lock = linux.lock_file(self._path)
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()


def create_proxy(url: str, port: int) -> Proxy:
    """Return a running proxy in front of a database.

    Args:
        url: URL of the database.
        port: The port to listen on; 0: any free port.

    Raises:
        InputError: The URL is not a database that a proxy can serve, the database does not respond,
            or the port is in use.
    """
    require(0 <= port <= 65535, "port", "be in [0, 65535]", port)
    scheme = url.partition(":")[0]
    if "://" not in url or scheme in ("grpc", "journal"):
        raise InputError(
            "storage must be the URL of a database: a proxy serves no journal, and no other proxy. "
            f"Received: '{credentials.hide_passwords(url)}'."
        )
    short = credentials.remember_password(url)
    open_storage(short, "storage")  # without retries: errors at the start are permanent
    storage = open_storage(
        short, "storage", patience=RETRY_SECONDS, connections=CONNECTIONS, is_cached=False
    )
    return Proxy(storage, open_storage(short, "storage", patience=RETRY_SECONDS), port)


class Proxy:
    """A gRPC proxy that listens until it is closed.

    Args:
        storage: The storage behind the proxy.
        read_storage: A second connection to the same storage, for reading trials.
        port: The port to listen on; 0: any free port.

    Raises:
        InputError: The port is in use.
    """

    def __init__(self, storage: BaseStorage, read_storage: BaseStorage, port: int) -> None:
        disable_fork_support()
        import grpc

        # otherwise two servers could share a port, and each would get half of the requests
        options = [("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(THREADS), options=options)
        serve_storage(storage, coalesce_readings(read_storage), self._server)
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
        """Stop the server, with one second for running requests."""
        self._server.stop(1.0).wait()


def tune_for_serving() -> None:
    """Tune this process for serving many short requests; for processes that do nothing else.

    A computing thread then blocks the others for at most half a millisecond, a tenth of Python's
    default, each time that they return from the database. The garbage collector no longer scans the
    cached trials again and again while trials are read.
    """
    sys.setswitchinterval(0.0005)
    gc.freeze()
    # Python's defaults are 700, 10, 10
    gc.set_threshold(100_000, 20, 100)


def coalesce_readings(storage: BaseStorage) -> Callable[[int], Sequence[FrozenTrial]]:
    """Return a function that reads a study's trials by its id, once for all waiting threads.

    The threads share the result, so it must not be modified.
    """
    readings: dict[int, CoalescedCall[Sequence[FrozenTrial]]] = {}

    def read(study_id: int) -> Sequence[FrozenTrial]:
        call = partial(storage.get_all_trials, study_id, deepcopy=False)
        return readings.setdefault(study_id, CoalescedCall(call))()

    return read


class CoalescedCall(Generic[T]):
    """A function for many threads, one run of which serves all waiting calls.

    Args:
        function: The function. It runs in one thread at a time, with a pause after each run that is
            as long as the run, `MAX_PAUSE` at most.
        clock: Returns the time in seconds.
        sleep: Waits for a number of seconds.

    Example:
        >>> CoalescedCall(lambda: 7)()
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
            is_first = self._next is None
            result = self._next = self._next or Future()
        if is_first:
            with self._busy:
                self._sleep(max(0.0, self._free_at - self._clock()))
                with self._lock:
                    self._next = None  # calls from here on need a newer result
                began = self._clock()
                try:
                    result.set_result(self._function())
                except BaseException as error:
                    result.set_exception(error)
                ended = self._clock()
                self._free_at = ended + min(ended - began, MAX_PAUSE)
        return result.result()
