"""Where studies are kept: a run's journal, or any storage of Optuna's.

Database servers restart, connections break, transactions of many workers meet. What Optuna does
not try again is tried again here, for some minutes: a run loses nothing by it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from compress.core import credentials, linux
from compress.core.errors import InputError, ParetuneError
from compress.core.faults import PATIENCE, fault_of, patiently
from compress.core.interpreter import require_packages
from compress.core.linux import Lock
from search.study.directory import SearchFolder

if TYPE_CHECKING:
    import optuna

PROXY_SECONDS = 10.0
"""How long a proxy may take to answer for the first time."""
DRIVERS = {
    "postgresql": ("postgresql", "psycopg2", "psycopg"),
    "postgres": ("postgresql", "psycopg2", "psycopg"),
    "mysql": ("mysql", "MySQLdb", "pymysql"),
}
"""Scheme -> (its name for SQLAlchemy, the driver that SQLAlchemy takes, the one that we name)."""
_PASSING = ("OperationalError", "InterfaceError", "StorageInternalError", "TimeoutError")
_GRPC_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
_LASTING = ("password", "authentication", "permission denied", "no such table", "does not exist")


def study_name(folder: SearchFolder, url: str) -> str:
    """Returns the study's name; in a shared storage the folder's place makes it unique."""
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
) -> optuna.storages.BaseStorage:
    """Opens what studies are kept in.

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
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    if isinstance(where, Path):
        lock: Any = JournalLock(where.with_suffix(".lock"))
        try:
            return JournalStorage(JournalFileBackend(str(where), lock_obj=lock))
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


def _opened(url: str, connections: int, cached: bool) -> optuna.storages.BaseStorage:
    import optuna

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
    """Names the driver that is installed where a URL names none.

    Raises:
        MissingDependency: There is none.
    """
    scheme, colon, rest = url.partition(":")
    usual, taken, ours = DRIVERS.get(scheme, (scheme, "", ""))
    if not taken or importlib.util.find_spec(taken) is not None:
        return url
    require_packages((ours,), f"a storage at {scheme}://")
    return f"{usual}+{ours}{colon}{rest}"


def _proxy(url: str) -> optuna.storages.BaseStorage:
    without_fork_support()
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import GrpcStorageProxy

    place = urlsplit(url)
    if place.hostname is None or place.port is None:
        raise ValueError("write grpc://host:port")
    with warnings.catch_warnings():
        # that it is new is told where it is chosen: docs/cluster.md
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=place.hostname, port=place.port)
    proxy.wait_server_ready(timeout=PROXY_SECONDS)
    return proxy


def without_fork_support() -> None:
    """Lets this process fork after it has used gRPC; to be called before that is imported.

    Its handlers of forks end the child with a failed check. Our forks use no connection of their
    parent's.
    """
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def is_passing(error: BaseException) -> bool:
    """Tells whether an error of a storage may be gone in a moment.

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


def patient(
    storage: optuna.storages.BaseStorage, seconds: float = PATIENCE
) -> optuna.storages.BaseStorage:
    """Returns a storage whose calls are repeated as `patiently` does.

    A call whose answer was lost may have been carried out. Most may be carried out twice; a
    trial that was begun so is nobody's, and the next start of the run queues it again; one that
    was ended so has ended (`search.study.study.tell`).
    """

    def repeated(name: str, *args: Any, **kwargs: Any) -> Any:
        call = partial(getattr(storage, name), *args, **kwargs)
        return patiently(call, "the storage", is_passing, seconds)

    return storage_of(repeated)


def storage_of(call: Callable[..., Any]) -> optuna.storages.BaseStorage:
    """Returns a storage of Optuna's each of whose calls goes through a function.

    Args:
        call: Called with (name of the method, *args, **kwargs).
    """
    from optuna.storages import BaseStorage

    def method(name: str) -> Callable[..., Any]:
        def passed(_: Any, *args: Any, **kwargs: Any) -> Any:
            return call(name, *args, **kwargs)

        return passed

    names = [name for name, _ in inspect.getmembers(BaseStorage, inspect.isfunction)]
    methods = {name: method(name) for name in names if not name.startswith("_")}
    made: optuna.storages.BaseStorage = type("Storage", (BaseStorage,), methods)()
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
        """Waits for the lock."""
        self._held = linux.lock(self._path, wait=True)
        return True

    def release(self) -> None:
        """Gives the lock back."""
        if self._held is not None:
            self._held.release()
            self._held = None
