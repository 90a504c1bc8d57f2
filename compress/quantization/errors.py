"""What rounding costs, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.program import Node
from compress.model.recording import record
from compress.quantization.correction import made_by
from compress.quantization.layers.ranges import FakeQuant

if TYPE_CHECKING:
    from compress.quantization.twin import Twin

EXAMPLES = 64


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
    import tensorflow as tf

    found: list[LayerError] = []

    def thrice(node: Node, values: list[tuple[Any, Any, Any]]) -> list[tuple[Any, Any, Any]]:
        with twin.state.in_floats():
            plain = made_by(node, [value[0] for value in values])
        whole = made_by(node, [value[1] for value in values])
        own = made_by(node, [value[2] for value in values])
        layer = node.operation
        if isinstance(layer, FakeQuant):
            if layer.rounds:
                errors = (_error(side[0], plain[0]) for side in (own, whole))
                found.append(LayerError(layer.name.removesuffix("_range"), *errors))
            own = plain  # what comes next begins anew
        return list(zip(plain, whole, own, strict=True))

    given = [tf.convert_to_tensor(part[:EXAMPLES]) for part in inputs]
    record(twin.served).interpret(thrice, [(part, part, part) for part in given])
    return tuple(found)


def _error(made: Any, wanted: Any) -> float:
    target = np.asarray(wanted, np.float64)
    spread = float(np.square(target - target.mean()).sum())
    return float(np.square(np.asarray(made, np.float64) - target).sum()) / (spread or 1.0)
