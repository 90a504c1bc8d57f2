"""Twin of a model that computes as a file of integers does, with the model's own weights.

The calls of the model's program are replaced one by one; each call's rule says how it is computed
in integers. A call without a rule is made in floats, and the reason is recorded. The errors of
rounding behind each layer are measured here too.
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

from compress.model.activations import examples_at_once
from compress.model.internals import maker_of
from compress.model.ports import packed, stand_for
from compress.model.program import Node, Program, Readers, flat, replaced
from compress.model.recording import record
from compress.quantization.call import (
    READS_ONE,
    Building,
    Call,
    Placed,
    Value,
    brought,
    reads_loose,
)
from compress.quantization.ranges import FakeQuant, State
from compress.quantization.rules import rule_for
from compress.quantization.rules._base import KeptInFloats
from compress.reconstruction.matching import opens
from compress.reconstruction.values import Chunks, Store, make_in_chunks
from compress.run.compressed import LayerRow

NO_RULE = "no rule says how it is computed in whole numbers"
EXAMPLES = 64


@dataclass(frozen=True)
class LayerError:
    """Errors of rounding in the values behind a layer.

    Attributes:
        layer: Its name.
        own: Squared error of its own rounding (kernel, bias and values), where it is fed floats;
            over the squares of the values about their mean.
        total: The same with all rounding before it.
    """

    layer: str
    own: float
    total: float


@dataclass(frozen=True, eq=False)
class Twin:
    """Model that computes as its file of integers will.

    Attributes:
        model: To be trained: it ends in the model's own activations, not rounded where a runtime
            prescribes their grid, so that losses look at logits.
        served: To be exported: its outputs are rounded too.
        state: Of the layers of both.
        ranges: Those that are observed, in the model's order.
        placed: How each call is computed.
    """

    model: keras.Model
    served: keras.Model
    state: State
    ranges: tuple[FakeQuant, ...]
    placed: tuple[Placed, ...]


def twin_of(
    model: keras.Model,
    *,
    learned: bool = False,
    integer_products: bool = False,
    reduced_range: bool = False,
) -> Twin:
    """Build the twin of a model.

    Args:
        model: Functional or Sequential, in float32, of known sizes. Its layers are in both: what
            trains the twin trains it.
        learned: Ranges are trained, not moved.
        integer_products: Activations are multiplied by each other in whole numbers too.
        reduced_range: Weights have 7 bits, as `.onnx` files hold them; see `QuantizedKernel`.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # a training's may be of half floats
    try:
        return _built(model, Building(State(), learned, integer_products, reduced_range))
    finally:
        keras.config.set_dtype_policy(before)


def layer_errors(twin: Twin, inputs: Sequence[npt.NDArray[Any]]) -> tuple[LayerError, ...]:
    """Return the errors of rounding behind each layer, in the model's order.

    The calls are gone through once, with three values side by side: in floats, in whole numbers,
    and in whole numbers from floats.

    Args:
        twin: Its ranges are set.
        inputs: Of the model (n, ...), one array an input, in its order; 64 are looked at.
    """
    found: list[LayerError] = []
    store = Store()
    make = partial(make_in_chunks, store=store)

    def thrice(node: Node, values: list[Any]) -> list[tuple[Chunks, Chunks, Chunks]]:
        with twin.state.in_floats():
            plain = make(node, [value[0] for value in values])
        whole = make(node, [value[1] for value in values])
        own = make(node, [value[2] for value in values])
        layer = node.operation
        if isinstance(layer, FakeQuant):
            if layer.rounds:
                errors = (_rounding_error(side[0], plain[0]) for side in (own, whole))
                found.append(LayerError(layer.name.removesuffix("_range"), *errors))
            own = plain  # what comes next begins anew
        return list(zip(plain, whole, own, strict=True))

    program = record(twin.served)
    size = examples_at_once(program, EXAMPLES, copies=3)
    given = [
        [store.keep(tf.convert_to_tensor(part[at : at + size])) for at in range(0, len(part), size)]
        for part in (values[:EXAMPLES] for values in inputs)
    ]
    try:
        program.interpret(thrice, [(part, part, part) for part in given])
    finally:
        store.close()
    return tuple(found)


def reasons(placed: Sequence[Placed]) -> tuple[str, ...]:
    """Return a line for each reason: "2 x LayerNormalization (norm_1, norm_2): it normalizes by
    ..."."""
    found: dict[tuple[str, str], list[str]] = {}
    for call in placed:
        if call.reason:
            found.setdefault((call.kind, call.reason), []).append(call.layer)
    lines = []
    for (kind, reason), layers in found.items():
        names = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
        lines.append(f"in floats: {len(layers)} x {kind} ({names}): {reason}")
    return tuple(lines)


