"""What a file of mixed precision says of its layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from compress.exporting.mixed.levels import WHOLE
from compress.exporting.mixed.search import Found
from compress.exporting.mixed.units import Unit, file_graph, scope_of
from compress.plan.output import LEVELS, MIXED

SHOWN = 5


@dataclass(frozen=True)
class LayerPrecision:
    """The precision of one layer in a file.

    Attributes:
        layer: Its path in the model.
        precision: "int4" (weights), "int8", "dynamic4" and "dynamic" (the same weights, what
            passes is rounded as it comes), "int16" (what passes; weights have 8 bits), "float16"
            (weights, computed in float32) or "float32".
        alone: By precision: how far the outputs move where this layer alone has it; see
            `compress.measure.quality`.
        floats: Kinds of its operations that are computed in floats although its precision is one
            of whole numbers: LiteRT Quantizer has none for them, or CPUs are slower with them.
    """

    layer: str
    precision: str
    alone: dict[str, float]
    floats: tuple[str, ...] = ()


def layers_of(found: Found) -> tuple[LayerPrecision, ...]:
    """Returns the precision of each layer in the file that was chosen, in the model's order."""
    floats = {
        scope_of(item): item.kind.lower()
        for item in file_graph(found.path).operators
        if not any(tensor.quantized for tensor in item.outputs)
    }
    return tuple(
        LayerPrecision(unit.name, level, dict(found.alone[unit]), _floats(unit, level, floats))
        for unit, level in found.levels.items()
    )


def _floats(unit: Unit, level: str, floats: dict[str, str]) -> tuple[str, ...]:
    if level not in WHOLE:
        return ()
    return tuple(sorted({floats[scope] for scope in unit.scopes if scope in floats}))


def told(layers: Sequence[LayerPrecision], found: Found, examples: int) -> tuple[str, ...]:
    """Returns lines on which layers have which precision, and why.

    Args:
        layers: Of the file.
        found: The file.
        examples: On which losses were measured.
    """
    counts = Counter(item.precision for item in layers)
    each = ", ".join(f"{counts[level]} in {level}" for level in LEVELS if counts[level])
    left = f"{found.loss / found.most:.0%}" if found.most else "none"
    lowest = found.lowest
    lines = [
        f"{MIXED}: of {len(layers)} layers {each}; {left} is left of what the outputs lose where "
        f"all are {lowest} (measured on {examples} training examples)"
    ]
    raised = [item for item in layers if item.precision != lowest]
    raised.sort(key=lambda item: -item.alone.get(lowest, 0.0))
    total = sum(item.alone.get(lowest, 0.0) for item in layers)
    for item in raised[:SHOWN]:
        share = item.alone.get(lowest, 0.0) / total if total else 0.0
        lines.append(
            f"{MIXED}: '{item.layer}' is {item.precision}: {lowest} there makes {share:.0%} of "
            "what layers lose one by one"
        )
    if len(raised) > SHOWN:
        lines.append(f"{MIXED}: {len(raised) - SHOWN} more layers are not {lowest}")
    kinds = sorted({kind for item in layers for kind in item.floats})
    if kinds:
        lines.append(
            f"{MIXED}: {', '.join(kinds)} stay in floats: LiteRT Quantizer has no whole numbers "
            "for them, or CPUs are slower with them (products of activations, statistics)"
        )
    return (*lines, *found.notes)
