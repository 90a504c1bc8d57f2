"""The goal's part of a report: what was asked for, what came of it, which file to ship."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from compress.measure.verdict import Outcome
from compress.report.sections import Section, Tile


class GoalSection(Section):
    """What a goal adds to a report.

    Args:
        outcome: What came of it.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.shipped, self.shipped_file = outcome.chosen, outcome.file
        self.verdict = outcome.verdict

    def to_json(self) -> dict[str, Any]:
        """See `Section.to_json`."""
        return {"goal": self._outcome.to_json()}

    def tables(self) -> list[RenderableType]:
        """See `Section.tables`."""
        from compress.report.terminal import said

        return [said(text) for text in (self._outcome.title, *self._outcome.lines)]

    def tiles(self) -> list[Tile]:
        """See `Section.tiles`."""
        found = self._outcome
        head = found.title.partition(":")[0]
        return [Tile(head[:1].upper() + head[1:], f"{'; '.join(found.lines)}. Ship {found.file}")]
