"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, float], None]
"""Called with (what is done, share of it in [0, 1])."""


def silent(text: str, share: float) -> None:
    """Ignores progress."""
