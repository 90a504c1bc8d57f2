"""Costs of kept units and present blocks, computed from their counts without building a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.counting import (
    ShapePropagation,
    Step,
    count_macs_by_node,
    resolve_input_shapes,
)
from compress.model.program import Program
from compress.prune.channels.analysis import create_input_slots, propagate_slots
from compress.prune.channels.coupling.blocks import Needs
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import CouplingGraph, Ids, Numbers, Shape, Term

_Term = tuple[float, Sequence[Ids], Needs, str]
"""Coefficient, axes whose counts it is multiplied by, needed blocks, and layer name."""
_CACHE: WeakKeyDictionary[Coupling, CostModel] = WeakKeyDictionary()


class CostModel:
    """MACs and parameters as functions of the kept units of each group and of the present blocks.

    Args:
        coupling: Coupling of the model.

    Attributes:
        params: Number of parameters.
        vectors: Number of entries of weights with one axis.
        variables: Number of weight tensors.
    """

    def __init__(self, coupling: Coupling) -> None:
        columns = _FactorColumns(coupling)
        weights = _collect_weight_terms(coupling)
        self.params = ProductSum(columns, [term for term, _ in weights])
        self.vectors = ProductSum(columns, [term for term, rank in weights if rank == 1])
        self.variables = ProductSum(
            columns, [(1.0, (), needs, layer) for (_, _, needs, layer), _ in weights]
        )
        self._macs = _collect_macs(coupling, columns)

    @classmethod
    def from_coupling(cls, coupling: Coupling) -> CostModel:
        """Return the cost model of a coupling, cached."""
        if coupling not in _CACHE:
            _CACHE[coupling] = cls(coupling)
        return _CACHE[coupling]

    @property
    def has_macs(self) -> bool:
        """Whether MACs can be counted; they cannot if an input size is open."""
        return not isinstance(self._macs, str)

    @property
    def macs(self) -> ProductSum:
        """The MACs at batch 1 of convolutions, matrix products and attention products.

        Raises:
            InputError: An input size is open, and no input shape was given.
        """
        if isinstance(self._macs, str):
            raise InputError(self._macs)
        return self._macs


class ProductSum:
    """Sum of products: coefficient x counts of some axes x presence of some blocks.

    Args:
        columns: Factors of the products.
        terms: Terms of the sum.
    """

    def __init__(self, columns: _FactorColumns, terms: Sequence[_Term]) -> None:
        self._columns = columns
        rows = [columns.find_columns(factors, needs) for _, factors, needs, _ in terms]
        # columns of each term, padded with column 0, which is 1
        self._factors = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
        for index, row in enumerate(rows):
            self._factors[index, : len(row)] = row
        self._coefficients = np.array([coefficient for coefficient, *_ in terms], float)
        self._layers = [layer for *_, layer in terms]

    def __call__(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Return the sum.

        Args:
            kept: Kept removable units of each group, (..., groups).
            present: 1 for each kept block, 0 for each removed one, (..., blocks), in the order of
                `list_blocks`; default: all blocks are kept.

        Returns:
            (...), the broadcast leading axes of both arguments.
        """
        return np.asarray(self._compute_terms(kept, present).sum(-1))

    def compute_by_layer(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> dict[str, Numbers]:
        """Return the sum of each layer's terms, (...); arguments as in `__call__`."""
        terms = np.moveaxis(self._compute_terms(kept, present), -1, 0)
        sums: dict[str, Numbers] = {}
        for layer, value in zip(self._layers, terms, strict=True):
            sums[layer] = sums[layer] + value if layer in sums else value
        return sums

    def scale(self, factors: Mapping[str, float]) -> None:
        """Multiply the terms of layers by factors."""
        self._coefficients *= [factors.get(layer, 1.0) for layer in self._layers]

    def _compute_terms(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None) -> Numbers:
        counts = self._columns(kept, present)
        return np.asarray(counts[..., self._factors].prod(-1) * self._coefficients)


class _FactorColumns:
    """Factors of the terms, as columns.

    The columns are: a constant 1, the kept entries of each axis, the presence of each block, and
    alternatives. An alternative is 1 if at least one of several sets of blocks is present, for
    calls and weights that blocks share.

    Args:
        coupling: Coupling of the model.
    """

    def __init__(self, coupling: Coupling) -> None:
        axes, groups = len(coupling.axes), len(coupling.groups)
        self._axis_of = coupling.axis_rows
        incidence = coupling.incidence.tocsc()
        # entries of one unit of each group on each axis, (axes, groups)
        self._per_group = np.zeros((axes, groups))
        for group in coupling.groups:
            start, stop = incidence.indptr[group.units[0]], incidence.indptr[group.units[0] + 1]
            self._per_group[incidence.indices[start:stop], group.index] = incidence.data[start:stop]
        # entries of frozen units, (axes,)
        self._fixed = np.asarray(incidence @ (coupling.group_of_unit < 0).astype(np.int64), float)
        self._blocks = len(coupling.block_dependencies.blocks)
        self._alternatives: list[Needs] = []

    def __call__(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None) -> Numbers:
        """Return the factors, (..., columns)."""
        present = np.ones(self._blocks) if present is None else np.asarray(present, float)
        if present.shape[-1:] != (self._blocks,):
            raise ValueError(f"present must have a last axis of {self._blocks} blocks.")
        counts = np.asarray(kept, float) @ self._per_group.T + self._fixed
        lead = np.broadcast_shapes(counts.shape[:-1], present.shape[:-1])
        parts = [np.ones(1), counts, present]
        for needs in self._alternatives:
            absent = [1.0 - present[..., sorted(blocks)].prod(-1) for blocks in needs]
            parts.append(1.0 - np.prod(absent, axis=0)[..., None])
        return np.concatenate(
            [np.broadcast_to(part, (*lead, part.shape[-1])) for part in parts], axis=-1
        )

    def find_columns(self, factors: Sequence[Ids], needs: Needs) -> list[int]:
        """Return the columns of the counts of some axes and of the needed blocks."""
        axes = [1 + self._axis_of[id(ids)] for ids in factors]
        first = 1 + len(self._fixed)
        if len(needs) == 1:
            return [*axes, *(first + block for blocks in needs for block in sorted(blocks))]
        if needs not in self._alternatives:
            self._alternatives.append(needs)
        return [*axes, first + self._blocks + self._alternatives.index(needs)]


def _collect_macs(coupling: Coupling, columns: _FactorColumns) -> ProductSum | str:
    """Return the MACs, or the error message if they cannot be counted."""
    program, input_shape = coupling.program, coupling.input_shape
    if program.has_open_sizes and input_shape is None:
        return _format_open_sizes(program)
    differs = input_shape is not None or _has_variable_batch(coupling)
    steps = ShapePropagation(program, input_shape).steps if differs else []
    terms = coupling.graph.terms if input_shape is None else _compute_sized_terms(coupling, steps)
    dependencies = coupling.block_dependencies
    macs = ProductSum(
        columns,
        [
            (term.coefficient, term.factors, dependencies.get_call_needs(term.calls), term.layer)
            for term in terms
        ],
    )
    if differs:
        # scale the terms to the MACs counted from the shapes of the original model
        counted, macs_by_layer = (
            count_macs_by_node(steps),
            macs.compute_by_layer(coupling.removable_counts),
        )
        shared = [layer for layer in macs_by_layer if macs_by_layer[layer] and layer in counted]
        macs.scale({layer: float(counted[layer] / macs_by_layer[layer]) for layer in shared})
    return macs


def _has_variable_batch(coupling: Coupling) -> bool:
    """Return whether the first axis may have a size other than one example."""
    program = coupling.program
    return any(tensor.shape[0] not in (None, 1) for tensor in program.inputs) or any(
        type(node.operation).__name__ == "Reshape" and not hasattr(node.operation, "built")
        for node in program.walk()
    )


def _format_open_sizes(program: Program) -> str:
    name, several = program.model.name, len(program.inputs) > 1
    shapes = [
        (f"{input_name} " if several else "") + str(tuple(tensor.shape[1:]))
        for input_name, tensor in zip(program.input_names, program.inputs, strict=True)
    ]
    example = "image=96,96,3,table=12" if several else "224,224,3"
    return (
        f"MACs must be counted at a known input size. Received: model '{name}' for inputs of "
        f"{', '.join(shapes)}. Give input_shape (--input-shape), like {example}, or a "
        "target in params."
    )


def _collect_weight_terms(coupling: Coupling) -> list[tuple[_Term, int]]:
    """Return the number of entries of each weight as a term, and the number of its axes."""
    dependencies = coupling.block_dependencies
    weights: dict[int, tuple[Any, str]] = {}
    for binding in coupling.bindings:
        weights.setdefault(id(binding.variable), (binding.variable, binding.layer))
    for node in coupling.program.walk():
        for weight in getattr(node.operation, "weights", ()):
            weights.setdefault(id(weight), (weight, node.name))
    terms: list[tuple[_Term, int]] = []
    for weight, layer in weights.values():
        axes = coupling.weight_axes.get(id(weight), {})
        fixed = [size for axis, size in enumerate(weight.shape) if axis not in axes]
        needs = dependencies.get_weight_needs(weight)
        term = float(np.prod(fixed)), list(axes.values()), needs, layer
        terms.append((term, len(weight.shape)))
    return terms


def _compute_sized_terms(coupling: Coupling, steps: Iterable[Step]) -> list[Term]:
    """Return the terms of a coupling with the coefficients at known input sizes.

    The rules run again with known shapes. Slots, weights and config edits of the coupling do not
    change, because the pruned model has the same open sizes as the original. If the known shapes
    lead to different terms, the original terms are returned.
    """
    program, terms = coupling.program, coupling.graph.terms
    shapes = resolve_input_shapes(program, coupling.input_shape)
    inputs = [
        _fill_shape(tuple(tensor.shape), shape)
        for tensor, shape in zip(program.inputs, shapes, strict=True)
    ]
    sized = (
        [
            _fill_shape(tuple(tensor.shape), sized_tensor.shape)
            for tensor, sized_tensor in zip(step.node.outputs, step.outputs, strict=True)
        ]
        for step in steps
    )
    sized_graph = CouplingGraph()
    propagate_slots(program, create_input_slots(program, inputs), sized_graph, sized)
    if len(terms) != len(sized_graph.terms) or not all(
        map(_has_same_factors, terms, sized_graph.terms)
    ):
        return terms
    return [
        replace(term, coefficient=sized_term.coefficient)
        for term, sized_term in zip(terms, sized_graph.terms, strict=True)
    ]


def _fill_shape(shape: Shape, known_shape: Shape) -> Shape:
    """Return a shape with open sizes replaced by known ones, except the batch size."""
    if len(shape) != len(known_shape):
        return shape
    rest = (
        size if size is not None else known_size
        for size, known_size in zip(shape[1:], known_shape[1:], strict=True)
    )
    return (*shape[:1], *rest)


def _has_same_factors(first: Term, second: Term) -> bool:
    """Return whether two terms are products of the same axes in the same layer."""
    return (
        first.layer == second.layer
        and len(first.factors) == len(second.factors)
        and all(map(np.array_equal, first.factors, second.factors))
    )
