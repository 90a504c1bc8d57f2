"""What became of a model's layers: in whole numbers, what that costs, or in floats and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.activations import examples_at_once
from compress.model.program import Node
from compress.model.recording import record
from compress.quantization.ranges import FakeQuant
from compress.quantization.values import Placed
from compress.reconstruction.values import Chunks, Store, make_in_chunks
from compress.run.compressed import LayerRow

if TYPE_CHECKING:
    from compress.quantization.twin import Twin

WORST = 5
"""Layers that a screen names."""
EXAMPLES = 64
Three = tuple[Chunks, Chunks, Chunks]


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


@dataclass(frozen=True)
class LayerError:
    """What rounding did to the values behind a layer.

    Attributes:
        layer: Its name.
        own: Squared error of its own rounding (kernel, bias and values), where it is fed floats;
            over the squares of the values about their mean.
        total: The same with all rounding before it.
    """

    layer: str
    own: float
    total: float


def layer_errors(twin: Twin, inputs: Sequence[npt.NDArray[Any]]) -> tuple[LayerError, ...]:
    """Returns what rounding costs behind each layer, in the model's order.

    The calls are gone through once, with three values side by side: in floats, in whole numbers,
    and in whole numbers from floats.

    Args:
        twin: Its ranges are set.
        inputs: Of the model (n, ...), one array an input, in its order; 64 are looked at.
    """
    found: list[LayerError] = []
    store = Store()
    make = partial(make_in_chunks, store=store)

    def thrice(node: Node, values: list[Three]) -> list[Three]:
        with twin.state.in_floats():
            plain = make(node, [value[0] for value in values])
        whole = make(node, [value[1] for value in values])
        own = make(node, [value[2] for value in values])
        layer = node.operation
        if isinstance(layer, FakeQuant):
            if layer.rounds:
                errors = (_rounding_error(side[0], plain[0]) for side in (own, whole))
                found.append(LayerError(layer.name.removesuffix("_range"), *errors))
            own = plain  # what comes next begins anew
        return list(zip(plain, whole, own, strict=True))

    program = record(twin.served)
    size = examples_at_once(program, EXAMPLES, copies=3)
    given = [in_chunks(part[:EXAMPLES], size, store) for part in inputs]
    try:
        program.interpret(thrice, [(part, part, part) for part in given])
    finally:
        store.close()
    return tuple(found)


def in_chunks(x: npt.NDArray[Any], size: int, store: Store) -> Chunks:
    """Return examples as tensors of some each."""
    import tensorflow as tf

    starts = range(0, len(x), size)
    return [store.keep(tf.convert_to_tensor(x[start : start + size])) for start in starts]


def _rounding_error(made: Chunks, wanted: Chunks) -> float:
    targets = [np.asarray(value.array, np.float64) for value in wanted]
    mean = sum(target.sum() for target in targets) / sum(target.size for target in targets)
    spread = sum(float(np.square(target - mean).sum()) for target in targets)
    error = sum(
        float(np.square(np.asarray(value.array, np.float64) - target).sum())
        for value, target in zip(made, targets, strict=True)
    )
    return error / (spread or 1.0)
