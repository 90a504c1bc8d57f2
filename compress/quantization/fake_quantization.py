"""Fake-quantized model: it simulates integer arithmetic with the original model's weights.

The calls of the model are replaced one by one, by the rule of each layer for integer arithmetic. A
call without a rule stays in float, and the reason is recorded. This module also measures the
quantization error after each layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from compress.model.activations import find_batch_size
from compress.model.keras_internals import find_producer
from compress.model.ports import copy_output_names, pack_inputs
from compress.model.program import Node, Program, TensorReaders, flatten_program, replace_tensors
from compress.model.recording import record_program
from compress.quantization.call import READS_ONE, Call, should_stay_float
from compress.quantization.ranges import FakeQuant, QuantizationState
from compress.quantization.rules import find_rule
from compress.quantization.rules._base import KeptInFloats
from compress.quantization.values import Placement, TwinBuilder, Value, bring_to_grid
from compress.reconstruction.matching import should_open
from compress.reconstruction.tensor_store import Chunks, Store, call_in_chunks
from compress.run.compressed_model import LayerRow

NO_RULE = "there is no rule for it in integers"
EXAMPLES = 64
"""Maximum number of examples on which errors are measured."""


@dataclass(frozen=True)
class LayerError:
    """Quantization error of the values after a layer.

    Attributes:
        layer: Name of the layer.
        own: Squared error of the layer's own rounding (kernel, bias and values) with float inputs,
            divided by the sum of squares of the values about their mean.
        total: The same error with all earlier layers quantized, too.
    """

    layer: str
    own: float
    total: float


@dataclass(frozen=True, eq=False)
class FakeQuantizedModel:
    """Model with simulated integer arithmetic.

    Attributes:
        model: Model to train. Outputs whose grid the runtime prescribes (softmax, sigmoid) are not
            rounded, so that losses can be computed from logits.
        served: Model to export, with rounded outputs.
        state: State of the layers of both models.
        ranges: Range layers without a prescribed range, in order of creation; those that round are
            calibrated.
        placed: Computation of each call, in the model's order.
    """

    model: keras.Model
    served: keras.Model
    state: QuantizationState
    ranges: tuple[FakeQuant, ...]
    placed: tuple[Placement, ...]


def build_fake_quantized(
    model: keras.Model,
    *,
    reduced_range: bool = False,
) -> FakeQuantizedModel:
    """Build the fake-quantized version of a model.

    Args:
        model: A functional or Sequential model in float32 of known sizes. Both models share its
            weights: training the fake-quantized model trains it.
        reduced_range: Whether weights have 7 bits, as in `.onnx` files; see `QuantizedKernel`.
    """
    previous_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # the current policy may be mixed precision
    try:
        return _build_models(model, TwinBuilder(QuantizationState(), reduced_range))
    finally:
        keras.config.set_dtype_policy(previous_policy)


def measure_layer_errors(
    fake_quantized: FakeQuantizedModel, inputs: Sequence[npt.NDArray[Any]]
) -> tuple[LayerError, ...]:
    """Return the quantization errors after each layer, in the model's order.

    The calls are run once, each with three variants of its values: float; quantized; and quantized
    from float inputs.

    Args:
        fake_quantized: Model with calibrated ranges.
        inputs: Examples (n, ...), one array per input, in the model's order; the first 64 are used.
    """
    error_records: list[LayerError] = []
    store = Store()
    call = partial(call_in_chunks, store=store)

    def compute_variants(node: Node, values: list[Any]) -> list[tuple[Chunks, Chunks, Chunks]]:
        with fake_quantized.state.disable_quantization():
            in_float = call(node, [value[0] for value in values])
        quantized = call(node, [value[1] for value in values])
        quantized_from_float = call(node, [value[2] for value in values])
        layer = node.operation
        if isinstance(layer, FakeQuant):
            if layer.rounds:
                errors = (
                    _compute_rounding_error(side[0], in_float[0])
                    for side in (quantized_from_float, quantized)
                )
                error_records.append(LayerError(layer.name.removesuffix("_range"), *errors))
            quantized_from_float = in_float  # the error of the next layer starts from float inputs
        return list(zip(in_float, quantized, quantized_from_float, strict=True))

    program = record_program(fake_quantized.served)
    size = find_batch_size(program, EXAMPLES, copies=3)
    input_chunks = [
        [store.keep(tf.convert_to_tensor(part[at : at + size])) for at in range(0, len(part), size)]
        for part in (values[:EXAMPLES] for values in inputs)
    ]
    try:
        program.interpret(compute_variants, [(part, part, part) for part in input_chunks])
    finally:
        store.close()
    return tuple(error_records)


def describe_float_layers(placed: Sequence[Placement]) -> tuple[str, ...]:
    """Return a line for each reason to stay in float.

    A line reads "2 x LayerNormalization (norm_1, norm_2): it normalizes by ...".

    Args:
        placed: Computation of each call.
    """
    layers_by_reason: dict[tuple[str, str], list[str]] = {}
    for call in placed:
        if call.reason:
            layers_by_reason.setdefault((call.kind, call.reason), []).append(call.layer)
    lines = []
    for (kind, reason), layers in layers_by_reason.items():
        names = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
        lines.append(f"in floats: {len(layers)} x {kind} ({names}): {reason}")
    return tuple(lines)


def build_layer_rows(
    placed: Sequence[Placement], errors: Sequence[LayerError]
) -> tuple[LayerRow, ...]:
    """Return the rows of a report: layers with quantization errors, then those in float.

    Args:
        placed: Computation of each call.
        errors: Quantization errors after the layers; see `measure_layer_errors`.

    Returns:
        Rows with the errors as "losses", or with the reason for float as "why".
    """
    integer_rows: list[LayerRow] = [
        {
            "layer": error.layer,
            "precision": "int8",
            "losses": {"by its own rounding": error.own, "by all before it, too": error.total},
            "why": "",
        }
        for error in errors
    ]
    float_rows: list[LayerRow] = [
        {"layer": call.layer, "precision": "float32", "losses": {}, "why": call.reason}
        for call in placed if call.reason
    ]  # fmt: skip
    return (*integer_rows, *float_rows)


def _build_models(model: keras.Model, builder: TwinBuilder) -> FakeQuantizedModel:
    """Build the models to train and to export, which share the original's weights and one state."""
    program = record_program(model, should_open)
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=find_producer(original).name)
        for tensor, original in zip(program.inputs, model.inputs, strict=True)
    ]
    for tensor in inputs:
        builder.reserve_name(find_producer(tensor).name)
    counts = _count_reads(program)
    input_values = [
        Value(
            find_producer(original).name,
            tensor,
            is_integer="float" not in str(tensor.dtype),
            users=users,
        )
        for original, tensor, users in zip(model.inputs, inputs, counts[0], strict=True)
    ]
    outputs = _apply_rules(program, input_values, iter(counts[1:]), builder)
    output_values = [bring_to_grid(builder, value) for value in outputs]
    structure, given_inputs = program.output_structure, pack_inputs(model, inputs)
    rounded = [value.tensor for value in output_values]
    plain = [value.tensor if value.plain is None else value.plain for value in output_values]
    served, trained = (
        keras.Model(given_inputs, replace_tensors(structure, program.outputs, tensors), name=name)
        for tensors, name in ((rounded, f"{model.name}_served"), (plain, model.name))
    )
    for keras_model in (served, trained):
        copy_output_names(keras_model, model)
    observed = tuple(layer for layer in builder.ranges if layer.fixed is None)
    return FakeQuantizedModel(trained, served, builder.state, observed, tuple(builder.placed))


