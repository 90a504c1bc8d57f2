"""Name -> plug-in tables: the one way in which paretune finds a thing by its name."""

from __future__ import annotations

from typing import Generic, TypeVar

from compress.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Holds the plug-ins of one kind under the names that users type.

    Args:
        kind: What a member is, as the user knows it ("sampler"); used in errors.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._members: dict[str, T] = {}

    def add(self, name: str, member: T) -> T:
        """Registers `member` under `name`.

        Raises:
            ValueError: The name is taken by another member.
        """
        if self._members.get(name, member) is not member:
            raise ValueError(f"{self.kind} '{name}' is already registered.")
        self._members[name] = member
        return member

    def __getitem__(self, name: str) -> T:
        """Returns the member called `name`.

        Raises:
            InputError: No member has this name; the message lists the choices.
        """
        if name not in self._members:
            raise unknown_name(self.kind, name, self._members)
        return self._members[name]

    def names(self) -> tuple[str, ...]:
        """Returns all names in the order of registration."""
        return tuple(self._members)
