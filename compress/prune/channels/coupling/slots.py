"""Slots, the coupled indices of tensor and weight axes, and layer calls as rules see them.

Every index on a *tracked* axis of a tensor has a slot id. Rules create, pass on, link and freeze
ids. Connected components of linked slots are the units. An untracked axis (None) is never pruned.
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
Kept = Any  # compress.prune.channels.coupling.groups.KeptSlots, which imports this module
ConfigEdit = Callable[[dict[str, Any], Kept], None]
CallEdit = Callable[[tuple[Any, ...], dict[str, Any], Kept], tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(frozen=True)
class Slots:
    """The slots of one tensor.

    Attributes:
        shape: Sizes of all axes, the batch axis (None) first.
        axes: Slot ids of each axis; None: the axis is untracked and never pruned.
        zero: Whether removed entries of this tensor are exactly zero in the zero-masked model, so
            that sums over a tracked axis equal those over the kept entries.
        origin: Reason why untracked axes are fixed, with the layer name; for reports.
        value: Value of all removed entries, if it is one known nonzero number.
    """

    shape: Shape
    axes: tuple[Ids | None, ...]
    zero: bool = False
    origin: str = ""
    value: float | None = None

    @property
    def tracked(self) -> tuple[int, ...]:
        """The tracked axes."""
        return tuple(axis for axis, ids in enumerate(self.axes) if ids is not None)

    def get_factor(self, axis: int) -> Ids | int:
        """Return an axis as a factor of `LayerCall.macs`: its ids, or its size if untracked.

        An unknown size counts as one.
        """
        ids = self.axes[axis]
        return int(self.shape[axis] or 1) if ids is None else ids


@dataclass(frozen=True, eq=False)
class Binding:
    """Slots of a variable's axis: `ids[i]` is the slot of index i.

    Attributes:
        variable: The weight.
        axis: Axis of the weight.
        ids: Slots of the axis.
        layer: Name of the layer.
    """

    variable: Any
    axis: int
    ids: Ids
    layer: str


@dataclass(frozen=True, eq=False)
class Freeze:
    """Slots that must be kept, with the reason.

    Attributes:
        ids: The slots.
        reason: Reason why they cannot be removed.
        layer: Name of the layer that froze them.
    """

    ids: Ids
    reason: str
    layer: str


@dataclass(frozen=True, eq=False)
class Term:
    """MACs at batch 1: a coefficient times the kept counts of some axes.

    Attributes:
        coefficient: Constant factor.
        factors: Slots of the axes.
        layer: Name of the layer.
        calls: The call that performs the MACs, after the calls of the nested models around it,
            outer ones first.
    """

    coefficient: float
    factors: tuple[Ids, ...]
    layer: str
    calls: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class InnerModel:
    """Config edit of a layer that contains a model, at the key "layer": the pruned inner model.

    Attributes:
        program: The recorded inner model.
    """

    program: Any


class CouplingGraph:
    """Slots, links, weights and costs of a model, as recorded by the rules."""

    def __init__(self) -> None:
        self.count = 0
        self.makers: list[tuple[int, str]] = []  # (first slot, layer that produces it)
        self.heads: list[tuple[int, int]] = []  # half-open ranges of head slots
        self.pairs: list[tuple[Ids, Ids]] = []
        self.freezes: list[Freeze] = []
        self.bindings: dict[tuple[int, int], Binding | None] = {}
        self.terms: list[Term] = []
        # by operation: edits of its config, each at a path of keys ("layer", "config"), and
        # factors of variables, after slicing
        self.config_edits: dict[int, list[tuple[Path, ConfigEdit | InnerModel]]] = defaultdict(list)
        self.scales: dict[int, list[tuple[Any, Callable[[Kept], float]]]] = defaultdict(list)
        self.by_weights: set[int] = set()  # operations whose config follows from their weights
        self.call_edits: dict[int, list[CallEdit]] = defaultdict(list)  # by call
        self.copied: dict[int, tuple[str, str, str]] = {}  # operation -> name, class, reason
        self.unknown: dict[str, tuple[str, str]] = {}  # layer name -> (class, reason)
        self.tensors: dict[int, Slots] = {}  # tensor -> slots of its first computation
        self.first_inputs: dict[int, list[Slots]] = {}  # operation -> inputs of its first call

    def link(self, first: Ids, second: Ids) -> None:
        """Link `first[i]` to `second[i]`; the shapes are broadcast."""
        if first is not second:
            self.pairs.append((first, second))

    def freeze(self, ids: Ids | None, reason: str, layer: str) -> None:
        """Freeze slots, for a reason and under a layer's name; None is ignored."""
        if ids is not None and ids.size:
            self.freezes.append(Freeze(ids, reason, layer))


