"""What came of a goal, as `shrink` writes it and reports show it."""

from __future__ import annotations

from dataclasses import dataclass

from compress.run.records import Record


@dataclass(frozen=True)
class Outcome(Record):
    """What came of a goal.

    Attributes:
        goal: What was asked for.
        met: Whether it was met.
        chosen: Id of the file that is shipped.
        lines: What was asked for and what came of it, one a goal.
        file: The file to use, in the run's folder.
        notes: What there is to know.
    """

    goal: str
    met: bool
    chosen: str
    lines: tuple[str, ...]
    file: str
    notes: tuple[str, ...] = ()

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return "" if self.lines else "lines must say what came of the goal; received: none"

    @property
    def title(self) -> str:
        """The goal, and whether it was met."""
        return f"{'goal met' if self.met else 'GOAL MISSED'}: {self.goal}"
