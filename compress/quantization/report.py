"""What became of a model's layers: computed in whole numbers, or in floats and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from compress.quantization.building import Placed


def told(placed: Sequence[Placed]) -> str:
    """Returns one line: how many calls are computed in whole numbers."""
    floats = [call for call in placed if call.reason]
    if not floats:
        return f"all {len(placed)} calls are computed in whole numbers"
    return f"{len(placed) - len(floats)} of {len(placed)} calls are computed in whole numbers"


def in_floats(placed: Sequence[Placed]) -> tuple[tuple[str, str, str], ...]:
    """Returns (layer, class, reason) of what is computed in floats."""
    return tuple((call.layer, call.kind, call.reason) for call in placed if call.reason)


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


def kinds(placed: Sequence[Placed]) -> Counter[str]:
    """Counts the classes that are computed in whole numbers."""
    return Counter(call.kind for call in placed if not call.reason)
