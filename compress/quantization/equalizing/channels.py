"""Which channels of a model are scaled together, where they are made, and where they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scaled:
    """A weight that is divided where its channels are made, multiplied where they are read.

    Attributes:
        variable: The weight.
        ids: Of the channels at its entries; broadcasts to its shape.
        made: Whether it makes them; else it reads them.
        shared: Whether entries of several of the channels lie on one grid: then a large factor
            costs the others steps.
    """

    variable: Any
    ids: Ids
    made: bool
    shared: bool

    @property
    def everywhere(self) -> Ids:
        """The channels, at every entry."""
        return np.broadcast_to(self.ids, tuple(self.variable.shape))


class Channels:
    """Everything that the rules find out about the channels of a model."""

    def __init__(self) -> None:
        self.count = 0
        self.weights: dict[tuple[int, bool], Scaled] = {}
        self.reads: dict[int, list[tuple[int, Ids]]] = {}
        """By call: the place of an input that a kernel reads, and its channels."""
        self._held: set[int] = set()
        self._pins: list[tuple[Ids, str]] = []
        self._ties: list[tuple[Ids, Ids]] = []
        self._beside: list[tuple[Ids, Ids]] = []

    def new(self, size: int) -> Ids:
        """Makes channels of one tensor that are tied to nothing."""
        made = np.arange(self.count, self.count + size)
        self.count += size
        self._beside.append((made, np.broadcast_to(made[:1], made.shape)))
        return made

    def join(self, parts: Sequence[Ids]) -> Ids:
        """Returns the channels of tensors that become one."""
        self._beside += [(part[:1], parts[0][:1]) for part in parts]
        return np.concatenate(parts)

    def tie(self, first: Ids, second: Ids) -> Ids:
        """Scales `first[i]` and `second[i]` alike."""
        self._ties.append((first, second))
        return first

    def pin(self, ids: Ids, reason: str) -> None:
        """Leaves channels as they are."""
        self._pins.append((ids, reason))

    def hold(self, variables: Sequence[Any]) -> None:
        """Leaves weights as they are, wherever else they are used."""
        self._held |= {id(variable) for variable in variables}

    def weight(self, variable: Any, ids: Ids, *, made: bool, shared: bool = True) -> None:
        """Says which channels a weight makes or reads; one that is used twice ties them."""
        if variable is None:
            return
        known = self.weights.setdefault(
            (id(variable), made), Scaled(variable, ids, made, shared)
        ).ids
        if known is not ids:
            self.tie(known, ids)

    def settled(self) -> Settled:
        """Returns what is scaled together, once all calls have been gone through."""
        for weight in self.weights.values():
            if id(weight.variable) in self._held:
                self.pin(weight.ids, "their weights are used elsewhere, too")
        component = _components(self.count, self._ties)
        reasons: dict[int, str] = {}
        for ids, reason in self._pins:
            for place in component[ids.ravel()]:
                reasons.setdefault(int(place), reason)
        family = _components(self.count, [*self._ties, *self._beside])
        return Settled(component, family, reasons)


@dataclass(frozen=True, eq=False)
class Settled:
    """What is scaled together.

    Attributes:
        component: Of every channel; those of one have one scale.
        family: Of every channel; those of one lie in the same tensors, directly or by others.
        pinned: Why components stay as they are.
    """

    component: Ids
    family: Ids
    pinned: dict[int, str]


def _components(count: int, pairs: Sequence[tuple[Ids, Ids]]) -> Ids:
    import scipy.sparse

    both = [np.broadcast_arrays(*pair) for pair in pairs]
    rows = np.concatenate([first.ravel() for first, _ in both]) if both else np.zeros(0, int)
    columns = np.concatenate([second.ravel() for _, second in both]) if both else rows
    links = scipy.sparse.coo_array((np.ones(len(rows), bool), (rows, columns)), (count, count))
    found: Ids = scipy.sparse.csgraph.connected_components(links, directed=False)[1]
    return found.astype(np.int64)
