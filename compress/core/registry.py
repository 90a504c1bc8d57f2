"""Registries of plug-ins by name.

A table holds references ("package.module:object") instead of objects, so that names and required
packages are known without importing the objects. Packages also use references for their public
names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from compress.core.errors import InputError, build_removed_name_error, build_unknown_name_error
from compress.core.module_loading import import_function, require_packages

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Entry of a registry.

    Attributes:
        reference: "package.module:object", or the object itself if it was registered in Python.
        packages: Import names of the optional packages that it needs.
    """

    reference: Any
    packages: tuple[str, ...] = ()


class Registry(Generic[T]):
    """Plug-ins of one kind, by the names that users type.

    A name may also be a reference to the user's code, `package.module:object`, which is imported.

    Args:
        kind: The kind of plug-in, in the user's terms ("sampler"); used in errors.
        table: References by name.
        removed: Sentences on the replacement, by removed name of an earlier version.

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
        """Register `member`, or a reference to it, under `name`.

        Args:
            name: The name, without a colon.
            member: The plug-in, or "package.module:object".
            packages: Optional packages that it needs.

        Raises:
            ValueError: The name belongs to another member, or contains a colon.
        """
        if ":" in name:
            raise ValueError(f"{self.kind} '{name}' must have a name without a colon.")
        entry = self._entries.get(name)
        if entry is not None and entry.reference is not member and entry.reference != member:
            raise ValueError(f"{self.kind} '{name}' is already registered.")
        self._entries[name] = Entry(member, packages)

    def remove(self, name: str) -> None:
        """Remove a member, so that another can be registered under its name."""
        self._entries.pop(name, None)

    def __getitem__(self, name: str) -> T:
        """Return the member with a name.

        Raises:
            InputError: No member has this name; the message lists the choices.
        """
        if name not in self._entries:
            if is_reference(name):
                return cast("T", import_function(name, self._title))
            raise self._build_unknown_error(name)
        reference = self._entries[name].reference
        return cast("T", load_reference(reference) if isinstance(reference, str) else reference)

    def __contains__(self, name: object) -> bool:
        """Return whether a name is registered."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order of registration."""
        return iter(self._entries)

    def names(self) -> tuple[str, ...]:
        """Return all names in the order of registration."""
        return tuple(self._entries)

    def require(self, name: str, choices: tuple[str, ...] = ()) -> None:
        """Check a name without importing its member.

        Args:
            name: A registered name, one of `choices`, or a reference.
            choices: Further valid names ("none").

        Raises:
            InputError: The name is none of them.
        """
        if name not in self._entries and name not in choices and not is_reference(name):
            raise self._build_unknown_error(name, choices)

    def require_installed(self, name: str) -> None:
        """Check that the packages of a member are installed.

        Raises:
            MissingDependency: A package is not installed; the message ends with the install
                command.
        """
        if name in self._entries:
            require_packages(self._entries[name].packages, f"{self._title} '{name}'")

    @property
    def _title(self) -> str:
        """Kind with a capital letter, for the start of a sentence."""
        return self.kind[:1].upper() + self.kind[1:]

    def _build_unknown_error(self, name: str, choices: tuple[str, ...] = ()) -> InputError:
        if name in self._removed:
            return build_removed_name_error(self.kind, name, self._removed[name])
        return build_unknown_name_error(self.kind, name, (*self._entries, *choices))


def is_reference(name: str) -> bool:
    """Return whether a name is a reference: "package.module:object"."""
    module, _, item = name.partition(":")
    return bool(module) and item.isidentifier() and all(map(str.isidentifier, module.split(".")))


def load_reference(reference: str) -> Any:
    """Import and return the object of a reference: "package.module:object"."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def build_lazy_getattr(package: str, references: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a package that imports its public names at first use.

    Args:
        package: Name of the package.
        references: "package.module:object" by public name.

    Returns:
        A function that imports the object of a name and stores it in the package, so that each
        name is looked up once. TensorFlow's messages about itself are suppressed from then on,
        unless it is imported already.

    Example:
        >>> load_attribute = build_lazy_getattr("collections", {"Part": "fractions:Fraction"})
        >>> load_attribute("Part")(1, 2)  # and now it is collections.Part
        Fraction(1, 2)
    """

    def load_attribute(name: str) -> Any:
        if name not in references:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        from compress.core.native_output import silence_tensorflow_import

        silence_tensorflow_import()
        value = load_reference(references[name])
        setattr(sys.modules[package], name, value)
        return value

    return load_attribute


def build_renamed_getattr(renamed: Mapping[str, str]) -> Callable[[Any, str], Any]:
    """Return a `__getattr__` for a class that names the successors of renamed members.

    Args:
        renamed: Present name by former name.

    Example:
        >>> class Report:
        ...     __getattr__ = build_renamed_getattr({"told": "summarize"})
        >>> Report().told
        Traceback (most recent call last):
        AttributeError: 'Report' object has no attribute 'told'. It is called 'summarize' now.
    """

    def refuse_attribute(self: Any, name: str) -> Any:
        hint = f". It is called '{renamed[name]}' now." if name in renamed else ""
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'{hint}")

    return refuse_attribute
