"""What a format's operations cost: which are counted, which are no MAC, and why not the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compress.measure import macs
from compress.measure.graph_files.records import Operator
from compress.measure.rules import Shape, Uncountable, other_ops

Rule = Callable[[Operator], int]
UNKNOWN = "an input size is unknown; give input_shape (--input-shape)"


@dataclass(frozen=True)
class Table:
    """What is known of a format's operations, by kind.

    Attributes:
        rules: Count multiply-accumulates.
        alike: Of operations without any: the class of Keras that does the same work.
        reasons: Why a kind is not counted.
        moves: Kinds that hand a constant on: whoever reads what they make reads the constant.
        loops, branches, calls: Kinds with graphs of their own.
        sources: Kinds that make numbers of nothing: constants and inputs.
        window: Elements of a pooling window.
        unknown: Why a kind that stands nowhere is not counted.
    """

    rules: Mapping[str, Rule]
    alike: Mapping[str, str]
    reasons: Mapping[str, str]
    moves: frozenset[str]
    loops: frozenset[str]
    branches: frozenset[str]
    calls: frozenset[str]
    sources: frozenset[str]
    window: Callable[[Operator], int]
    unknown: str = "no counting rule for this operation"

    @property
    def kinds(self) -> frozenset[str]:
        """All kinds that have a place."""
        return frozenset(
            {*self.rules, *self.alike, *self.reasons, *self.loops, *self.branches, *self.calls,
             *self.sources}
        )  # fmt: skip

    def macs(self, operator: Operator) -> tuple[int | None, str]:
        """Returns multiply-accumulates, or None and why they are not counted."""
        kind = operator.kind
        if kind in self.rules:
            try:
                return int(self.rules[kind](operator)), ""
            except (Uncountable, ValueError) as error:
                return None, str(error)
        if kind in self.alike or kind in self.sources:
            return 0, ""
        return None, self.reasons.get(kind, self.unknown)

    def others(self, operator: Operator) -> int | None:
        """Returns elementwise operations; None where a size is unknown."""
        kind = self.alike.get(operator.kind)
        if kind is None:
            return 0
        given = [tensor.known for tensor in operator.given[:1]]
        made = [tensor.known for tensor in operator.outputs]
        if None in given or None in made:
            return None
        return other_ops(
            kind,
            sum(math.prod(shape or ()) for shape in given),
            sum(math.prod(shape or ()) for shape in made),
            self.window(operator),
        )


def shape_of(operator: Operator, place: int) -> Shape:
    """Returns the shape of an input.

    Raises:
        Uncountable: A size is unknown, or the input is missing.
    """
    tensor = operator.inputs[place] if place < len(operator.inputs) else None
    if tensor is None or tensor.known is None:
        raise Uncountable(UNKNOWN)
    return tensor.known


def made_by(operator: Operator) -> Shape:
    """Returns the shape of the first output.

    Raises:
        Uncountable: A size is unknown.
    """
    if operator.outputs[0].known is None:
        raise Uncountable(UNKNOWN)
    return operator.outputs[0].known


def convolved(made: Shape, kernel: Shape, filters: int) -> int:
    """Returns the MACs of a convolution: each position of the output meets the whole kernel.

    Args:
        made: Of the output, the channels among its axes.
        kernel: With the inputs of one group and all filters among its axes.
        filters: How many there are.
    """
    return math.prod(made) // max(1, filters) * math.prod(kernel)


def convolution(operator: Operator) -> int:
    """Count a convolution whose kernel has its filters last."""
    kernel = shape_of(operator, 1)
    return convolved(made_by(operator), kernel, kernel[-1])


def transposed_convolution(operator: Operator) -> int:
    """Count a transposed convolution: each position of its third input meets the kernel.

    The kernel has the channels of that input last.
    """
    kernel = shape_of(operator, 1)
    return convolved(shape_of(operator, 2), kernel, kernel[-1])


def matmul(operator: Operator, *turned: bool) -> int:
    """Count a product of matrices.

    Args:
        operator: With two inputs.
        turned: Whether each of them is transposed first.
    """
    shapes = [list(shape_of(operator, place)) for place in (0, 1)]
    for shape, turn in zip(shapes, turned, strict=True):
        if turn:
            shape[-2:] = shape[:-3:-1]
    return macs.matmul(*shapes)


def names(text: str, value: str) -> dict[str, str]:
    """Returns a table in which every kind of a text has the same value."""
    return dict.fromkeys(text.split(), value)
