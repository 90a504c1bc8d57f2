"""What kept units and present blocks cost, from their numbers alone; no model is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.counting import count_calls, given_shapes, walked
from compress.model.ports import InputShape
from compress.prune.channels.analysis import input_slots, run
from compress.prune.channels.coupling.blocks import depth_of
from compress.prune.channels.coupling.presence import Needs
from compress.prune.channels.coupling.slots import CouplingGraph, Ids, Shape, Term

if TYPE_CHECKING:
    from compress.measure.walk import Step
    from compress.model.program import Program
    from compress.prune.channels.coupling.groups import Coupling

Numbers = npt.NDArray[np.float64]

_Term = tuple[float, Sequence[Ids], Needs, str]
"""A coefficient, the axes whose counts it is multiplied by, the blocks that it needs, the layer."""
_KNOWN: WeakKeyDictionary[Coupling, CostModel] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Products:
    """A sum of products: coefficient x counts of some axes x presence of some blocks.

    Attributes:
        coefficients: (terms,).
        factors: (terms, most factors): columns of what `CostModel` counts; the first is 1.
        layers: Name of the layer of each term.
    """

    coefficients: Numbers
    factors: npt.NDArray[np.int64]
    layers: tuple[str, ...]

    def __call__(self, counts: Numbers) -> Numbers:
        """Sums over terms; counts are (..., columns), the result (...)."""
        return np.asarray(self.by_term(counts).sum(-1))

    def by_term(self, counts: Numbers) -> Numbers:
        """Returns the products themselves, (..., terms)."""
        return np.asarray(counts[..., self.factors].prod(-1) * self.coefficients)

    def by_layer(self, counts: Numbers) -> dict[str, Numbers]:
        """Returns the sums over each layer's terms, (...)."""
        found: dict[str, Numbers] = {}
        for layer, value in zip(self.layers, np.moveaxis(self.by_term(counts), -1, 0), strict=True):
            found[layer] = found[layer] + value if layer in found else value
        return found


