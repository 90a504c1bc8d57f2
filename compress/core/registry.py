"""Name -> plug-in tables: the one way in which paretune finds a thing by its name.

A table holds places ("package.module:object"), not objects: names and the packages that they
need are known without importing what they stand for. Packages find their public names so too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from compress.core.errors import InputError, removed_name, unknown_name
from compress.core.interpreter import require_packages, resolve

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One line of a table.

    Attributes:
        place: "package.module:object"; or the object itself, where it was registered in Python.
        packages: Optional packages that it needs, as they are imported.
    """

    place: Any
    packages: tuple[str, ...] = ()


class Registry(Generic[T]):
    """Holds the plug-ins of one kind under the names that users type.

    A name that is no member may be a place itself, `package.module:object`, in the user's own
    code: it is taken as it is.

    Args:
        kind: What a member is, as the user knows it ("sampler"); used in errors.
        table: Names and places.
        removed: Name of an earlier version -> a sentence that says what to use instead.

    Example:
        >>> table = Registry("colour", {"red": "colorsys:rgb_to_hsv"})
        >>> table.names()
        ('red',)
        >>> table["red"](1.0, 0.0, 0.0)
        (0.0, 1.0, 1.0)
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, str | Entry] | None = None,
        removed: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self._removed = removed or {}
        self._entries: dict[str, Entry] = {
            name: entry if isinstance(entry, Entry) else Entry(entry)
            for name, entry in (table or {}).items()
        }

    def add(self, name: str, member: T | str, *, packages: tuple[str, ...] = ()) -> None:
        """Register `member`, or the place of one, under `name`.

        Args:
            name: As users type it; without a colon.
            member: The plug-in, or "package.module:object".
            packages: Optional packages that it needs.

        Raises:
            ValueError: The name is taken by another member, or has a colon.
        """
        if ":" in name:
            raise ValueError(f"{self.kind} '{name}' must have a name without a colon.")
        known = self._entries.get(name)
        if known is not None and known.place is not member and known.place != member:
            raise ValueError(f"{self.kind} '{name}' is already registered.")
        self._entries[name] = Entry(member, packages)

    def remove(self, name: str) -> None:
        """Take a member off, so that another can be registered under its name."""
        self._entries.pop(name, None)

    def __getitem__(self, name: str) -> T:
        """Return the member called `name`.

        Raises:
            InputError: No member has this name; the message lists the choices.
        """
        if name not in self._entries:
            if is_place(name):
                return cast("T", resolve(name, self._title))
            raise self._build_unknown_error(name)
        place = self._entries[name].place
        return cast("T", loaded(place) if isinstance(place, str) else place)

    def __contains__(self, name: object) -> bool:
        """Return whether a name is registered."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Go through the names in the order of registration."""
        return iter(self._entries)

    def names(self) -> tuple[str, ...]:
        """Return all names in the order of registration."""
        return tuple(self._entries)

    def require(self, name: str, choices: tuple[str, ...] = ()) -> None:
        """Check a name without importing what it stands for.

        Args:
            name: A registered name, one of `choices`, or a place.
            choices: Words beside the names that are valid here ("none").

        Raises:
            InputError: It is none of them.
        """
        if name not in self._entries and name not in choices and not is_place(name):
            raise self._build_unknown_error(name, choices)

    def require_installed(self, name: str) -> None:
        """Check that the packages which a member needs are installed.

        Raises:
            MissingDependency: One is not; the message ends in the install line.
        """
        if name in self._entries:
            require_packages(self._entries[name].packages, f"{self._title} '{name}'")

    @property
    def _title(self) -> str:
        """The kind as a sentence begins with it."""
        return self.kind[:1].upper() + self.kind[1:]

    def _build_unknown_error(self, name: str, choices: tuple[str, ...] = ()) -> InputError:
        if name in self._removed:
            return removed_name(self.kind, name, self._removed[name])
        return unknown_name(self.kind, name, (*self._entries, *choices))


def is_place(name: str) -> bool:
    """Return whether a name is a place: "package.module:object"."""
    module, _, item = name.partition(":")
    return bool(module) and item.isidentifier() and all(map(str.isidentifier, module.split(".")))


def loaded(place: str) -> Any:
    """Import what a table of ours names: "package.module:object"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def lazily(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`: importing the package then imports nothing else.

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
