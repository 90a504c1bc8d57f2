"""The page's tables of how layers are computed in a file, and what that loses."""

from __future__ import annotations

from typing import Any

from compress.plan.output import MIXED
from compress.run.compressed import Artifact


def precisions(item: Artifact) -> dict[str, Any]:
    """Returns the table of one file: a row a layer, in the model's order.

    Args:
        item: With layers.
    """
    columns = tuple(dict.fromkeys(name for row in item.layers for name in row["losses"]))
    sums = {name: sum(row["losses"].get(name, 0.0) for row in item.layers) for name in columns}
    why = any(row["why"] for row in item.layers)
    rows = []
    for row in item.layers:
        cells = [row["layer"], row["precision"]]
        for name in columns:
            loss = row["losses"].get(name)
            share = f" ({loss / sums[name]:.0%})" if loss is not None and sums[name] else ""
            cells.append("-" if loss is None else f"{loss:.2g}{share}")
        rows.append([*cells, row["why"]] if why else cells)
    about = (
        "How far the outputs move where the layer alone has that precision, measured on training "
        "examples: the divergence of class probabilities, or the squared error by the spread; in "
        "brackets its share of the column."
        if item.format == MIXED
        else "Squared error of the values behind the layer by their spread, measured on 64 "
        "training examples; in brackets its share of the column."
    )
    return {
        "title": f"Precision of layers: {item.id}",
        "about": about,
        "heads": ["layer", "precision", *columns, *(["why"] if why else [])],
        "wrapped": (2 + len(columns),),
        "rows": rows,
    }
