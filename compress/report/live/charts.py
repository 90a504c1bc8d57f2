"""Charts and points of the page: plotly draws them, the page themes and selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]
QUALITY, COST, OTHER = "quality", "cost", "other"


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        id: Different for each chart of a page.
        title: Above it.
        caption: Below it.
        traces: plotly's, of the kinds that its basic bundle knows (scatter, bar). `meta` of a
            trace names the model that it shows ("model"), or its points ("points", "models"): a
            click selects that, and what is selected stands out.
        layout: plotly's; colours and fonts are the page's.
        wide: Over the whole width of the page.
        model: Of one model alone: it is shown with that model's card; "": of all.
        variants: Ways to colour the marks, of which one is chosen: "name", and "colours" by the
            place of a trace.
    """

    id: str
    title: str
    caption: str
    traces: Sequence[Trace]
    layout: dict[str, Any] = field(default_factory=dict)
    wide: bool = False
    model: str = ""
    variants: Sequence[dict[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns it as the page reads it."""
        return {
            "id": self.id,
            "title": self.title,
            "caption": self.caption,
            "traces": list(self.traces),
            "layout": self.layout,
            "wide": self.wide,
            "model": self.model,
            "variants": list(self.variants),
        }


def line(x: Sequence[Any], y: Sequence[Any], name: str, **more: Any) -> Trace:
    """Returns a line.

    Args:
        x, y: Its points.
        name: Of what it shows.
        **more: Further keys of the trace.
    """
    return {"type": "scatter", "mode": "lines", "x": [*x], "y": [*y], "name": name, **more}


@dataclass(frozen=True)
class Axis:
    """One figure that points have.

    Attributes:
        key: In rows.
        title: Heading.
        role: "quality" (the higher the better), "cost" (the lower the better), "other".
        how: What it is, in a sentence, and whether it is measured or counted.
        tick: How plotly writes its values ("~s", ".1%"); "": it is a text, and no axis.
        unit: Behind them.
        low, high: Keys of the ends of its interval; "": it has none.
        shown: Whether the table begins with it.
        drawn: Whether it can be an axis.
    """

    key: str
    title: str
    role: str
    how: str
    tick: str = ""
    unit: str = ""
    low: str = ""
    high: str = ""
    shown: bool = True
    drawn: bool = True


@dataclass(frozen=True)
class Points:
    """A set of points.

    Attributes:
        id: Different for each set of a page.
        title: Above it.
        lead: What there is to say of all of them, in sentences.
        axes: Figures, in the order of the table's columns.
        rows: One point each: "id", "model" (which it is, or is made of), "group" (points of one
            have one mark), "counts" (whether fronts may hold it), "tags" (what it stands out by),
            "values" (numbers or null by key) and "texts" (what cells show).
        x, y: Keys of the axes that are drawn first.
        groups: Mark of each group: (colour, plotly's symbol).
        noun: What a point is: "file".
    """

    id: str
    title: str
    lead: str
    axes: Sequence[Axis]
    rows: Sequence[dict[str, Any]]
    x: str
    y: str
    groups: dict[str, tuple[str, str]] = field(default_factory=dict)
    noun: str = "file"

    def to_json(self) -> dict[str, Any]:
        """Returns it as the page reads it."""
        return {
            "id": self.id,
            "title": self.title,
            "lead": self.lead,
            "axes": [vars(axis) for axis in self.axes],
            "rows": list(self.rows),
            "x": self.x,
            "y": self.y,
            "groups": {name: list(mark) for name, mark in self.groups.items()},
            "noun": self.noun,
        }
