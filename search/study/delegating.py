"""Storages that stand before another one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def storage_class(name: str, made: Callable[..., None], call: Callable[..., Any]) -> Any:
    """Returns a class of storages of Optuna's, each of whose calls goes through a function.

    Optuna is imported when this is called.

    Args:
        name: Of the class.
        made: Its constructor.
        call: Called with (self, name of the method, *args, **kwargs).
    """
    from optuna.storages import BaseStorage

    def method(name: str) -> Callable[..., Any]:
        def passed(self: Any, *args: Any, **kwargs: Any) -> Any:
            return call(self, name, *args, **kwargs)

        return passed

    names = [name for name, _ in inspect.getmembers(BaseStorage, inspect.isfunction)]
    methods = {name: method(name) for name in names if not name.startswith("_")}
    return type(name, (BaseStorage,), {"__init__": made, **methods})
