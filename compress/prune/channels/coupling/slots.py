"""Slots, the indices of tensor and weight axes that belong together, and calls as rules see them.

Every index on a *tracked* axis of a tensor has a slot id. Rules make ids, pass them on, link
them and freeze them; connected components of the links are the units. An untracked axis
(None) stays whole.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.model.program import Node, Program

Ids = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
Shape = tuple[int | None, ...]
CHANNELS, HEADS = "channels", "heads"

Path = tuple[str | int, ...]
Kept = Any  # compress.prune.channels.coupling.groups.KeptSlots; rules only call it
ConfigEdit = Callable[[dict[str, Any], Kept], None]
CallEdit = Callable[[tuple[Any, ...], dict[str, Any], Kept], tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(frozen=True)
class Slots:
    """The slots of one tensor.

    Attributes:
        shape: Sizes of all axes, the batch axis (None) first.
        axes: Slot ids of each axis; None: the axis is untracked and stays whole.
        zero: Removed entries of this tensor are exactly zero in the zero-masked model, so
            that sums over a tracked axis are those of the kept entries.
        origin: Why untracked axes are fixed, by layer name; for reports.
        value: What removed entries hold where that is one known number other than zero.
    """

    shape: Shape
    axes: tuple[Ids | None, ...]
    zero: bool = False
    origin: str = ""
    value: float | None = None

    @property
    def tracked(self) -> tuple[int, ...]:
        """Tracked axes."""
        return tuple(axis for axis, ids in enumerate(self.axes) if ids is not None)

    def get_factor(self, axis: int) -> Ids | int:
        """Return an axis as a factor for `LayerCall.macs`: its ids, or its size where untracked."""
        ids = self.axes[axis]
        return int(self.shape[axis] or 1) if ids is None else ids


@dataclass(frozen=True, eq=False)
class Binding:
    """`ids[i]` is the slot of index i on an axis of a variable."""

    variable: Any
    axis: int
    ids: Ids
    layer: str


@dataclass(frozen=True, eq=False)
class Freeze:
    """Slots that must be kept, and why."""

    ids: Ids
    reason: str
    layer: str


@dataclass(frozen=True, eq=False)
class Term:
    """MACs at batch 1: a coefficient times the kept counts of these axes.

    `calls` are those that do them: of a nested model, or several, and of the layer, outer ones
    first.
    """

    coefficient: float
    factors: tuple[Ids, ...]
    layer: str
    calls: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class InnerModel:
    """A change of a layer's config: the model that it holds, built smaller.

    Attributes:
        key: Where it lies in the config.
        program: The recorded model.
    """

    key: str
    program: Any


class CouplingGraph:
    """Slots, links, weights and costs of a model, as the rules state them."""

    def __init__(self) -> None:
        self.count = 0
        self.makers: list[tuple[int, str]] = []  # first slot and the layer that made it
        self.heads: list[tuple[int, int]] = []  # half-open ranges of head slots
        self.pairs: list[tuple[Ids, Ids]] = []
        self.freezes: list[Freeze] = []
        self.bindings: dict[tuple[int, int], Binding | None] = {}
        self.terms: list[Term] = []
        # by operation: changes of its config, each at a path of keys ("layer", "config"), and
        # factors of variables, after slicing
        self.config_edits: dict[int, list[tuple[Path, ConfigEdit | InnerModel]]] = defaultdict(list)
        self.scales: dict[int, list[tuple[Any, Callable[[Kept], float]]]] = defaultdict(list)
        self.by_weights: set[int] = set()  # operations whose config follows from their weights
        self.call_edits: dict[int, list[CallEdit]] = defaultdict(list)  # by call
        self.statistics: list[tuple[str, Ids]] = []
        self.copied: dict[int, tuple[str, str, str]] = {}  # operation -> name, class, reason
        self.unknown: dict[str, tuple[str, str]] = {}  # layer name -> (class, reason)
        self.tensors: dict[int, Slots] = {}  # tensor -> slots of its first computation
        self.first_inputs: dict[int, list[Slots]] = {}  # operation -> those of its first call

    def new(self, size: int, layer: str, kind: str = CHANNELS) -> Ids:
        """Make `size` slots that are linked to nothing."""
        start, self.count = self.count, self.count + size
        self.makers.append((start, layer))
        if kind == HEADS:
            self.heads.append((start, self.count))
        return np.arange(start, self.count)

    def link(self, first: Ids, second: Ids) -> None:
        """Tie `first[i]` to `second[i]`; the shapes are broadcast."""
        if first is not second:
            self.pairs.append((first, second))

    def freeze(self, ids: Ids | None, reason: str, layer: str) -> None:
        """Keep slots, for a reason that names a layer."""
        if ids is not None and ids.size:
            self.freezes.append(Freeze(ids, reason, layer))

    def bind(self, variable: Any, axis: int, ids: Ids | None, layer: str) -> None:
        """Bind slots to an axis of a variable; None: the axis stays whole.

        A shared variable's second binding is linked to its first.
        """
        key = (id(variable), axis)
        if key not in self.bindings:
            self.bindings[key] = None if ids is None else Binding(variable, axis, ids, layer)
            return
        known = self.bindings[key]
        if known is not None and ids is not None:
            self.link(known.ids, ids)
        else:
            fixed = ids if known is None else known.ids
            self.freeze(fixed, "its weights are shared with a call on fixed channels", layer)


def sizes(shape: Shape) -> int:
    """Return the number of entries; unknown sizes count as one."""
    return math.prod(1 if size is None else size for size in shape)


Follow = Callable[[Any, Sequence[Slots], CouplingGraph], "tuple[Program, list[Slots]]"]
"""(model, slots of its inputs, graph) -> its program and the slots of its outputs; for rules."""


@dataclass(eq=False)
class LayerCall:
    """One call of a layer or raw operation, as a rule sees it.

    Attributes:
        graph: Takes what the rule says.
        layer: The layer or operation.
        name: Unique name of the layer that stands in the program.
        inputs: Slots of the input tensors, in the order of the arguments.
        shapes: Shapes of the output tensors.
        args: Positional arguments; tensors are `keras.KerasTensor`s.
        kwargs: Keyword arguments.
        node: The call in its program.
        follow: Follows slots through a model inside a layer.
        path: Where the layer's config lies in that of the node's layer.
        positions: How often the call is repeated (at the steps of a TimeDistributed).
    """

    graph: CouplingGraph
    layer: Any
    name: str
    inputs: list[Slots]
    shapes: list[Shape]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    node: Node
    follow: Follow
    path: Path = ()
    positions: int = 1

    # -- slots ---------------------------------------------------------------------------

    def new(self, size: int, kind: str = CHANNELS) -> Ids:
        """Make slots for a new axis; heads are never rounded to multiples."""
        return self.graph.new(size, self.name, kind)

    def link(self, first: Ids | None, second: Ids | None, why: str = "") -> Ids | None:
        """Tie two axes entry by entry; where one is untracked the other is frozen.

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
        """Keep these slots and reports the reason under this layer's name."""
        self.graph.freeze(ids, reason, self.name)

    def barrier(self, slots: Slots, reason: str, axes: Sequence[int] | None = None) -> None:
        """Freeze all tracked axes (or some axes) of a tensor."""
        for axis in slots.tracked if axes is None else axes:
            self.freeze(slots.axes[axis], reason)

    def fixed(self, size: int, reason: str) -> Ids:
        """Make slots that are kept from the start: a part of a tracked axis is fixed."""
        ids = self.new(size)
        self.freeze(ids, reason)
        return ids

    def columns(self, ids: Ids, rows: int) -> Ids:
        """Tie entries at equal positions of `rows` equal runs; returns the first run."""
        table = ids.reshape(rows, -1)
        self.graph.link(table[1:], np.broadcast_to(table[:1], table[1:].shape))
        return np.asarray(table[0])

    def rows(self, ids: Ids, rows: int) -> Ids:
        """Tie all entries within each of `rows` equal runs; returns one of each run."""
        table = ids.reshape(rows, -1)
        self.graph.link(table[:, 1:], np.broadcast_to(table[:, :1], table[:, 1:].shape))
        return np.asarray(table[:, 0])

    # -- weights, costs, edits -----------------------------------------------------------

    def bind(self, variable: Any, axis: int, ids: Ids | None) -> None:
        """Bind slots to an axis of a weight; a missing weight (None) is skipped."""
        if variable is not None:
            axis = axis % len(variable.shape)
            self.graph.bind(variable, axis, ids, self.name)

    def macs(self, positions: float, *axes: Ids | int | None) -> None:
        """Add MACs: positions x the sizes of the axes (ids shrink, numbers do not)."""
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
        """Set config[key] to the number of kept entries; untracked: left as it is."""
        if ids is not None:
            self.edit(lambda config, kept: config.__setitem__(key, kept.count(ids)))

    def edit(self, change: ConfigEdit) -> None:
        """Add a change of the layer's config: `change(config, kept)`."""
        self.graph.config_edits[id(self.node.operation)].append((self.path, change))

    def edit_call(self, change: CallEdit) -> None:
        """Add a change of this call's arguments: (args, kwargs, kept) -> (args, kwargs)."""
        self.graph.call_edits[id(self.node)].append(change)

    def follows_weights(self) -> None:
        """State that the config follows from the axes of the layer's weights alone.

        Calls of one layer are then tied by its weights, not input by input: they may take
        tensors of other kinds (a tied embedding) or numbers (an initial state).
        """
        self.graph.by_weights.add(id(self.layer))

    def scale(self, variable: Any, factor: Callable[[Kept], float]) -> None:
        """Multiply a weight by `factor(kept)` after slicing."""
        if variable is not None:
            self.graph.scales[id(self.node.operation)].append((variable, factor))

    def statistics(self, ids: Ids | None) -> None:
        """Note that the layer reduces over this axis: its statistics are of kept entries."""
        if ids is not None:
            self.graph.statistics.append((self.name, ids))

    def unknown(self, reason: str) -> list[Slots]:
        """Treat the call as opaque: inputs frozen, outputs fixed, reported by name."""
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
        """Return the call of a layer inside this one; `rules.apply` applies its rule.

        Args:
            layer: The inner layer.
            inputs: Slots that it receives.
            shapes: Shapes that it returns.
            path: Where its config lies in this layer's config.
            positions: How often it is called (MACs are multiplied).
            **kwargs: Keyword arguments of its call.
        """
        return replace(
            self,
            layer=layer,
            inputs=list(inputs),
            shapes=list(shapes),
            args=(),
            kwargs=kwargs,
            path=(*self.path, *path),
            positions=self.positions * positions,
        )

    def model(self, model: Any, inputs: Sequence[Slots], key: str, steps: int) -> list[Slots]:
        """Follow slots through a model inside this layer.

        Args:
            model: A graph of layers.
            inputs: Slots that it receives.
            key: Where its config lies in this layer's config: surgery puts the smaller model there.
            steps: How often it is called (MACs are multiplied).
        """
        before = len(self.graph.terms)
        program, results = self.follow(model, inputs, self.graph)
        self.graph.terms[before:] = [
            replace(term, coefficient=term.coefficient * steps, calls=(self.node,))
            for term in self.graph.terms[before:]
        ]
        for node in program.walk():
            for variable, factor in self.graph.scales[id(node.operation)]:
                self.scale(variable, factor)
        change = self.path, InnerModel(key, program)
        self.graph.config_edits[id(self.node.operation)].append(change)
        return results

    # -- results -------------------------------------------------------------------------

    def out(
        self, axes: dict[int, Ids | None], *, zero: bool = False, index: int = 0, origin: str = ""
    ) -> Slots:
        """Make the slots of an output from the ids of its tracked axes."""
        shape = self.shapes[index]
        ids: list[Ids | None] = [None] * len(shape)
        for axis, value in axes.items():
            ids[axis] = value
        origin = origin or next((slots.origin for slots in self.inputs if slots.origin), "")
        return Slots(shape, tuple(ids), zero, origin)

    def passed(self, slots: Slots, *, zero: bool | None = None, index: int = 0) -> Slots:
        """Make an output whose tracked axes are those of an input of equal rank."""
        return Slots(
            self.shapes[index], slots.axes, slots.zero if zero is None else zero, slots.origin
        )
