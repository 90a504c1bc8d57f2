"""Who shows how far a run is."""

from __future__ import annotations

from typing import Protocol


class Display(Protocol):
    """Shows how far a run is."""

    def phase(self, title: str, done: int, total: int) -> None:
        """Begins a phase of `total` jobs, `done` of which are finished."""
        ...

    def advance(self, done: int, total: int) -> None:
        """Says how many jobs of the phase are finished."""
        ...

    def worker(self, index: int, text: str, share: float) -> None:
        """Says what a worker does and how far it is, in [0, 1]; empty text: idle."""
        ...


class NoDisplay:
    """Shows nothing."""

    def phase(self, title: str, done: int, total: int) -> None:
        """Ignores it."""

    def advance(self, done: int, total: int) -> None:
        """Ignores it."""

    def worker(self, index: int, text: str, share: float) -> None:
        """Ignores it."""