class CostModel:
    """MACs and parameters as functions of kept units per group and of present blocks.

    Args:
        columns: What terms are products of.
        macs: The multiply-accumulates of convolution, dense and attention products; why they
            cannot be counted, where that is so.
        weights: What each weight counts, of how many axes it is.
    """

    def __init__(
        self, columns: _Columns, macs: Products | str, weights: Sequence[tuple[_Term, int]]
    ) -> None:
        self._columns = columns
        self._products = macs
        self._params = columns.products([term for term, _ in weights])
        self._vectors = columns.products([term for term, rank in weights if rank == 1])
        self._variables = columns.products(
            [(1.0, (), needs, layer) for (_, _, needs, layer), _ in weights]
        )

    @property
    def has_macs(self) -> bool:
        """Whether MACs can be counted: not at an open input size."""
        return not isinstance(self._products, str)

    @property
    def _macs(self) -> Products:
        if isinstance(self._products, str):
            raise InputError(self._products)
        return self._products

    @classmethod
    def of(cls, coupling: Coupling) -> CostModel:
        """Returns the costs of a coupling; they are collected once."""
        if coupling not in _KNOWN:
            _KNOWN[coupling] = cls._collected(coupling)
        return _KNOWN[coupling]

    @classmethod
    def _collected(cls, coupling: Coupling) -> CostModel:
        columns = _Columns(coupling)
        weights = _weight_terms(coupling)
        if coupling.program.open_sizes and coupling.input_shape is None:
            return cls(columns, _unsized(coupling.program), weights)
        program, given = coupling.program, coupling.input_shape
        differs = given is not None or _batch_differs(coupling)
        steps = walked(program, given) if differs else []
        terms = coupling.graph.terms
        if given is not None:
            terms = sized_terms(program, coupling.graph, steps, given)
        depth = depth_of(coupling)
        macs = columns.products(
            [
                (term.coefficient, term.factors, depth.needs(term.calls), term.layer)
                for term in terms
            ]
        )
        if differs:
            macs = _calibrated(macs, columns(coupling.whole, None), steps)
        return cls(columns, macs, weights)

    def macs(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Returns the MACs at batch 1.

        Args:
            kept: Kept units, (..., groups).
            present: 1 for each block that stays, 0 for one that leaves, (..., blocks), in the
                order of `blocks_of`; default: all stay.

        Returns:
            (...), the leading axes of both broadcast.

        Raises:
            InputError: An input size is open, and none was given.
        """
        return self._macs(self._columns(kept, present))

    def params(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Returns the number of parameters; arguments as `macs` takes them."""
        return self._params(self._columns(kept, present))

    def vectors(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Returns the entries of weights with one axis; arguments as `macs` takes them."""
        return self._vectors(self._columns(kept, present))

    def variables(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Returns the number of weights, as tensors; arguments as `macs` takes them."""
        return self._variables(self._columns(kept, present))

    def macs_by_layer(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> dict[str, Numbers]:
        """Returns each layer's MACs, (...); arguments as `macs` takes them."""
        return self._macs.by_layer(self._columns(kept, present))

    def params_by_layer(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> dict[str, Numbers]:
        """Returns each layer's parameters, (...); arguments as `macs` takes them."""
        return self._params.by_layer(self._columns(kept, present))


class _Columns:
    """The numbers that terms are products of.

    A one, the kept entries of each axis, the presence of each block, and of "either of several"
    where something that blocks share is there as long as one of them is.

    Args:
        coupling: Of the model.
    """

    def __init__(self, coupling: Coupling) -> None:
        axes, groups = len(coupling.axes), len(coupling.groups)
        self._axis_index = coupling.axis_index
        incidence = coupling.incidence.tocsc()
        # entries that one unit of a group adds to an axis, (axes, groups)
        self._per_group = np.zeros((axes, groups))
        for group in coupling.groups:
            start, stop = incidence.indptr[group.units[0]], incidence.indptr[group.units[0] + 1]
            self._per_group[incidence.indices[start:stop], group.index] = incidence.data[start:stop]
        # those that frozen units hold, (axes,)
        self._fixed = np.asarray(incidence @ (coupling.group_of < 0).astype(np.int64), float)
        self._blocks = len(depth_of(coupling).blocks)
        self._either: list[Needs] = []

    def __call__(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None) -> Numbers:
        """Returns the numbers, (..., columns)."""
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

    def products(self, terms: Sequence[_Term]) -> Products:
        """Returns a sum of products of these columns."""
        rows = [
            [*(1 + self._axis_index(ids) for ids in factors), *self._presence(needs)]
            for _, factors, needs, _ in terms
        ]
        table = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
        for place, row in enumerate(rows):
            table[place, : len(row)] = row
        return Products(
            np.array([coefficient for coefficient, *_ in terms], float),
            table,
            tuple(layer for *_, layer in terms),
        )

    def _presence(self, needs: Needs) -> list[int]:
        first = 1 + len(self._fixed)
        if len(needs) == 1:
            return [first + block for blocks in needs for block in sorted(blocks)]
        if needs not in self._either:
            self._either.append(needs)
        return [first + self._blocks + self._either.index(needs)]


def _batch_differs(coupling: Coupling) -> bool:
    """Tells whether the first axis may be more, or less, than one example."""
    program = coupling.program
    return any(tensor.shape[0] not in (None, 1) for tensor in program.inputs) or any(
        type(node.operation).__name__ == "Reshape" and not hasattr(node.operation, "built")
        for node in program.walk()
    )


def _unsized(program: Program) -> str:
    """Says that MACs need an input size, and how to give one."""
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


def _calibrated(products: Products, whole: Numbers, steps: list[Step]) -> Products:
    """Scales each layer's terms so that the whole model costs what its shapes say."""
    counted, own = count_calls(steps), products.by_layer(whole)
    scales = [
        counted[layer] / own[layer] if own[layer] and layer in counted else 1.0
        for layer in products.layers
    ]
    return Products(products.coefficients * np.array(scales), products.factors, products.layers)


def _weight_terms(coupling: Coupling) -> list[tuple[_Term, int]]:
    """Returns the entries of each weight, and the number of its axes."""
    depth = depth_of(coupling)
    tracked: dict[int, tuple[Any, dict[int, Ids], str]] = {}
    for binding in coupling.bindings:
        entry = tracked.setdefault(id(binding.variable), (binding.variable, {}, binding.layer))
        entry[1][binding.axis] = binding.ids
    terms: list[tuple[_Term, int]] = []
    for variable, axes, layer in tracked.values():
        fixed = [size for axis, size in enumerate(variable.shape) if axis not in axes]
        needs = depth.needs_of(variable)
        term = (float(np.prod(fixed)), list(axes.values()), needs, layer)
        terms.append((term, len(variable.shape)))
    rest: dict[int, tuple[_Term, int]] = {}
    for node in coupling.program.walk():
        for weight in getattr(node.operation, "weights", ()):
            if id(weight) not in tracked:
                count = float(np.prod(weight.shape))
                own: _Term = (count, [], depth.needs_of(weight), node.name)
                rest[id(weight)] = (own, len(weight.shape))
    return [*terms, *rest.values()]


def sized_terms(
    program: Program, graph: CouplingGraph, steps: Iterable[Step], input_shape: InputShape
) -> list[Term]:
    """Returns a graph's terms with the numbers of positions at known input sizes.

    The rules are run again with known shapes. What they say of slots, weights and configs
    stays as they said it of the open ones: the smaller model is as open as the original.

    Args:
        program: Of the model.
        graph: Filled by the rules on the model's own shapes.
        steps: The program's calls at this input shape, in their order.
        input_shape: Of one example.

    Returns:
        The terms; unchanged where known shapes lead to other ones.
    """
    shapes = given_shapes(program, input_shape)
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
    pairs = list(zip_longest(graph.terms, again.terms))
    if not all(_alike(one, two) for one, two in pairs):
        return graph.terms
    return [replace(one, coefficient=two.coefficient) for one, two in pairs]


def _filled(own: Shape, known: Shape) -> Shape:
    """Returns a shape with known sizes in place of open ones, the batch apart."""
    if len(own) != len(known):
        return own
    rest = (
        size if size is not None else found for size, found in zip(own[1:], known[1:], strict=True)
    )
    return (*own[:1], *rest)


def _alike(one: Any, two: Any) -> bool:
    """Tells whether two terms are products of the same axes in the same layer."""
    return (
        one is not None
        and two is not None
        and one.layer == two.layer
        and len(one.factors) == len(two.factors)
        and all(map(np.array_equal, one.factors, two.factors))
    )
