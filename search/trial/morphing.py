"""Weights of one network for another of the same layers, wider, thinner or deeper.

Wider layers compute what they did: new units are copies of old ones, and what reads them shares the
weight among the copies. Thinner ones keep the units of the largest weights. Residual blocks that
are new begin as nothing, so that their sum passes on what comes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.model.walk import variable_paths, weights_changed
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import Context
from compress.prune.channels.criteria.magnitude import l2
from compress.reconstruction.kinds import has_parts, parts_of

if TYPE_CHECKING:
    import keras

Ids = npt.NDArray[np.int64]
NOISE = 1e-2
"""Of a kernel's deviation: what tells a copy of a unit from the original, so that they part."""
FROZEN = -1
"""Stands for the group of units that are in none: inputs, classes."""


@dataclass(frozen=True)
class Morphed:
    """What was done.

    Attributes:
        layers: With weights, of the new network.
        taken: Layers whose weights come from the old one.
        widened, thinned: Of these, in how many a width grew, or fell.
        begun: Names of blocks that begin as nothing.
    """

    layers: int
    taken: int
    widened: int = 0
    thinned: int = 0
    begun: tuple[str, ...] = ()

    def __str__(self) -> str:
        changes = [f"{count} of them {how}" for how, count in
                   (("widened", self.widened), ("thinned", self.thinned)) if count]  # fmt: skip
        told = f"weights of {self.taken} of {self.layers} layers"
        if changes:
            told += f" ({', '.join(changes)})"
        if self.begun:
            told += f" and nothing for {len(self.begun)} new residual blocks"
        return told


def morph(model: keras.Model, source: keras.Model, seed: int = 0, noise: float = NOISE) -> Morphed:
    """Gives a network the weights of another one's layers of the same names, in place.

    A layer is taken whole or not at all: layers of another class, rank or position count keep
    their weights.

    Args:
        model: The new network.
        source: The old one; stays as it is.
        seed: Of the units that are copied, and of the noise.
        noise: Added to copies, relative to the deviation of the kernel that makes them; with 0
            a network that is only wider or deeper computes what the old one did.

    Example:
        >>> import keras
        >>> def net(width):
        ...     inputs = keras.Input((4,))
        ...     hidden = keras.layers.Dense(width, name="hidden")(inputs)
        ...     return keras.Model(inputs, keras.layers.Dense(2, name="out")(hidden))
        >>> print(morph(net(8), net(6)))
        weights of 2 of 2 layers (2 of them widened)

    Reference:
        Chen et al. 2016, "Net2Net", section 2.3 (wider, equations 1 to 3, over coupled layers of
        any graph); deeper networks of residual blocks instead of identity layers. Thinner ones
        are ours.
    """
    try:
        plan: _Units | None = _Units(coupling_of(model), coupling_of(source), seed)
    except InputError:  # it can be built, but its calls cannot be followed: equal shapes alone
        plan = None
    theirs = {layer.name: layer for layer in source.layers if layer.weights}
    own = [layer for layer in model.layers if layer.weights]
    taken, widened, thinned = 0, 0, 0
    rng = np.random.default_rng(seed)
    for layer in own:
        other = theirs.get(layer.name)
        if other is None or type(other) is not type(layer):
            continue
        sizes = [tuple(weight.shape) for weight in layer.weights]
        before = [tuple(weight.shape) for weight in other.weights]
        values: list[Any] | None = None
        if plan is not None:
            values = plan.values(layer, other, rng, noise)
        elif sizes == before:
            values = [weight.numpy() for weight in other.weights]
        if values is None:
            continue
        for weight, value in zip(layer.weights, values, strict=True):
            weight.assign(value)
        taken += 1
        pairs = [pair for new, old in zip(sizes, before, strict=True)
                 for pair in zip(new, old, strict=True)]  # fmt: skip
        widened += any(new > old for new, old in pairs)
        thinned += any(new < old for new, old in pairs)
    # without anything to pass on there is nothing to wait for
    begun = _begin(plan.own, theirs) if plan is not None and taken else ()
    weights_changed(model)
    return Morphed(len(own), taken, widened, thinned, begun)


