"""Memory of a model's activations: counted by the interpreter of programs, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.memory_budget import current_budget
from compress.model.internals import head_count
from compress.model.program import Node, Program
from compress.model.recording import record

Shape = tuple[int, ...]
OVERHEAD = 1.5
"""Bytes of a run over those of its tensors: scratch of kernels, branches that run together."""


@dataclass(frozen=True)
class ActivationBytes:
    """Bytes that the tensors of one example take.

    Attributes:
        live: At the fullest moment of a run that drops each tensor after its last use: of a
            compiled function, or of the interpreter.
        total: Of all tensors together: what a Keras model that is called eagerly holds to its end,
            and what training keeps for the backward pass.
    """

    live: int
    total: int


def activation_bytes(model: Any, sizes: Sequence[Shape] | None = None) -> ActivationBytes:
    """Return the bytes that the activations of one example take.

    Args:
        model: A Keras model that can be recorded (see `compress.model.recording.record`), or a
            recorded program.
        sizes: Of one example, an input each, without the batch axis; default: those of the
            model's inputs, 1 where one is open.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8)(keras.layers.Dense(8)(inputs))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> activation_bytes(model)  # 4 + 8 + 8 numbers are live at most, of 4 + 8 + 8 + 2
        ActivationBytes(live=80, total=88)
    """
    program = model if isinstance(model, Program) else record(model)
    return _Meter().measure(program, sizes)


def examples_at_once(
    model: Any,
    most: int,
    *,
    sizes: Sequence[Shape] | None = None,
    copies: float = 1.0,
    holds_all: bool = False,
    what: str = "",
) -> int:
    """Return the number of examples that fit into the memory budget in one forward pass.

    Args:
        model: See `activation_bytes`; of several that run together a list.
        most: Examples, at least 1.
        sizes: See `activation_bytes`.
        copies: How many values of each tensor are held, on average.
        holds_all: Whether no tensor is dropped before the end: eager calls of a Keras model.
        what: The work, for the error; default: that the model is run.

    Raises:
        InputError: Not even one example fits.
    """
    models = model if isinstance(model, (list, tuple)) else [model]
    programs = [item if isinstance(item, Program) else record(item) for item in models]
    found = [activation_bytes(program, sizes) for program in programs]
    each = sum(item.total if holds_all else item.live for item in found)
    name = programs[0].model.name
    return current_budget().batch_size(
        int(OVERHEAD * copies * each), most=most, what=what or f"running model '{name}'"
    )


def outputs_of(program: Program, inputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of a program for all examples, as many at a time as memory allows.

    Args:
        program: A recorded one.
        inputs: One array an input, (examples, ...).

    Returns:
        An array or tensor an output.
    """
    count = len(inputs[0])
    size = examples_at_once(program, count, sizes=[tuple(x.shape[1:]) for x in inputs])
    if size >= count:
        return program.run(inputs)
    parts = [
        program.run([x[start : start + size] for x in inputs]) for start in range(0, count, size)
    ]
    return [
        np.concatenate([np.asarray(part) for part in made]) for made in zip(*parts, strict=True)
    ]


class _Tensor:
    """A tensor that counts for as long as someone holds it."""

    def __init__(self, meter: _Meter, shape: Shape, dtype: str) -> None:
        self.shape, self.dtype = shape, dtype
        self._meter, self._bytes = meter, _bytes_of(shape, dtype)
        meter.take(self._bytes)

    def __del__(self) -> None:
        self._meter.now -= self._bytes


class _Meter:
    """What tensors take now, took at most, and took in all."""

    def __init__(self) -> None:
        self.now = self.live = self.total = 0

    def take(self, size: int) -> None:
        self.now += size
        self.total += size
        self.live = max(self.live, self.now)

    def measure(self, program: Program, sizes: Sequence[Shape] | None) -> ActivationBytes:
        """Run a program with tensors that have no content."""
        batches = {int(tensor.shape[0] or 1) for tensor in program.inputs if len(tensor.shape)}
        fixed = max(batches, default=1)
        inputs = [
            _Tensor(self, (fixed, *given), tensor.dtype)
            for tensor, given in zip(program.inputs, _given(program, sizes), strict=True)
        ]
        is_open = program.open_sizes
        program.interpret(lambda node, given: self._call(node, given, is_open), inputs)
        return ActivationBytes(-(-self.live // fixed), -(-self.total // fixed))

    def _call(self, node: Node, given: list[_Tensor], is_open: bool) -> list[_Tensor]:
        inside = _inside(node, given)
        self.take(inside)
        self.now -= inside
        shapes = _shapes(node, given) if is_open else None
        return [
            _Tensor(
                self,
                _known(tensor.shape, given) if shapes is None else shapes[place],
                str(tensor.dtype),
            )
            for place, tensor in enumerate(node.outputs)
        ]


def _given(program: Program, sizes: Sequence[Shape] | None) -> list[Shape]:
    own = [tuple(tensor.shape)[1:] for tensor in program.inputs]
    if sizes is not None and [len(shape) for shape in sizes] == [len(shape) for shape in own]:
        return [tuple(shape) for shape in sizes]
    return [tuple(size or 1 for size in shape) for shape in own]


def _known(shape: Sequence[int | None], given: Sequence[_Tensor]) -> Shape:
    """Return a shape with known sizes: the inputs' batch size, and 1 for open sizes."""
    batch = given[0].shape[0] if given and given[0].shape else 1
    return tuple(
        int(size) if size is not None else (1 if place else batch)
        for place, size in enumerate(shape)
    )


def _shapes(node: Node, given: Sequence[_Tensor]) -> list[Shape] | None:
    """Return the shapes of a call's outputs for given inputs; None: unknown."""
    try:
        specs = node.output_specs(given)
    except Exception:  # a layer of the user's may raise anything
        return None
    return [_known(spec.shape, given) for spec in specs]


def _inside(node: Node, given: Sequence[_Tensor]) -> int:
    """Return the bytes of tensors inside a layer that is one call, beside those it is given."""
    operation, kind = node.operation, type(node.operation).__name__
    shapes = [item.shape for item in given if len(item.shape) >= 3]
    if kind.endswith("Attention") and shapes:
        batch, queries = shapes[0][0], math.prod(shapes[0][1:-1])
        keys = math.prod(shapes[min(1, len(shapes) - 1)][1:-1])
        heads = head_count(operation)
        width: Any = heads * (getattr(operation, "key_dim", None) or shapes[0][-1])
        # scores before and behind the softmax; queries, keys, values and what comes of them
        return int(4 * batch * (2 * heads * queries * keys + 2 * width * (queries + keys)))
    units = getattr(getattr(operation, "cell", operation), "units", None)
    if hasattr(operation, "return_sequences") and isinstance(units, int) and shapes:
        # gates and states of every step
        return 4 * shapes[0][0] * shapes[0][1] * 8 * units
    return 0


def _bytes_of(shape: Shape, dtype: str) -> int:
    try:
        width = np.dtype("uint16" if dtype == "bfloat16" else dtype).itemsize
    except TypeError:
        width = 16  # texts
    return math.prod(shape) * max(1, width)
