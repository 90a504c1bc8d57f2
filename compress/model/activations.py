"""Activation memory of a model, computed from tensor shapes without running it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.device import measure_free_gpu_bytes
from compress.core.memory_budget import get_current_budget, round_to_power
from compress.model.keras_internals import count_heads
from compress.model.program import Node, Program
from compress.model.recording import record_program

Shape = tuple[int, ...]
OVERHEAD = 1.5
"""Memory of a run relative to its tensors: workspaces of kernels, branches that run in parallel."""
BATCH_BYTES = 2**29
"""Memory of a forward pass on a CPU: larger batches are no faster, and the allocator keeps what
they took."""


@dataclass(frozen=True)
class ActivationBytes:
    """Activation memory of one example, in bytes.

    Attributes:
        live: Peak memory when each tensor is freed after its last use, as in a compiled function or
            the interpreter.
        total: Memory of all tensors together, as in an eager call of a Keras model, or as kept for
            the backward pass in training.
    """

    live: int
    total: int


def count_activation_bytes(
    model: Any, input_shapes: Sequence[Shape] | None = None
) -> ActivationBytes:
    """Return the activation memory of one example.

    Args:
        model: A Keras model that can be recorded (see `compress.model.recording.record_program`),
            or a recorded program.
        input_shapes: Shape of one example of each input, without the batch axis. Default: the
            model's input shapes, with 1 for open sizes.

    Example:
        >>> inputs = keras.Input((4,))
        >>> hidden = keras.layers.Dense(8)(keras.layers.Dense(8)(inputs))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        >>> count_activation_bytes(model)  # 4 + 8 + 8 numbers are live at most, of 4 + 8 + 8 + 2
        ActivationBytes(live=80, total=88)
    """
    program = model if isinstance(model, Program) else record_program(model)
    return _MemoryMeter().measure(program, input_shapes)


def find_batch_size(
    model: Any,
    max_examples: int,
    *,
    input_shapes: Sequence[Shape] | None = None,
    copies: float = 1.0,
    keeps_all: bool = False,
    purpose: str = "",
) -> int:
    """Return the number of examples that fit into the memory budget in one forward pass.

    On a CPU a forward pass that frees its tensors is given at most `BATCH_BYTES`.

    Args:
        model: See `count_activation_bytes`; a list of models that run together is accepted.
        max_examples: Upper limit of the result, at least 1.
        input_shapes: See `count_activation_bytes`.
        copies: Average number of values held per tensor.
        keeps_all: Whether all tensors are kept until the end, as in eager calls of a Keras model.
        purpose: The purpose of the memory, for the error message. Default: running the model.

    Raises:
        InputError: Not even one example fits.
    """
    models = model if isinstance(model, (list, tuple)) else [model]
    programs = [item if isinstance(item, Program) else record_program(item) for item in models]
    activations = [count_activation_bytes(program, input_shapes) for program in programs]
    example_bytes = sum(item.total if keeps_all else item.live for item in activations)
    name = programs[0].model.name
    needed = int(OVERHEAD * copies * example_bytes)
    if not keeps_all and max_examples * needed > BATCH_BYTES and measure_free_gpu_bytes() is None:
        max_examples = round_to_power(BATCH_BYTES // needed)
    return get_current_budget().find_batch_size(
        needed,
        max_examples=max_examples,
        purpose=purpose or f"running model '{name}'",
    )


def run_in_batches(program: Program, inputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of a program for all examples, in batches that fit into memory.

    Args:
        program: A recorded program.
        inputs: One array per input, (examples, ...).

    Returns:
        One array or tensor per output.
    """
    count = len(inputs[0])
    batch_size = find_batch_size(program, count, input_shapes=[tuple(x.shape[1:]) for x in inputs])
    if batch_size >= count:
        return program.run(inputs)
    parts = [
        program.run([x[start : start + batch_size] for x in inputs])
        for start in range(0, count, batch_size)
    ]
    return [
        np.concatenate([np.asarray(part) for part in output_parts])
        for output_parts in zip(*parts, strict=True)
    ]


class _Tensor:
    """Tensor without content that counts as allocated until it is deleted."""

    def __init__(self, meter: _MemoryMeter, shape: Shape, dtype: str) -> None:
        self.shape, self.dtype = shape, dtype
        self._meter, self._bytes = meter, _count_tensor_bytes(shape, dtype)
        meter.allocate(self._bytes)

    def __del__(self) -> None:
        self._meter.current -= self._bytes


