"""Cells of the page's tables that hold more than a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A text with something small below it or beside it: tables stay narrow enough so.

    Attributes:
        text: The figure.
        below: On a line of its own.
        beside: On the same line.
    """

    text: str
    below: str = ""
    beside: str = ""


def two_lines(text: str) -> Cell:
    """Returns "1.5 ms [1.4, 1.6]" with the interval under its value."""
    value, bracket, interval = text.partition(" [")
    return Cell(value, f"[{interval}" if bracket else "")