class _Units:
    """Of which old unit each unit of the new network is a copy.

    Args:
        own: Coupling of the new network.
        theirs: Of the old one.
        seed: Of the units that are copied more than once.

    Attributes:
        source: Old unit of every new one; -1: there is none, (units,).
        copies: How many new units are copies of an old one, (old units,).
        later: Whether a new unit is not the first copy, (units,).
    """

    def __init__(self, own: Coupling, theirs: Coupling, seed: int) -> None:
        self.own, self.theirs = own, theirs
        self._rng = np.random.default_rng(seed)
        self._context = Context(theirs)
        self._axes = [_axes_of(coupling) for coupling in (own, theirs)]
        self._ranks = {id(node.operation): len(node.inputs[0].shape)
                       for node in own.program.nodes if node.inputs}  # fmt: skip
        self.source = np.full(own.units, -1)
        self.later = np.zeros(own.units, bool)
        self._pair()
        known = self.source[self.source >= 0]
        self.copies = np.bincount(known, minlength=theirs.units)

    def values(
        self, layer: Any, other: Any, rng: np.random.Generator, noise: float
    ) -> list[npt.NDArray[Any]] | None:
        """Returns the weights of a layer, made of those of the old one; None: they cannot be."""
        reading = _reading_axes(layer, self._ranks.get(id(layer), 0))
        found = []
        for weight, old in zip(layer.weights, other.weights, strict=False):
            value = self._value(weight, old, reading, rng, noise)
            if value is None:
                return None
            found.append(value)
        return found if len(found) == len(layer.weights) == len(other.weights) else None

    def _value(
        self,
        weight: Any,
        old: Any,
        reading: dict[int, tuple[int, ...]] | None,
        rng: np.random.Generator,
        noise: float,
    ) -> npt.NDArray[Any] | None:
        shape = tuple(weight.shape)
        if len(shape) != len(old.shape):
            return None
        value = np.asarray(old.numpy())
        spread = float(value.std()) if value.size and value.dtype.kind == "f" else 0.0
        for axis, size in enumerate(shape):
            mine, before = (axes.get((id(variable), axis))
                            for axes, variable in zip(self._axes, (weight, old), strict=True)
                            )  # fmt: skip
            if mine is None or before is None:
                if size != value.shape[axis]:
                    return None
                continue
            entries = self._entries(mine, before)
            if entries is None:
                return None
            value = np.take(value, entries, axis)
            shared = self.copies[self.source[mine]]
            if len(shape) == 1 or not (shared > 1).any():
                continue
            across = [-1 if place == axis else 1 for place in range(len(shape))]
            if reading is None:
                return None  # whether it makes or reads these units is not known
            if axis in reading.get(id(weight), ()):
                value = value / shared.reshape(across)
            else:
                fresh = self.later[mine].reshape(across)
                value = value + fresh * noise * spread * rng.standard_normal(value.shape)
        return value.astype(str(weight.dtype))

    def _entries(self, mine: Ids, before: Ids) -> Ids | None:
        """Returns the old index of each index of an axis, given the units that lie there."""
        wanted = self.source[mine]
        if (wanted < 0).any():
            return None
        places: dict[int, list[int]] = {}
        for place, unit in enumerate(before.tolist()):
            places.setdefault(unit, []).append(place)
        met: dict[int, int] = {}
        found = []
        for unit, old in zip(mine.tolist(), wanted.tolist(), strict=True):
            number = met[unit] = met.get(unit, -1) + 1
            if number >= len(places.get(old, ())):
                return None
            found.append(places[old][number])
        if any(len(places[old]) != met[unit] + 1 for unit, old in
               zip(mine.tolist(), wanted.tolist(), strict=True)):  # fmt: skip
            return None  # more positions there: a flattened image of another size
        return np.array(found)

    def _pair(self) -> None:
        """Pairs groups that lie on the same axes, and chooses units of each pair."""
        named = dict(variable_paths(self.theirs.program.model))
        partner: dict[int, int] = {}
        torn: set[int] = set()
        for path, variable in variable_paths(self.own.program.model):
            if path not in named:
                continue
            for axis in range(len(variable.shape)):
                mine = self._axes[0].get((id(variable), axis))
                before = self._axes[1].get((id(named[path]), axis))
                if mine is None or before is None:
                    continue
                self._pair_frozen(mine, before)
                lists = [
                    [group for group in dict.fromkeys(coupling.group_of[units].tolist())
                     if group != FROZEN]
                    for coupling, units in ((self.own, mine), (self.theirs, before))
                ]  # fmt: skip
                for one, two in zip(*lists, strict=False):
                    if partner.setdefault(one, two) != two:
                        torn.add(one)
                if len(lists[0]) != len(lists[1]):
                    torn.update(lists[0])
        for one, two in partner.items():
            if one not in torn:
                self._choose(self.own.groups[one].units, self.theirs.groups[two])

    def _pair_frozen(self, mine: Ids, before: Ids) -> None:
        """Pairs units that always stay, in their order, where they are as many."""
        fixed = [
            np.array(list(dict.fromkeys(units[coupling.group_of[units] == FROZEN].tolist())), int)
            for coupling, units in ((self.own, mine), (self.theirs, before))
        ]
        if len(fixed[0]) == len(fixed[1]):
            self.source[fixed[0]] = fixed[1]

    def _choose(self, units: Ids, group: Any) -> None:
        """Says of which units of an old group new ones are copies."""
        count, old = len(units), len(group.units)
        if count <= old:
            scores = self._context.scored(l2, group)
            chosen = np.sort(np.argsort(-scores, kind="stable")[:count])
        else:
            chosen = np.concatenate([np.arange(old), self._rng.choice(old, count - old)])
            self.later[units[old:]] = True
        self.source[units] = group.units[chosen]


