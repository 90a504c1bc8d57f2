"""What a kept set costs, from channel counts alone: no model is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.prune.channels.slots import Ids

if TYPE_CHECKING:
    from compress.prune.channels.coupling import Coupling

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
        macs: The multiply-accumulates of convolution, dense and attention products.
        params: The parameters, all weights together.
    """

    def __init__(
        self, per_group: Numbers, fixed: Numbers, macs: Products, params: Products
    ) -> None:
        self._per_group = per_group
        self._fixed = fixed
        self._macs = macs
        self._params = params

    @classmethod
    def of(cls, coupling: Coupling) -> CostModel:
        """Collects the terms of a coupling."""
        axes, groups = len(coupling.axes), len(coupling.groups)
        incidence = coupling.incidence.tocsc()
        per_group = np.zeros((axes, groups))
        for group in coupling.groups:
            start, stop = incidence.indptr[group.units[0]], incidence.indptr[group.units[0] + 1]
            per_group[incidence.indices[start:stop], group.index] = incidence.data[start:stop]
        fixed = np.asarray(incidence @ (coupling.group_of < 0).astype(np.int64), float)
        terms = [
            (term.coefficient, [coupling.axis_index(ids) for ids in term.factors], term.layer)
            for term in coupling.ledger.terms
        ]
        macs, params = _products(terms, axes), _products(_parameter_terms(coupling), axes)
        model = cls(per_group, fixed, macs, params)
        if _batch_differs(coupling):
            whole = model._counts(coupling.whole)
            model = cls(per_group, fixed, _calibrated(macs, whole, coupling), params)
        return model

    def macs(self, kept: npt.NDArray[Any]) -> Numbers:
        """Returns the MACs at batch 1 for kept units, (..., groups) -> (...)."""
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


def _batch_differs(coupling: Coupling) -> bool:
    """Tells whether the first axis may be more, or less, than one example."""
    program = coupling.program
    return any(tensor.shape[0] not in (None, 1) for tensor in program.inputs) or any(
        type(node.operation).__name__ == "Reshape" and not hasattr(node.operation, "built")
        for node in program.walk()
    )


def _calibrated(products: Products, whole: Numbers, coupling: Coupling) -> Products:
    """Scales each layer's terms so that the whole model costs what its shapes say."""
    from compress.measure.analysis import count_calls

    counted, own = count_calls(coupling.program), _by_layer(products, whole)
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
