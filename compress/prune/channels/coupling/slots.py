"""Slots: which indices of which tensor and weight axes must be kept or removed together.

Every index on a *tracked* axis of a tensor has a slot id. Rules make ids, pass them on, link
them and freeze them; connected components of the links are the units. An untracked axis
(None) stays whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from compress.model.program import Node

Ids = npt.NDArray[np.int64]
Shape = tuple[int | None, ...]
CHANNELS, HEADS = "channels", "heads"


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


Path = tuple[str | int, ...]
Kept = Any  # compress.prune.channels.coupling.groups.KeptSlots; rules only call it
ConfigEdit = Callable[[dict[str, Any], Kept], None]
CallEdit = Callable[[tuple[Any, ...], dict[str, Any], Kept], tuple[tuple[Any, ...], dict[str, Any]]]


@dataclass(frozen=True, eq=False)
class InnerModel:
    """A change of a layer's config: the model that it holds, built smaller.

    Attributes:
        key: Where it lies in the config.
        program: The recorded model.
    """

    key: str
    program: Any


@dataclass(eq=False)
class Edits:
    """What surgery changes about one layer, beside slicing its weights.

    Attributes:
        config: Edits of its config, each at a path of keys ("layer", "config").
        scales: (variable, kept -> factor): multiplied after slicing.
    """

    config: list[tuple[Path, ConfigEdit | InnerModel]] = field(default_factory=list)
    scales: list[tuple[Any, Callable[[Kept], float]]] = field(default_factory=list)


class CouplingGraph:
    """Everything the rules find out about a model."""

    def __init__(self) -> None:
        self.count = 0
        self.makers: list[tuple[int, str]] = []  # first slot and the layer that made it
        self.heads: list[tuple[int, int]] = []  # half-open ranges of head slots
        self.pairs: list[tuple[Ids, Ids]] = []
        self.freezes: list[Freeze] = []
        self.bindings: dict[tuple[int, int], Binding | None] = {}
        self.terms: list[Term] = []
        self.edits: dict[int, Edits] = {}
        self.by_weights: set[int] = set()  # operations whose config follows from their weights
        self.call_edits: dict[int, list[CallEdit]] = {}
        self.statistics: list[tuple[str, Ids]] = []
        self.copied: dict[int, tuple[str, str, str]] = {}  # operation -> name, class, reason
        self.unknown: dict[str, tuple[str, str]] = {}  # layer name -> (class, reason)
        self.tensors: dict[int, Slots] = {}  # tensor -> slots of its first computation
        self.first_inputs: dict[int, list[Slots]] = {}  # operation -> those of its first call

    def new(self, size: int, layer: str, kind: str = CHANNELS) -> Ids:
        """Makes `size` slots that are linked to nothing."""
        start, self.count = self.count, self.count + size
        self.makers.append((start, layer))
        if kind == HEADS:
            self.heads.append((start, self.count))
        return np.arange(start, self.count)

    def link(self, first: Ids, second: Ids) -> None:
        """Ties `first[i]` to `second[i]`; the shapes are broadcast."""
        if first is not second:
            self.pairs.append((first, second))

    def freeze(self, ids: Ids | None, reason: str, layer: str) -> None:
        """Keeps slots, for a reason that names a layer."""
        if ids is not None and ids.size:
            self.freezes.append(Freeze(ids, reason, layer))

    def bind(self, variable: Any, axis: int, ids: Ids | None, layer: str) -> None:
        """Says which slots index an axis of a variable; None: the axis stays whole.

        A shared variable's second binding is linked to its first.
        """
        key = (id(variable), axis)
        if key not in self.bindings:
            self.bindings[key] = None if ids is None else Binding(variable, axis, ids, layer)
            return
        known = self.bindings[key]
        if known is not None and ids is not None:
            self.link(known.ids, ids)
        elif known is not None or ids is not None:
            fixed = known.ids if known is not None else ids
            self.freeze(fixed, "its weights are shared with a call on fixed channels", layer)


def sizes(shape: Shape) -> int:
    """Returns the number of entries; unknown sizes count as one."""
    total = 1
    for size in shape:
        total *= 1 if size is None else size
    return total
