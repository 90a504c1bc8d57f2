"""What a kept set costs, from channel counts alone: no model is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.counting import count_calls, walked
from compress.prune.channels.coupling.slots import Ids
from compress.prune.channels.selection.sized import sized_terms

if TYPE_CHECKING:
    from compress.measure.walk import Step
    from compress.model.program import Program
    from compress.prune.channels.coupling.groups import Coupling

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Products:
    """A sum of products: coefficient x counts of some axes.

    Attributes:
        coefficients: (terms,).
        factors: (terms, most factors): rows of counts; the row behind the last is 1.
        layers: Name of the layer of each term.
    """

    coefficients: Numbers
    factors: npt.NDArray[np.int64]
    layers: tuple[str, ...]

    def __call__(self, counts: Numbers) -> Numbers:
        """Sums over terms; counts are (..., axes + 1), the result (...)."""
        return np.asarray((counts[..., self.factors].prod(-1) * self.coefficients).sum(-1))

    def by_term(self, counts: Numbers) -> Numbers:
        """Returns the products themselves, (terms,)."""
        return np.asarray(counts[self.factors].prod(-1) * self.coefficients)


class CostModel:
    """MACs and parameters as functions of the numbers of kept units per group.

    Args:
        per_group: Entries that one unit of a group adds to an axis, (axes, groups).
        fixed: Entries that frozen units hold on an axis, (axes,).
        macs: The multiply-accumulates of convolution, dense and attention products; why they
            cannot be counted, where that is so.
        params: The parameters, all weights together.
    """

    def __init__(
        self, per_group: Numbers, fixed: Numbers, macs: Products | str, params: Products
    ) -> None:
        self._per_group = per_group
        self._fixed = fixed
        self._products = macs
        self._params = params

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
        axes, groups = len(coupling.axes), len(coupling.groups)
        incidence = coupling.incidence.tocsc()
        per_group = np.zeros((axes, groups))
        for group in coupling.groups:
            start, stop = incidence.indptr[group.units[0]], incidence.indptr[group.units[0] + 1]
            per_group[incidence.indices[start:stop], group.index] = incidence.data[start:stop]
        fixed = np.asarray(incidence @ (coupling.group_of < 0).astype(np.int64), float)
        params = _products(_parameter_terms(coupling), axes)
        if coupling.program.open_sizes and coupling.input_shape is None:
            return cls(per_group, fixed, _unsized(coupling.program), params)
        program, given = coupling.program, coupling.input_shape
        differs = given is not None or _batch_differs(coupling)
        steps = walked(program, given) if differs else []
        terms = coupling.graph.terms
        if given is not None:
            terms = sized_terms(program, coupling.graph, steps, given)
        macs = _products(
            [
                (term.coefficient, [coupling.axis_index(ids) for ids in term.factors], term.layer)
                for term in terms
            ],
            axes,
        )
        model = cls(per_group, fixed, macs, params)
        if differs:
            whole = model._counts(coupling.whole)
            model = cls(per_group, fixed, _calibrated(macs, whole, steps), params)
        return model

    def macs(self, kept: npt.NDArray[Any]) -> Numbers:
        """Returns the MACs at batch 1 for kept units, (..., groups) -> (...).

        Raises:
            InputError: An input size is open, and none was given.
        """
        return self._macs(self._counts(kept))

    def params(self, kept: npt.NDArray[Any]) -> Numbers:
        """Returns the number of parameters for kept units, (..., groups) -> (...)."""
        return self._params(self._counts(kept))

    def macs_by_layer(self, kept: npt.NDArray[Any]) -> dict[str, float]:
        """Returns each layer's MACs."""
        return _by_layer(self._macs, self._counts(kept))

    def params_by_layer(self, kept: npt.NDArray[Any]) -> dict[str, float]:
        """Returns each layer's parameters."""
        return _by_layer(self._params, self._counts(kept))

    def _counts(self, kept: npt.NDArray[Any]) -> Numbers:
        counts = np.asarray(kept, float) @ self._per_group.T + self._fixed
        return np.concatenate([counts, np.ones((*counts.shape[:-1], 1))], axis=-1)


_KNOWN: WeakKeyDictionary[Coupling, CostModel] = WeakKeyDictionary()


def _batch_differs(coupling: Coupling) -> bool:
    """Tells whether the first axis may be more, or less, than one example."""
    program = coupling.program
    return any(tensor.shape[0] not in (None, 1) for tensor in program.inputs) or any(
        type(node.operation).__name__ == "Reshape" and not hasattr(node.operation, "built")
        for node in program.walk()
    )


def _unsized(program: Program) -> str:
    """Says that MACs need an input size, and how to give one."""
    name, shapes = program.model.name, [tuple(tensor.shape[1:]) for tensor in program.inputs]
    return (
        f"MACs must be counted at a known input size. Received: model '{name}' for inputs of "
        f"{', '.join(map(str, shapes))}. Give input_shape (--input-shape), like 224,224,3, or a "
        "target in params or amount."
    )


def _calibrated(products: Products, whole: Numbers, steps: list[Step]) -> Products:
    """Scales each layer's terms so that the whole model costs what its shapes say."""
    counted, own = count_calls(steps), _by_layer(products, whole)
    scales = [
        counted[layer] / own[layer] if own[layer] and layer in counted else 1.0
        for layer in products.layers
    ]
    return Products(products.coefficients * np.array(scales), products.factors, products.layers)


def _by_layer(products: Products, counts: Numbers) -> dict[str, float]:
    found: dict[str, float] = {}
    for layer, value in zip(products.layers, products.by_term(counts), strict=True):
        found[layer] = found.get(layer, 0.0) + float(value)
    return found


def _products(terms: list[tuple[float, list[int], str]], axes: int) -> Products:
    most = max((len(factors) for _, factors, _ in terms), default=0)
    table = np.full((len(terms), most), axes, np.int64)
    for row, (_, factors, _) in enumerate(terms):
        table[row, : len(factors)] = factors
    return Products(
        np.array([coefficient for coefficient, _, _ in terms], float),
        table,
        tuple(layer for _, _, layer in terms),
    )


def _parameter_terms(coupling: Coupling) -> list[tuple[float, list[int], str]]:
    tracked: dict[int, tuple[Any, dict[int, Ids], str]] = {}
    for binding in coupling.bindings:
        entry = tracked.setdefault(id(binding.variable), (binding.variable, {}, binding.layer))
        entry[1][binding.axis] = binding.ids
    terms = []
    for variable, axes, layer in tracked.values():
        fixed = [size for axis, size in enumerate(variable.shape) if axis not in axes]
        factors = [coupling.axis_index(ids) for ids in axes.values()]
        terms.append((float(np.prod(fixed)), factors, layer))
    rest: dict[int, tuple[float, list[int], str]] = {}
    for node in coupling.program.walk():
        for weight in getattr(node.operation, "weights", ()):
            if id(weight) not in tracked:
                rest[id(weight)] = (float(np.prod(weight.shape)), [], node.name)
    return [*terms, *rest.values()]
