"""MACs at input sizes that a model leaves open: the rules once more, on known shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.measure.counting import given_shapes
from compress.model.input_sizes import InputShape
from compress.prune.channels.coupling.slots import CouplingGraph, Shape, Term
from compress.prune.channels.propagate import input_slots, run

if TYPE_CHECKING:
    from compress.measure.walk import Step
    from compress.model.program import Program


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