def count_entries(shape: Shape) -> int:
    """Return the number of entries of a shape; unknown sizes count as one."""
    return math.prod(1 if size is None else size for size in shape)


Propagate = Callable[[Any, Sequence[Slots], CouplingGraph], "tuple[Program, list[Slots]]"]
"""Type (model, slots of its inputs, graph) -> (its program, slots of its outputs); for rules."""


@dataclass(eq=False)
class LayerCall:
    """One call of a layer or raw operation, as a rule sees it.

    Attributes:
        graph: Coupling graph that the rule adds to.
        layer: The layer or operation.
        name: Unique name of the outermost layer, which is in the program.
        inputs: Slots of the input tensors, in the order of the arguments.
        shapes: Shapes of the output tensors.
        args: Positional arguments; tensors are `keras.KerasTensor`s.
        kwargs: Keyword arguments.
        node: The call in its program.
        propagate: Propagates slots through a model inside a layer.
        path: Path of the layer's config in that of the node's layer.
        positions: Number of repetitions of the call (such as the steps of a TimeDistributed).
    """

    graph: CouplingGraph
    layer: Any
    name: str
    inputs: list[Slots]
    shapes: list[Shape]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    node: Node
    propagate: Propagate
    path: Path = ()
    positions: int = 1

    # -- slots ---------------------------------------------------------------------------

    def new(self, size: int, kind: str = CHANNELS) -> Ids:
        """Create slots for a new axis, linked to none; numbers of heads are never rounded.

        Args:
            size: Number of slots.
            kind: "channels" or "heads".
        """
        start, stop = self.graph.count, self.graph.count + size
        self.graph.count = stop
        self.graph.makers.append((start, self.name))
        if kind == HEADS:
            self.graph.heads.append((start, stop))
        return np.arange(start, stop)

    def link(self, first: Ids | None, second: Ids | None, why: str = "") -> Ids | None:
        """Link two axes entry by entry; if one is untracked, the other is frozen.

        Args:
            first: Slots of one axis, or None.
            second: Slots of the other axis, or None.
            why: Reason for freezing.

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
        """Freeze slots and record the reason under this layer's name."""
        self.graph.freeze(ids, reason, self.name)

    def freeze_axes(self, slots: Slots, reason: str, axes: Sequence[int] | None = None) -> None:
        """Freeze all tracked axes, or the given axes, of a tensor."""
        for axis in slots.tracked if axes is None else axes:
            self.freeze(slots.axes[axis], reason)

    def link_columns(self, ids: Ids, rows: int) -> Ids:
        """Link entries at equal positions of `rows` equal runs, and return the first run."""
        table = ids.reshape(rows, -1)
        self.graph.link(table[1:], np.broadcast_to(table[:1], table[1:].shape))
        return np.asarray(table[0])

    def link_rows(self, ids: Ids, rows: int) -> Ids:
        """Link all entries within each of `rows` equal runs, and return the first of each run."""
        table = ids.reshape(rows, -1)
        self.graph.link(table[:, 1:], np.broadcast_to(table[:, :1], table[:, 1:].shape))
        return np.asarray(table[:, 0])

    # -- weights, costs, edits -----------------------------------------------------------

    def bind(self, variable: Any, axis: int, ids: Ids | None) -> None:
        """Bind slots to an axis of a weight; a missing weight (None) is ignored.

        The second binding of a shared weight is linked to the first. If one of them is None, the
        slots of the other one are frozen.

        Args:
            variable: The weight.
            axis: Axis of the weight.
            ids: Slots of the axis; None: the axis is never pruned.
        """
        if variable is None:
            return
        bindings, axis = self.graph.bindings, axis % len(variable.shape)
        key = (id(variable), axis)
        if key not in bindings:
            bindings[key] = None if ids is None else Binding(variable, axis, ids, self.name)
            return
        first = bindings[key]
        if first is not None and ids is not None:
            self.graph.link(first.ids, ids)
        else:
            fixed = ids if first is None else first.ids
            self.freeze(fixed, "its weights are shared with a call on fixed channels")

    def macs(self, positions: float, *axes: Ids | int | None) -> None:
        """Add MACs: positions x the sizes of the axes.

        Args:
            positions: Constant factor.
            *axes: Slot ids of axes that can be pruned, or constant sizes; None is ignored.
        """
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
        """Set config[key] to the number of kept entries; no change if the axis is untracked."""
        if ids is not None:
            self.add_config_edit(lambda config, kept: config.__setitem__(key, kept.count(ids)))

    def add_config_edit(self, change: ConfigEdit) -> None:
        """Add an edit of the layer's config: `change(config, kept)`."""
        self.graph.config_edits[id(self.node.operation)].append((self.path, change))

    def add_call_edit(self, change: CallEdit) -> None:
        """Add an edit of this call's arguments: (args, kwargs, kept) -> (args, kwargs)."""
        self.graph.call_edits[id(self.node)].append(change)

    def link_by_weights(self) -> None:
        """Declare that the config depends on the axes of the layer's weights only.

        Calls of a shared layer are then linked by its weights instead of input by input, because
        their inputs may differ in kind (a tied embedding) or in number (an initial state).
        """
        self.graph.by_weights.add(id(self.layer))

    def scale(self, variable: Any, factor: Callable[[Kept], float]) -> None:
        """Multiply a weight by `factor(kept)` after slicing."""
        if variable is not None:
            self.graph.scales[id(self.node.operation)].append((variable, factor))

    def report_unknown(self, reason: str) -> list[Slots]:
        """Treat the call as opaque: freeze its inputs, fix its outputs and report the layer.

        Args:
            reason: Reason, for the report.

        Returns:
            Untracked slots of the outputs.
        """
        kind = type(self.layer).__name__
        self.graph.unknown.setdefault(self.name, (kind, reason))
        text = f"layer '{self.name}' ({kind}): {reason}"
        for slots in self.inputs:
            self.freeze_axes(slots, text)
        for weight in getattr(self.layer, "weights", ()):
            for axis in range(len(weight.shape)):
                self.bind(weight, axis, None)
        return [Slots(shape, (None,) * len(shape), origin=text) for shape in self.shapes]

    def create_inner_call(
        self,
        layer: Any,
        inputs: Sequence[Slots],
        shapes: Sequence[Shape],
        path: Path,
        positions: int = 1,
        **kwargs: Any,
    ) -> LayerCall:
        """Return the call of a layer inside this one, to which `apply_rule` can be applied.

        Args:
            layer: The inner layer.
            inputs: Slots of its inputs.
            shapes: Shapes of its outputs.
            path: Path of its config in this layer's config.
            positions: Number of repetitions of the call, by which MACs are multiplied.
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

    def propagate_model(self, model: Any, inputs: Sequence[Slots], steps: int) -> list[Slots]:
        """Propagate slots through a model inside this layer, at the key "layer" of its config.

        Args:
            model: A graph of layers.
            inputs: Slots of its inputs.
            steps: Number of repetitions of the call, by which MACs are multiplied.

        Returns:
            Slots of its outputs.
        """
        before = len(self.graph.terms)
        program, results = self.propagate(model, inputs, self.graph)
        self.graph.terms[before:] = [
            replace(term, coefficient=term.coefficient * steps, calls=(self.node,))
            for term in self.graph.terms[before:]
        ]
        for node in program.walk():
            for variable, factor in self.graph.scales[id(node.operation)]:
                self.scale(variable, factor)
        change = self.path, InnerModel(program)
        self.graph.config_edits[id(self.node.operation)].append(change)
        return results

    # -- results -------------------------------------------------------------------------

    def out(
        self, axes: dict[int, Ids | None], *, zero: bool = False, index: int = 0, origin: str = ""
    ) -> Slots:
        """Return the slots of an output from the ids of its tracked axes.

        Args:
            axes: Axis -> slot ids; other axes are untracked.
            zero: Whether removed entries are zero, see `Slots`.
            index: Index of the output.
            origin: Reason why untracked axes are fixed; default: that of the inputs.
        """
        shape = self.shapes[index]
        ids: list[Ids | None] = [None] * len(shape)
        for axis, value in axes.items():
            ids[axis] = value
        origin = origin or next((slots.origin for slots in self.inputs if slots.origin), "")
        return Slots(shape, tuple(ids), zero, origin)

    def passed(self, slots: Slots, *, zero: bool | None = None) -> Slots:
        """Return the slots of the first output with the tracked axes of an input of equal rank.

        Args:
            slots: Slots of the input.
            zero: Whether removed entries are zero; default: as in the input.
        """
        return Slots(self.shapes[0], slots.axes, slots.zero if zero is None else zero, slots.origin)
