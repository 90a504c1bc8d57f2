"""Where studies are kept: a run's journal, or any storage of Optuna's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core import credentials
from compress.core.errors import InputError
from compress.core.platform import Lock, host
from search.folder.directory import SearchFolder

if TYPE_CHECKING:
    import optuna


def study_name(folder: SearchFolder, url: str) -> str:
    """Returns the study's name; in a shared storage the folder's place makes it unique."""
    if not url:
        return "paretune"
    place = str(folder.path.resolve()).encode()
    return f"paretune-{folder.path.name}-{hashlib.sha256(place).hexdigest()[:8]}"


def open_storage(where: str | Path, option: str) -> optuna.storages.BaseStorage:
    """Opens what studies are kept in.

    Args:
        where: A URL, as plans hold it without its password, or the path of a run's journal.
        option: Who asked for it, for errors.

    Raises:
        InputError: The URL is malformed or cannot be reached, or the journal is damaged.
    """
    import optuna
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
        return optuna.storages.get_storage(url)
    except Exception as error:  # SQLAlchemy and the drivers have many kinds of errors
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{option} must be a URL that Optuna can open. Received: '{where}' "
            f"({credentials.hidden(reason, url)})."
        ) from None


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
        self._held = host().lock(self._path, wait=True)
        return True

    def release(self) -> None:
        """Gives the lock back."""
        if self._held is not None:
            self._held.release()
            self._held = None