def _axes_of(coupling: Coupling) -> dict[tuple[int, int], Ids]:
    """Returns the units that lie on axes of weights, by id of the weight and axis."""
    return {
        (id(binding.variable), binding.axis): coupling.unit[binding.ids]
        for binding in coupling.bindings
    }


def _reading_axes(layer: Any, rank: int) -> dict[int, tuple[int, ...]] | None:
    """Returns the axes over which a layer sums, by id of the weight; None: they are not known.

    Args:
        layer: Built.
        rank: Axes of its input.
    """
    kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
    found: dict[int, tuple[int, ...]] = {}
    if has_parts(layer):
        parts, _ = parts_of(layer, rank)
        for part in parts:
            for variable in part.variables:
                axes = range(len(variable.shape))
                found[id(variable)] = tuple(axis for axis in axes if axis not in part.features)
    if type(layer).__name__ == "Embedding":
        found = {id(kernel): () for kernel in kernels}
    return found if all(id(kernel) in found for kernel in kernels) else None


def _begin(own: Coupling, theirs: dict[str, Any]) -> tuple[str, ...]:
    """Lets residual blocks that the old network lacks add nothing; returns their names."""
    begun = []
    for block in blocks_of(own):
        held = [node.operation for node in block.nodes if getattr(node.operation, "weights", None)]
        if not held or any(layer.name in theirs for layer in held):
            continue
        last = held[-1]
        names = ("gamma", "beta", "kernel", "pointwise_kernel", "bias")
        zeroed = [weight for name in names if (weight := getattr(last, name, None)) is not None]
        if zeroed:
            for weight in zeroed:
                weight.assign(np.zeros(tuple(weight.shape)))
            begun.append(block.name)
    return tuple(begun)
