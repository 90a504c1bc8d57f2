"""A storage that waits for its database: one that restarts loses nothing of a run.

Servers restart, connections break, transactions of many workers meet. What Optuna does not try
again is tried again here, for some minutes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from compress.core.faults import PATIENCE, fault_of, patiently
from search.study.delegating import storage_class

if TYPE_CHECKING:
    import optuna

_PASSING = ("OperationalError", "InterfaceError", "StorageInternalError", "TimeoutError")
_GRPC_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED")
_LASTING = ("password", "authentication", "permission denied", "no such table", "does not exist")


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
    made: optuna.storages.BaseStorage = _kind()(storage, seconds)
    return made


@cache
def _kind() -> Any:
    """Returns the class: Optuna is imported when it is needed."""

    def made(self: Any, storage: Any, seconds: float) -> None:
        self._inner, self._seconds = storage, seconds

    def repeated(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:

        def call() -> Any:
            return getattr(self._inner, name)(*args, **kwargs)

        return patiently(call, "the storage", is_passing, self._seconds)

    return storage_class("PatientStorage", made, repeated)
