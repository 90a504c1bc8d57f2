"""A storage in which readings that wait for each other become one.

A proxy with many workers is busy with reading the trials of a study, which is asked for several
times a trial. While one reading is under way all that are asked for wait, and are answered by the
next one together: each still begins after it was asked for, so nobody sees less than before. The
next one begins when as much time has passed as the last one took (`LONGEST` at most): readings
take half of the time, however many ask for them, and writing has the other half.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from search.study.delegating import storage_class

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")
READING = "get_all_trials"
LONGEST = 0.5
"""Seconds between two readings at most: the first one of a long study takes many."""


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


def sharing(
    storage: optuna.storages.BaseStorage, read_by: optuna.storages.BaseStorage | None = None
) -> optuna.storages.BaseStorage:
    """Returns a storage whose readings of a study's trials are shared by threads that wait.

    Only those that ask for no copies: what is shared is not to be changed.

    Args:
        storage: What is written to, and read for everything else.
        read_by: The same, opened once more; default: `storage`.
    """
    made: optuna.storages.BaseStorage = _kind()(storage, read_by or storage)
    return made


@cache
def _kind() -> Any:
    """Returns the class: Optuna is imported when it is needed."""

    def made(self: Any, storage: Any, read_by: Any) -> None:
        self._inner, self._read_by, self._readings = storage, read_by, {}

    def call(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        whole = kwargs.get("states") is None and not kwargs.get("deepcopy", True)
        if name != READING or not whole or len(args) != 1:
            return getattr(self._inner, name)(*args, **kwargs)
        if args not in self._readings:
            reading = Together(lambda: self._read_by.get_all_trials(*args, deepcopy=False))
            self._readings.setdefault(args, reading)
        return self._readings[args]()

    return storage_class("SharingStorage", made, call)
