"""Goes through a model with shapes in place of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.core.errors import InputError, is_too_small, reason_of
from compress.measure.layer_costs import peak_bytes
from compress.measure.rules import Shape
from compress.model.program import Node, Program


@dataclass(frozen=True)
class SizedTensor:
    """A tensor of the walk: what it is known by, its shape at batch 1, its type."""

    key: int
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def known(self) -> Shape | None:
        """Its shape, or None where a size is unknown."""
        sizes = tuple(size for size in self.shape if size is not None)
        return sizes if len(sizes) == len(self.shape) else None

    @property
    def bytes(self) -> int | None:
        """Its size in bytes, or None."""
        return None if self.known is None else math.prod(self.known) * width(self.dtype)


@dataclass(frozen=True)
class Step:
    """One call of the walk, nested models' calls among them."""

    name: str
    node: Node
    inputs: tuple[SizedTensor, ...]
    outputs: tuple[SizedTensor, ...]


class Walk:
    """Goes through a program with shapes in place of values."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._count = 0
        self._batch: int | None = None
        self._results: tuple[SizedTensor, ...] = ()

    def _tensor(self, shape: Sequence[int | None], dtype: str) -> SizedTensor:
        self._count += 1
        sizes = tuple(None if size is None else int(size) for size in shape)
        # a batch that runs through the graph is one example
        if sizes[:1] == (None,):
            sizes = (1, *sizes[1:])
        return SizedTensor(self._count, sizes, str(dtype))

    def _stored(self, tensor: Any) -> SizedTensor:
        """Takes a shape from the graph, whose batch may be fixed."""
        shape = tuple(tensor.shape)
        fixed = shape[:1] == (self._batch,) and shape
        return self._tensor((1, *shape[1:]) if fixed else shape, tensor.dtype)

    def run(
        self, program: Program, shapes: Sequence[tuple[int | None, ...]], *, reshape: bool
    ) -> None:
        """Walks the whole program; `reshape`: inner shapes follow from those given."""
        batches = {tensor.shape[0] for tensor in program.inputs if tensor.shape}
        self._batch = batches.pop() if len(batches) == 1 else None
        given = [
            self._tensor(shape, tensor.dtype)
            for shape, tensor in zip(shapes, program.inputs, strict=True)
        ]
        self._results = tuple(self._walk(program, given, "", reshape))

    def _walk(
        self, program: Program, given: Sequence[SizedTensor], prefix: str, reshape: bool
    ) -> list[SizedTensor]:
        def call(node: Node, inputs: list[SizedTensor]) -> Sequence[SizedTensor]:
            # a nested model may be built for open sizes and be called with known ones
            known = all(tensor.known is not None for tensor in inputs)
            if reshape or (
                known
                and (
                    any(None in tuple(tensor.shape)[1:] for tensor in node.outputs)
                    or _folded(node, inputs)
                )
            ):
                try:
                    made = node.output_specs(inputs)
                except ValueError as error:
                    raise _build_error(f"{prefix}{node.name}", inputs, error) from None
                outputs = tuple(self._tensor(tensor.shape, tensor.dtype) for tensor in made)
            else:
                outputs = tuple(self._stored(tensor) for tensor in node.outputs)
            self.steps.append(Step(f"{prefix}{node.name}", node, tuple(inputs), outputs))
            return outputs

        def nested(node: Node, inputs: list[SizedTensor]) -> Sequence[SizedTensor]:
            assert node.body is not None
            return self._walk(node.body, inputs, f"{prefix}{node.name}/", reshape)

        return program.interpret(call, given, nested)

    def peak(self) -> int | None:
        """Returns the most bytes alive at one time."""
        calls = [
            ({tensor.key: tensor.bytes for tensor in (*step.inputs, *step.outputs)}, 0)
            for step in self.steps
        ]
        return peak_bytes(calls, [tensor.key for tensor in self._results])


def _build_error(name: str, inputs: Sequence[SizedTensor], error: ValueError) -> InputError:
    """Build the error of a call that takes no inputs of these sizes."""
    shapes = ", ".join(str(tensor.shape) for tensor in inputs)
    reason = reason_of(error, 160)
    remedy = (
        " The input is too small for the layers in front of it: give a larger one (--input-shape, "
        "in Python input_shape=)."
        if is_too_small(error)
        else ""
    )
    return InputError(
        f"Layer '{name}' must take inputs of the shape that it has for this input size. Received: "
        f"{shapes} ({reason}).{remedy}"
    )


def _folded(node: Node, inputs: Sequence[SizedTensor]) -> bool:
    """Tells whether the open first axis may hold more than the batch: positions folded in."""
    if all(tuple(tensor.shape)[:1] != (None,) for tensor in node.outputs):
        return False
    return type(node.operation).__name__ == "Reshape" or any(
        tuple(tensor.shape)[:1] == (None,) and found.shape[0] != 1
        for tensor, found in zip(node.inputs, inputs, strict=True)
    )


def width(dtype: str) -> int:
    """Returns the bytes of one number."""
    if dtype in ("bool", "string"):
        return 1
    digits = "".join(c for c in dtype if c.isdigit())
    return int(digits) // 8 if digits else 4