class _MemoryMeter:
    """Current memory, peak memory and total memory of tensors, in bytes."""

    def __init__(self) -> None:
        self.current = self.live = self.total = 0

    def allocate(self, size: int) -> None:
        """Count the memory of a new tensor."""
        self.current += size
        self.total += size
        self.live = max(self.live, self.current)

    def measure(self, program: Program, input_shapes: Sequence[Shape] | None) -> ActivationBytes:
        """Interpret a program with tensors that have no content, and return their memory."""
        batches = {int(tensor.shape[0] or 1) for tensor in program.inputs if len(tensor.shape)}
        batch_size = max(batches, default=1)
        inputs = [
            _Tensor(self, (batch_size, *values), tensor.dtype)
            for tensor, values in zip(
                program.inputs, _fill_input_shapes(program, input_shapes), strict=True
            )
        ]
        has_open_sizes = program.has_open_sizes
        program.interpret(
            lambda node, tensors: self._allocate_outputs(node, tensors, has_open_sizes), inputs
        )
        return ActivationBytes(-(-self.live // batch_size), -(-self.total // batch_size))

    def _allocate_outputs(
        self, node: Node, inputs: list[_Tensor], has_open_sizes: bool
    ) -> list[_Tensor]:
        """Count a call's temporary memory, and return its outputs, which count until deleted."""
        inner_bytes = _count_inner_bytes(node, inputs)
        self.allocate(inner_bytes)
        self.current -= inner_bytes
        shapes = _infer_shapes(node, inputs) if has_open_sizes else None
        return [
            _Tensor(
                self,
                _fill_shape(tensor.shape, inputs) if shapes is None else shapes[index],
                str(tensor.dtype),
            )
            for index, tensor in enumerate(node.outputs)
        ]


def _fill_input_shapes(program: Program, input_shapes: Sequence[Shape] | None) -> list[Shape]:
    declared = [tuple(tensor.shape)[1:] for tensor in program.inputs]
    if input_shapes is not None and [len(shape) for shape in input_shapes] == [
        len(shape) for shape in declared
    ]:
        return [tuple(shape) for shape in input_shapes]
    return [tuple(size or 1 for size in shape) for shape in declared]


def _fill_shape(shape: Sequence[int | None], inputs: Sequence[_Tensor]) -> Shape:
    """Return a shape with open sizes filled in: the inputs' batch size, and 1 for other axes."""
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else 1
    return tuple(
        int(size) if size is not None else (1 if axis else batch) for axis, size in enumerate(shape)
    )


def _infer_shapes(node: Node, inputs: Sequence[_Tensor]) -> list[Shape] | None:
    """Return the output shapes of a call for given inputs, or None if they are unknown."""
    try:
        specs = node.infer_output_specs(inputs)
    except Exception:  # a user's layer may raise anything
        return None
    return [_fill_shape(spec.shape, inputs) for spec in specs]


def _count_inner_bytes(node: Node, inputs: Sequence[_Tensor]) -> int:
    """Return the bytes of the tensors inside a layer, without its inputs and outputs."""
    operation, class_name = node.operation, type(node.operation).__name__
    shapes = [item.shape for item in inputs if len(item.shape) >= 3]
    if class_name.endswith("Attention") and shapes:
        batch, queries = shapes[0][0], math.prod(shapes[0][1:-1])
        keys = math.prod(shapes[min(1, len(shapes) - 1)][1:-1])
        heads = count_heads(operation)
        width: Any = heads * (getattr(operation, "key_dim", None) or shapes[0][-1])
        # scores before and after the softmax; queries, keys, values and weighted values
        return int(4 * batch * (2 * heads * queries * keys + 2 * width * (queries + keys)))
    units = getattr(getattr(operation, "cell", operation), "units", None)
    if hasattr(operation, "return_sequences") and isinstance(units, int) and shapes:
        # gates and states of every step
        return 4 * shapes[0][0] * shapes[0][1] * 8 * units
    return 0


def _count_tensor_bytes(shape: Shape, dtype: str) -> int:
    try:
        item_size = np.dtype("uint16" if dtype == "bfloat16" else dtype).itemsize
    except TypeError:
        item_size = 16  # strings
    return math.prod(shape) * max(1, item_size)
