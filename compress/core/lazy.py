"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from compress.core.registry import loaded


def lazily(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns a package's `__getattr__`: importing the package then imports nothing else.

    Args:
        package: Its name.
        places: Public name -> "package.module:object".

    Returns:
        A function that imports what a name stands for and keeps it in the package, so that it
        is asked once a name.

    Example:
        >>> found = lazily("collections", {"Part": "fractions:Fraction"})
        >>> found("Part")(1, 2)  # and now it is collections.Part
        Fraction(1, 2)
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = loaded(places[name])
        setattr(sys.modules[package], name, value)
        return value

    return find
