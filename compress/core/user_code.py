"""`package.module:object`: the user's own code, found by name."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from compress.core.errors import InputError
from compress.core.interpreter import add_current_folder


def resolve(target: str, what: str = "") -> Callable[..., Any]:
    """Imports `package.module:function` and returns the function.

    A module that is not installed is looked for in the current folder.

    Args:
        target: As the user typed it.
        what: The kind of thing it stands for, for the error ("Space").

    Raises:
        InputError: The module cannot be imported or has no such callable.
    """
    module_name, _, name = target.partition(":")
    shown = f"{what} '{target}'" if what else f"'{target}'"
    if not module_name or not name:
        raise InputError(f"{shown} must be package.module:function. Received: '{target}'.")
    function = getattr(_imported(module_name, shown), name, None)
    if not callable(function):
        received = "no such name" if function is None else type(function).__name__
        raise InputError(
            f"{shown} must name a function of '{module_name}'. Received: '{name}' ({received})."
        )
    found: Callable[..., Any] = function
    return found


def import_plugins(names: Iterable[str]) -> None:
    """Imports modules of the user's, which register plug-ins under names of their own.

    Args:
        names: Dotted names; found as `resolve` finds them.

    Raises:
        InputError: One is no module's name, or cannot be imported.
    """
    for name in names:
        if not all(map(str.isidentifier, name.split("."))):
            raise InputError(
                f"plugins must be names of modules, like mine or package.mine. Received: '{name}'."
            )
        _imported(name, f"Plug-in '{name}'")


def _imported(name: str, shown: str) -> ModuleType:
    """Imports a module of the user's; one that is not installed lies in the current folder.

    Args:
        name: Dotted.
        shown: What errors call it.
    """
    add_current_folder()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{shown} must name an importable module ({error}). Run from the folder that "
            "holds it, or install it."
        ) from None
    except (Exception, SystemExit) as error:
        # the module is the user's: whatever it raises is an error in their file
        raise InputError(
            f"{shown} must name an importable module ({told(error)}). "
            f"Make `python -c 'import {name}'` work first."
        ) from error


def told(error: BaseException) -> str:
    """Returns an error's kind, text and place: where the user's own code has to be mended."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
