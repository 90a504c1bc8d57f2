"""Charts of a section, as plotly's figures: the page draws, themes and selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]


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