def rows(placed: Sequence[Placed], errors: Sequence[LayerError]) -> tuple[LayerRow, ...]:
    """Return the record of each layer: the errors of rounding behind it, or why it is in floats.

    Args:
        placed: How calls are computed.
        errors: Of the layers in whole numbers.
    """
    whole: list[LayerRow] = [
        {
            "layer": error.layer,
            "precision": "int8",
            "losses": {"by its own rounding": error.own, "by all before it, too": error.total},
            "why": "",
        }
        for error in errors
    ]
    floats: list[LayerRow] = [
        {"layer": call.layer, "precision": "float32", "losses": {}, "why": call.reason}
        for call in placed if call.reason
    ]  # fmt: skip
    return (*whole, *floats)


def _built(model: keras.Model, building: Building) -> Twin:
    program = record(model, opens)
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=maker_of(own).name)
        for tensor, own in zip(program.inputs, model.inputs, strict=True)
    ]
    for tensor in inputs:
        building.name(maker_of(tensor).name)
    counts = _users(program)
    given = [
        Value(maker_of(own).name, tensor, whole="float" not in str(tensor.dtype), users=users)
        for own, tensor, users in zip(model.inputs, inputs, counts[0], strict=True)
    ]
    outputs = _gone_through(program, given, iter(counts[1:]), building)
    made = [brought(building, value) for value in outputs]
    structure, given_inputs = program.output_structure, packed(model, inputs)
    rounded = [value.tensor for value in made]
    plain = [value.tensor if value.plain is None else value.plain for value in made]
    served, trained = (
        keras.Model(given_inputs, replaced(structure, program.outputs, tensors), name=name)
        for tensors, name in ((rounded, f"{model.name}_served"), (plain, model.name))
    )
    for twin in (served, trained):
        stand_for(twin, model)
    observed = tuple(layer for layer in building.ranges if layer.fixed is None)
    return Twin(trained, served, building.state, observed, tuple(building.placed))


def _gone_through(
    program: Program,
    inputs: Sequence[Value],
    counts: Iterator[list[int]],
    building: Building,
    before: str = "",
) -> list[Value]:
    """Apply the rules, call by call.

    Args:
        program: Of a model, or of one that is nested in it.
        inputs: Of it.
        counts: How often the outputs of the calls to come are read.
        building: What all calls share.
        before: Names of the models around, each with a slash.
    """

    def handler(node: Node, values: list[Value]) -> list[Value]:
        made = _called(Call(node, f"{before}{node.name}", list(values), building))
        for value, users in zip(made, next(counts), strict=True):
            # one that a call passed on is read by those behind it in place of the call
            value.users = value.users - 1 + users if value in values else users
        return made

    def nested(node: Node, values: list[Value]) -> list[Value]:
        assert node.body is not None
        return _gone_through(node.body, values, counts, building, f"{before}{node.name}/")

    return program.interpret(handler, inputs, nested)


def _called(call: Call) -> list[Value]:
    """Make one call by its rule."""
    if not any("float" in str(tensor.dtype) for tensor in call.node.outputs):
        return call.whole_numbers()
    if reads_loose(call):
        return call.in_float(READS_ONE)
    rule = rule_for(call.layer)
    if rule is None:
        return call.in_float(NO_RULE)
    before = len(call.building.placed)
    try:
        made = rule(call)
    except KeptInFloats as reason:
        return call.in_float(str(reason))
    if len(call.building.placed) == before:
        call.building.note(call.path, call.layer)
    return made if isinstance(made, list) else [made]


def _users(program: Program) -> list[list[int]]:
    """Return how often the model's inputs, then each call's outputs are read, in their order."""
    calls = flat(program)
    graph = Readers(calls.nodes, calls.outputs)
    made = (program.inputs, *(node.outputs for node in calls.nodes))
    return [list(map(graph.count_reads, tensors)) for tensors in made]


def _rounding_error(made: Chunks, wanted: Chunks) -> float:
    targets = [np.asarray(value.array, np.float64) for value in wanted]
    mean = sum(target.sum() for target in targets) / sum(target.size for target in targets)
    spread = sum(float(np.square(target - mean).sum()) for target in targets)
    error = sum(
        float(np.square(np.asarray(value.array, np.float64) - target).sum())
        for value, target in zip(made, targets, strict=True)
    )
    return error / (spread or 1.0)
