"""`package.module:function`: the user's own code that returns a Dataset."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from compress.errors import InputError


def resolve(target: str) -> Callable[..., Any]:
    """Imports `package.module:function` and returns the function.

    Raises:
        InputError: The module cannot be imported or has no such callable.
    """
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"'{target}' must name an importable module ({error}). Run from the folder that "
            "holds it, or install it."
        ) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"'{target}' must name a function of '{module_name}'. Received: {name!r}.")
    found: Callable[..., Any] = function
    return found
