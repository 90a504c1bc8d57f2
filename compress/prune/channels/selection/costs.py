"""Costs of kept units and present blocks, from their numbers alone; no model is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.counting import Step, Walk, count_calls, given_shapes
from compress.model.program import Program
from compress.prune.channels.analysis import input_slots, run
from compress.prune.channels.coupling.blocks import Needs
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import CouplingGraph, Ids, Numbers, Shape, Term

_Term = tuple[float, Sequence[Ids], Needs, str]
"""A coefficient, the axes whose counts it is multiplied by, the blocks that it needs, the layer."""
_KNOWN: WeakKeyDictionary[Coupling, CostModel] = WeakKeyDictionary()


class CostModel:
    """MACs and parameters as functions of kept units per group and of present blocks.

    Args:
        coupling: Of the model.

    Attributes:
        params: The number of parameters.
        vectors: The entries of weights with one axis.
        variables: The number of weights, as tensors.
    """

    def __init__(self, coupling: Coupling) -> None:
        columns = _Columns(coupling)
        weights = _weight_terms(coupling)
        self.params = Products(columns, [term for term, _ in weights])
        self.vectors = Products(columns, [term for term, rank in weights if rank == 1])
        self.variables = Products(
            columns, [(1.0, (), needs, layer) for (_, _, needs, layer), _ in weights]
        )
        self._macs = _collect_macs(coupling, columns)

    @classmethod
    def of(cls, coupling: Coupling) -> CostModel:
        """Return the costs of a coupling; they are collected once."""
        if coupling not in _KNOWN:
            _KNOWN[coupling] = cls(coupling)
        return _KNOWN[coupling]

    @property
    def has_macs(self) -> bool:
        """Whether MACs can be counted: not at an open input size."""
        return not isinstance(self._macs, str)

    @property
    def macs(self) -> Products:
        """The MACs at batch 1, of convolution, dense and attention products.

        Raises:
            InputError: An input size is open, and none was given.
        """
        if isinstance(self._macs, str):
            raise InputError(self._macs)
        return self._macs


class Products:
    """A sum of products: coefficient x counts of some axes x presence of some blocks.

    Args:
        columns: What terms are products of.
        terms: Of the sum.
    """

    def __init__(self, columns: _Columns, terms: Sequence[_Term]) -> None:
        self._columns = columns
        rows = [columns.places(factors, needs) for _, factors, needs, _ in terms]
        # of each term the columns, filled up with the first, which is 1
        self._factors = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
        for place, row in enumerate(rows):
            self._factors[place, : len(row)] = row
        self._coefficients = np.array([coefficient for coefficient, *_ in terms], float)
        self._layers = [layer for *_, layer in terms]

    def __call__(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Return the sum.

        Args:
            kept: Kept units, (..., groups).
            present: 1 for each block that stays, 0 for one that leaves, (..., blocks), in the
                order of `blocks_of`; default: all stay.

        Returns:
            (...), the leading axes of both broadcast.
        """
        return np.asarray(self._by_term(kept, present).sum(-1))

    def by_layer(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> dict[str, Numbers]:
        """Return the sums over each layer's terms, (...); arguments as a call takes them."""
        terms = np.moveaxis(self._by_term(kept, present), -1, 0)
        found: dict[str, Numbers] = {}
        for layer, value in zip(self._layers, terms, strict=True):
            found[layer] = found[layer] + value if layer in found else value
        return found

    def scale(self, factors: Mapping[str, float]) -> None:
        """Multiply the terms of layers."""
        self._coefficients *= [factors.get(layer, 1.0) for layer in self._layers]

    def _by_term(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None) -> Numbers:
        counts = self._columns(kept, present)
        return np.asarray(counts[..., self._factors].prod(-1) * self._coefficients)


class _Columns:
    """The numbers that terms are products of.

    A one, the kept entries of each axis, the presence of each block, and of "either of several"
    where something that blocks share is there as long as one of them is.

    Args:
        coupling: Of the model.
    """

    def __init__(self, coupling: Coupling) -> None:
        axes, groups = len(coupling.axes), len(coupling.groups)
        self._axis_of = coupling.axis_of
        incidence = coupling.incidence.tocsc()
        # entries that one unit of a group adds to an axis, (axes, groups)
        self._per_group = np.zeros((axes, groups))
        for group in coupling.groups:
            start, stop = incidence.indptr[group.units[0]], incidence.indptr[group.units[0] + 1]
            self._per_group[incidence.indices[start:stop], group.index] = incidence.data[start:stop]
        # those that frozen units hold, (axes,)
        self._fixed = np.asarray(incidence @ (coupling.group_of < 0).astype(np.int64), float)
        self._blocks = len(coupling.depth.blocks)
        self._either: list[Needs] = []

    def __call__(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None) -> Numbers:
        """Return the numbers, (..., columns)."""
        present = np.ones(self._blocks) if present is None else np.asarray(present, float)
        if present.shape[-1:] != (self._blocks,):
            raise ValueError(f"present must have a last axis of {self._blocks} blocks.")
        counts = np.asarray(kept, float) @ self._per_group.T + self._fixed
        lead = np.broadcast_shapes(counts.shape[:-1], present.shape[:-1])
        parts = [np.ones(1), counts, present]
        for needs in self._either:
            absent = [1.0 - present[..., sorted(blocks)].prod(-1) for blocks in needs]
            parts.append(1.0 - np.prod(absent, axis=0)[..., None])
        return np.concatenate(
            [np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], axis=-1
        )

    def places(self, factors: Sequence[Ids], needs: Needs) -> list[int]:
        """Return the columns of the counts of some axes and of what is needed."""
        axes = [1 + self._axis_of[id(ids)] for ids in factors]
        first = 1 + len(self._fixed)
        if len(needs) == 1:
            return [*axes, *(first + block for blocks in needs for block in sorted(blocks))]
        if needs not in self._either:
            self._either.append(needs)
        return [*axes, first + self._blocks + self._either.index(needs)]


def _collect_macs(coupling: Coupling, columns: _Columns) -> Products | str:
    """Return the MACs, or why they cannot be counted."""
    program, given = coupling.program, coupling.input_shape
    if program.open_sizes and given is None:
        return _unsized(program)
    differs = given is not None or _batch_differs(coupling)
    steps = Walk(program, given).steps if differs else []
    terms = coupling.graph.terms if given is None else _sized_terms(coupling, steps)
    depth = coupling.depth
    macs = Products(
        columns,
        [(term.coefficient, term.factors, depth.needs(term.calls), term.layer) for term in terms],
    )
    if differs:
        # the whole model costs what its shapes say
        counted, own = count_calls(steps), macs.by_layer(coupling.whole)
        shared = [layer for layer in own if own[layer] and layer in counted]
        macs.scale({layer: float(counted[layer] / own[layer]) for layer in shared})
    return macs


def _batch_differs(coupling: Coupling) -> bool:
    """Return whether the first axis may be more, or less, than one example."""
    program = coupling.program
    return any(tensor.shape[0] not in (None, 1) for tensor in program.inputs) or any(
        type(node.operation).__name__ == "Reshape" and not hasattr(node.operation, "built")
        for node in program.walk()
    )


def _unsized(program: Program) -> str:
    name, several = program.model.name, len(program.inputs) > 1
    shapes = [
        (f"{own} " if several else "") + str(tuple(tensor.shape[1:]))
        for own, tensor in zip(program.input_names, program.inputs, strict=True)
    ]
    like = "image=96,96,3,table=12" if several else "224,224,3"
    return (
        f"MACs must be counted at a known input size. Received: model '{name}' for inputs of "
        f"{', '.join(shapes)}. Give input_shape (--input-shape), like {like}, or a "
        "target in params or amount."
    )


def _weight_terms(coupling: Coupling) -> list[tuple[_Term, int]]:
    """Return the entries of each weight, and the number of its axes."""
    depth = coupling.depth
    tracked: dict[int, tuple[Any, dict[int, Ids], str]] = {}
    for binding in coupling.bindings:
        entry = tracked.setdefault(id(binding.variable), (binding.variable, {}, binding.layer))
        entry[1][binding.axis] = binding.ids
    terms: list[tuple[_Term, int]] = []
    for variable, axes, layer in tracked.values():
        fixed = [size for axis, size in enumerate(variable.shape) if axis not in axes]
        term = (float(np.prod(fixed)), list(axes.values()), depth.needs_of(variable), layer)
        terms.append((term, len(variable.shape)))
    rest: dict[int, tuple[_Term, int]] = {}
    for node in coupling.program.walk():
        for weight in getattr(node.operation, "weights", ()):
            if id(weight) not in tracked:
                own: _Term = (float(np.prod(weight.shape)), [], depth.needs_of(weight), node.name)
                rest[id(weight)] = (own, len(weight.shape))
    return [*terms, *rest.values()]


def _sized_terms(coupling: Coupling, steps: Iterable[Step]) -> list[Term]:
    """Return a graph's terms with the numbers of positions at known input sizes.

    The rules are run again with known shapes. What they say of slots, weights and configs
    stays as they said it of the open ones: the smaller model is as open as the original. The terms
    are unchanged where known shapes lead to other ones.
    """
    program, terms = coupling.program, coupling.graph.terms
    shapes = given_shapes(program, coupling.input_shape)
    inputs = [
        _filled(tuple(tensor.shape), shape)
        for tensor, shape in zip(program.inputs, shapes, strict=True)
    ]
    sized = (
        [
            _filled(tuple(tensor.shape), found.shape)
            for tensor, found in zip(step.node.outputs, step.outputs, strict=True)
        ]
        for step in steps
    )
    again = CouplingGraph()
    run(program, input_slots(program, inputs), again, sized)
    if len(terms) != len(again.terms) or not all(map(_alike, terms, again.terms)):
        return terms
    return [
        replace(one, coefficient=two.coefficient)
        for one, two in zip(terms, again.terms, strict=True)
    ]


def _filled(own: Shape, known: Shape) -> Shape:
    """Return a shape with known sizes in place of open ones, the batch apart."""
    if len(own) != len(known):
        return own
    rest = (
        size if size is not None else found for size, found in zip(own[1:], known[1:], strict=True)
    )
    return (*own[:1], *rest)


def _alike(one: Term, two: Term) -> bool:
    """Return whether two terms are products of the same axes in the same layer."""
    return (
        one.layer == two.layer
        and len(one.factors) == len(two.factors)
        and all(map(np.array_equal, one.factors, two.factors))
    )
