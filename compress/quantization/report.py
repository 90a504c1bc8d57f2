"""What became of a model's layers: computed in whole numbers, or in floats and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.quantization.building import Placed
from compress.run.compressed import LayerRow

if TYPE_CHECKING:
    from compress.quantization.errors import LayerError

WORST = 5
"""Layers that a screen names."""


def told(placed: Sequence[Placed]) -> str:
    """Returns one line: how many calls are computed in whole numbers."""
    whole = sum(not call.reason for call in placed)
    share = "all" if whole == len(placed) else f"{whole} of"
    return f"{share} {len(placed)} calls are computed in whole numbers"


def reasons(placed: Sequence[Placed]) -> tuple[str, ...]:
    """Returns a line a reason: "2 x LayerNormalization (norm_1, norm_2): it normalizes by ..."."""
    found: dict[tuple[str, str], list[str]] = {}
    for call in placed:
        if call.reason:
            found.setdefault((call.kind, call.reason), []).append(call.layer)
    lines = []
    for (kind, reason), layers in found.items():
        names = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
        lines.append(f"in floats: {len(layers)} x {kind} ({names}): {reason}")
    return tuple(lines)


def rows(placed: Sequence[Placed], errors: Sequence[LayerError]) -> tuple[LayerRow, ...]:
    """Returns what a record holds of each layer: what rounding costs behind it, or why it has none.

    Args:
        placed: How calls are computed.
        errors: Of the layers in whole numbers.
    """
    whole: list[LayerRow] = [
        {
            "layer": error.layer,
            "precision": "int8",
            "losses": {"by its own rounding": error.own, "by all before it, too": error.total},
            "why": "",
        }
        for error in errors
    ]
    floats: list[LayerRow] = [
        {"layer": call.layer, "precision": "float32", "losses": {}, "why": call.reason}
        for call in placed if call.reason
    ]  # fmt: skip
    return (*whole, *floats)


def worst(errors: Sequence[LayerError]) -> tuple[tuple[str, str, str], ...]:
    """Returns the layers behind which most is lost by their own rounding, as cells."""
    found = sorted(errors, key=lambda error: -error.own)[:WORST]
    return tuple((error.layer, f"{error.own:.2%}", f"{error.total:.2%}") for error in found)
