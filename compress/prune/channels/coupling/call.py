"""Layer calls: one call of a layer as a rule sees it, and what a rule may say about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.prune.channels.coupling.slots import (
    CHANNELS,
    CallEdit,
    ConfigEdit,
    CouplingGraph,
    Edits,
    Ids,
    InnerModel,
    Kept,
    Path,
    Shape,
    Slots,
    Term,
)

if TYPE_CHECKING:
    from compress.model.program import Node, Program

Follow = Callable[[Any, Sequence[Slots], CouplingGraph], "tuple[Program, list[Slots]]"]
"""What the engine hands to rules: follows slots through a model inside a layer."""


@dataclass(frozen=True, eq=False)
class Within:
    """What a call is part of: the same for a layer in the program and for those inside it.

    Attributes:
        name: Unique name of the layer that stands in the program.
        owner: That layer, or raw operation.
        node: Its call.
        follow: Follows slots through a model inside a layer.
        path: Where the called layer's config lies in the owner's.
        positions: How often the called layer is called in one call of the owner.
    """

    name: str
    owner: Any
    node: Node
    follow: Follow
    path: Path = ()
    positions: int = 1


class LayerCall:
    """One call of a layer or raw operation, as a rule sees it.

    Attributes:
        layer: The layer or operation.
        name: Its unique name.
        inputs: Slots of the input tensors, in the order of the arguments.
        shapes: Shapes of the output tensors.
        args: Positional arguments; tensors are `keras.KerasTensor`s.
        kwargs: Keyword arguments.
        node: The call in its program.
        positions: How often the call is repeated (at the steps of a TimeDistributed).
    """

    def __init__(
        self,
        graph: CouplingGraph,
        layer: Any,
        inputs: Sequence[Slots],
        shapes: Sequence[Shape],
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        within: Within,
    ) -> None:
        self.graph = graph
        self.layer = layer
        self.inputs = list(inputs)
        self.shapes = [tuple(shape) for shape in shapes]
        self.args = args
        self.kwargs = kwargs or {}
        self.name, self.node, self.positions = within.name, within.node, within.positions
        self._within = within

    # -- slots ---------------------------------------------------------------------------

    def new(self, size: int, kind: str = CHANNELS) -> Ids:
        """Makes slots for a new axis; heads are never rounded to multiples."""
        return self.graph.new(size, self.name, kind)

    def link(self, first: Ids | None, second: Ids | None, why: str = "") -> Ids | None:
        """Ties two axes entry by entry; where one is untracked the other is frozen.

        Returns:
            The ids of the common axis; None if both are untracked.
        """
        if first is not None and second is not None:
            self.graph.link(first, second)
            return first
        ids = first if first is not None else second
        self.freeze(ids, why or "it meets a fixed axis")
        return ids

    def freeze(self, ids: Ids | None, reason: str) -> None:
        """Keeps these slots and reports the reason under this layer's name."""
        self.graph.freeze(ids, reason, self.name)

    def barrier(self, slots: Slots, reason: str, axes: Sequence[int] | None = None) -> None:
        """Freezes all tracked axes (or some axes) of a tensor."""
        for axis in slots.tracked if axes is None else axes:
            self.freeze(slots.axes[axis], reason)

    def fixed(self, size: int, reason: str) -> Ids:
        """Makes slots that are kept from the start: a part of a tracked axis is fixed."""
        ids = self.new(size)
        self.freeze(ids, reason)
        return ids

    def columns(self, ids: Ids, rows: int) -> Ids:
        """Ties entries at equal positions of `rows` equal runs; returns the first run."""
        table = ids.reshape(rows, -1)
        self.graph.link(table[1:], np.broadcast_to(table[:1], table[1:].shape))
        return np.asarray(table[0])

    def rows(self, ids: Ids, rows: int) -> Ids:
        """Ties all entries within each of `rows` equal runs; returns one of each run."""
        table = ids.reshape(rows, -1)
        self.graph.link(table[:, 1:], np.broadcast_to(table[:, :1], table[:, 1:].shape))
        return np.asarray(table[:, 0])

    # -- weights, costs, edits -----------------------------------------------------------

    def bind(self, variable: Any, axis: int, ids: Ids | None) -> None:
        """Says which slots index an axis of a weight; a missing weight (None) is skipped."""
        if variable is not None:
            axis = axis % len(variable.shape)
            self.graph.bind(variable, axis, ids, self.name)

    def macs(self, positions: float, *axes: Ids | int | None) -> None:
        """Adds MACs: positions x the sizes of the axes (ids shrink, numbers do not)."""
        coefficient = float(positions) * self.positions
        factors = []
        for axis in axes:
            if isinstance(axis, int):
                coefficient *= axis
            elif axis is not None:
                factors.append(axis)
        if coefficient:
            self.graph.terms.append(Term(coefficient, tuple(factors), self.name, (self.node,)))

    def config(self, key: str, ids: Ids | None) -> None:
        """Sets config[key] to the number of kept entries; untracked: left as it is."""
        if ids is not None:
            self.edit(lambda config, kept: config.__setitem__(key, kept.count(ids)))

    def edit(self, change: ConfigEdit) -> None:
        """Adds a change of the layer's config: `change(config, kept)`."""
        self._edits().config.append((self._within.path, change))

    def edit_call(self, change: CallEdit) -> None:
        """Adds a change of this call's arguments: (args, kwargs, kept) -> (args, kwargs)."""
        self.graph.call_edits.setdefault(id(self.node), []).append(change)

    def follows_weights(self) -> None:
        """Says that the config follows from the axes of the layer's weights alone.

        Calls of one layer are then tied by its weights, not input by input: they may take
        tensors of other kinds (a tied embedding) or numbers (an initial state).
        """
        self.graph.by_weights.add(id(self.layer))

    def scale(self, variable: Any, factor: Callable[[Kept], float]) -> None:
        """Multiplies a weight by `factor(kept)` after slicing."""
        if variable is not None:
            self._edits().scales.append((variable, factor))

    def statistics(self, ids: Ids | None) -> None:
        """Notes that the layer reduces over this axis: its statistics are of kept entries."""
        if ids is not None:
            self.graph.statistics.append((self.name, ids))

    def unknown(self, reason: str) -> list[Slots]:
        """Treats the call as opaque: inputs frozen, outputs fixed, reported by name."""
        kind = type(self.layer).__name__
        self.graph.unknown.setdefault(self.name, (kind, reason))
        text = f"layer '{self.name}' ({kind}): {reason}"
        for slots in self.inputs:
            self.barrier(slots, text)
        for weight in getattr(self.layer, "weights", ()):
            for axis in range(len(weight.shape)):
                self.bind(weight, axis, None)
        return [Slots(shape, (None,) * len(shape), origin=text) for shape in self.shapes]

    def inside(
        self,
        layer: Any,
        inputs: Sequence[Slots],
        shapes: Sequence[Shape],
        path: Path,
        positions: int = 1,
        **kwargs: Any,
    ) -> LayerCall:
        """Returns the call of a layer inside this one; `rules.inner` applies its rule.

        Args:
            layer: The inner layer.
            inputs: Slots that it receives.
            shapes: Shapes that it returns.
            path: Where its config lies in this layer's config.
            positions: How often it is called (MACs are multiplied).
            **kwargs: Keyword arguments of its call.
        """
        within = replace(
            self._within,
            path=(*self._within.path, *path),
            positions=self.positions * positions,
        )
        return LayerCall(self.graph, layer, inputs, shapes, kwargs=kwargs, within=within)

    def model(self, model: Any, inputs: Sequence[Slots], key: str, steps: int) -> list[Slots]:
        """Follows slots through a model inside this layer.

        Args:
            model: A graph of layers.
            inputs: Slots that it receives.
            key: Where its config lies in this layer's config: surgery puts the smaller model there.
            steps: How often it is called (MACs are multiplied).
        """
        before = len(self.graph.terms)
        program, results = self._within.follow(model, inputs, self.graph)
        self.graph.terms[before:] = [
            replace(term, coefficient=term.coefficient * steps, calls=(self.node,))
            for term in self.graph.terms[before:]
        ]
        for node in program.walk():
            edits = self.graph.edits.get(id(node.operation))
            for variable, factor in edits.scales if edits else ():
                self.scale(variable, factor)
        self._edits().config.append((self._within.path, InnerModel(key, program)))
        return results

    # -- results -------------------------------------------------------------------------

    def out(
        self, axes: dict[int, Ids | None], *, zero: bool = False, index: int = 0, origin: str = ""
    ) -> Slots:
        """Makes the slots of an output from the ids of its tracked axes."""
        shape = self.shapes[index]
        ids: list[Ids | None] = [None] * len(shape)
        for axis, value in axes.items():
            ids[axis] = value
        origin = origin or next((slots.origin for slots in self.inputs if slots.origin), "")
        return Slots(shape, tuple(ids), zero, origin)

    def passed(self, slots: Slots, *, zero: bool | None = None, index: int = 0) -> Slots:
        """Makes an output whose tracked axes are those of an input of equal rank."""
        return Slots(
            self.shapes[index], slots.axes, slots.zero if zero is None else zero, slots.origin
        )

    def _edits(self) -> Edits:
        return self.graph.edits.setdefault(id(self._within.owner), Edits())
