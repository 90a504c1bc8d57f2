"""One call of a layer as a rule of equalization sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.model.program import Node
from compress.model.rule_table import RuleTable
from compress.quantization.equalizing.channels import Channels, Ids

HOMOGENEOUS = ("linear", "relu", "leaky_relu")
"""Activations f with f(s x) = s f(x) for every s > 0."""
FIRST = "their axis is not the last"


@dataclass(eq=False)
class Call:
    """A call and the channels of its inputs, on their last axes.

    Attributes:
        node: In the model's program.
        inputs: One id a channel, input by input.
        channels: Of the whole model.
    """

    node: Node
    inputs: list[Ids]
    channels: Channels

    @property
    def layer(self) -> Any:
        """The layer or operation."""
        return self.node.operation

    def input_of(self, tensor: Any) -> int | None:
        """Returns the place of a tensor among the inputs."""
        places = [at for at, given in enumerate(self.node.inputs) if given is tensor]
        return places[0] if places else None

    def reads(self, variable: Any, ids: Ids, place: int = 0, *, shared: bool = True) -> None:
        """Says which channels a kernel reads, and of which input."""
        self.channels.weight(variable, ids, made=False, shared=shared)
        given = (place, self.inputs[place])
        known = self.channels.reads.setdefault(id(self.node), [])
        if not any(at == place for at, _ in known):
            known.append(given)

    def makes(self, variable: Any, ids: Ids) -> None:
        """Says which channels a weight makes."""
        self.channels.weight(variable, ids, made=True)

    def fixed(self, reason: str) -> list[Ids]:
        """Leaves the channels of all inputs and outputs as they are, and the layer's weights."""
        text = f"'{self.node.name}' ({type(self.layer).__name__}): {reason}"
        for ids in self.inputs:
            self.channels.pin(ids, text)
        self.channels.hold(getattr(self.layer, "weights", ()))
        made = [self.channels.new(width(tensor)) for tensor in self.node.outputs]
        for ids in made:
            self.channels.pin(ids, text)
        return made

    def activated(self, ids: Ids, activation: Any) -> Ids | list[Ids]:
        """Returns the channels behind a layer's activation."""
        name = getattr(activation, "__name__", type(activation).__name__)
        if activation is None or name in HOMOGENEOUS:
            return ids
        reason = f"'{self.node.name}': {name}(s x) is not s {name}(x)"
        self.channels.pin(ids, reason)
        made = self.channels.new(len(ids))
        self.channels.pin(made, reason)
        return made


def width(tensor: Any) -> int:
    """Returns the size of a tensor's last axis; one that is open or missing counts as one."""
    return int(tensor.shape[-1] or 1) if len(tensor.shape) > 1 else 1


def last(axis: int | Sequence[int], rank: int) -> bool:
    """Tells whether an axis is the last one."""
    axes = [axis] if isinstance(axis, int) else list(axis)
    return [each % rank for each in axes] == [rank - 1]


TABLE: RuleTable[Any] = RuleTable()
"""`rule(call) -> Ids`, or a list of them for several outputs."""
layer_rule, operation_rule = TABLE.layer, TABLE.operation