def _apply_rules(
    program: Program,
    inputs: Sequence[Value],
    counts: Iterator[list[int]],
    builder: TwinBuilder,
    prefix: str = "",
) -> list[Value]:
    """Apply the rule of each call.

    Args:
        program: Program of the model or of a nested model.
        inputs: Inputs of the program.
        counts: Numbers of reads of the outputs of the following calls.
        builder: State that all calls share.
        prefix: Names of the enclosing models, each followed by a slash.
    """

    def compute_call(node: Node, values: list[Value]) -> list[Value]:
        results = _apply_rule(Call(node, f"{prefix}{node.name}", list(values), builder))
        for value, users in zip(results, next(counts), strict=True):
            # the readers of a passed-on input replace the call as its reader
            value.users = value.users - 1 + users if value in values else users
        return results

    def compute_nested(node: Node, values: list[Value]) -> list[Value]:
        assert node.body is not None
        return _apply_rules(node.body, values, counts, builder, f"{prefix}{node.name}/")

    return program.interpret(compute_call, inputs, compute_nested)


def _apply_rule(call: Call) -> list[Value]:
    """Compute one call by its rule."""
    if not any("float" in str(tensor.dtype) for tensor in call.node.outputs):
        return call.compute_integers()
    if should_stay_float(call):
        return call.keep_in_float(READS_ONE)
    rule = find_rule(call.layer)
    if rule is None:
        return call.keep_in_float(NO_RULE)
    recorded_count = len(call.builder.placed)
    try:
        results = rule(call)
    except KeptInFloats as reason:
        return call.keep_in_float(str(reason))
    if len(call.builder.placed) == recorded_count:
        call.builder.record_call(call.path, call.layer)
    return results if isinstance(results, list) else [results]


def _count_reads(program: Program) -> list[list[int]]:
    """Return the numbers of reads of the model inputs, then of each call's outputs, in order."""
    calls = flatten_program(program)
    graph = TensorReaders(calls.nodes, calls.outputs)
    tensor_groups = (program.inputs, *(node.outputs for node in calls.nodes))
    return [list(map(graph.count_reads, tensors)) for tensors in tensor_groups]


def _compute_rounding_error(rounded: Chunks, exact: Chunks) -> float:
    targets = [np.asarray(value.array, np.float64) for value in exact]
    mean = sum(target.sum() for target in targets) / sum(target.size for target in targets)
    spread = sum(float(np.square(target - mean).sum()) for target in targets)
    error = sum(
        float(np.square(np.asarray(value.array, np.float64) - target).sum())
        for value, target in zip(rounded, targets, strict=True)
    )
    return error / (spread or 1.0)
