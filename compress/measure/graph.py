"""A model as a graph of costed calls: what a picture of it, or another tool, needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.measure.counting import counted_steps
from compress.run.exports import CallNode

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class _Made:
    place: int


def graph_of(model: keras.Model | str | Path, input_shape: Any = None) -> tuple[CallNode, ...]:
    """Returns the calls of a model, each with its costs and the calls that it reads.

    Args:
        model, input_shape: See `count_macs`.

    Raises:
        InputError: The model is no graph and cannot be traced, or `input_shape` does not fit.

    Example:
        >>> nodes = graph_of(folder / "model.keras")
        >>> [(node.kind, node.sources) for node in nodes][:2]
        [('Dense', ()), ('Dense', (0,))]
    """
    maker: dict[int, int] = {}
    found = []
    held = []  # tensors live as long as their identities are asked for
    for place, (step, cost) in enumerate(counted_steps(model, input_shape)):
        sources = dict.fromkeys(maker[id(tensor)] for tensor in step.inputs if id(tensor) in maker)
        maker.update((id(tensor), place) for tensor in step.outputs)
        held.append(step)
        found.append(
            CallNode(
                cost.name, cost.kind, tuple(cost.output_shape), cost.macs, cost.params,
                tuple(sources), cost.reason,
            )
        )  # fmt: skip
    return tuple(found)
