"""A model's twin that computes as a file of integers does, with the model's own weights.

The model's program is gone through call by call; each call's rule says how it is computed in whole
numbers. Where no rule speaks for a call it is made in floats, and the reason is taken down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.model.internals import maker_of
from compress.model.ports import packed, stand_for
from compress.model.program import Node, Program, Readers, flat, replaced
from compress.model.recording import record
from compress.quantization.call import READS_ONE, Call, brought, reads_loose
from compress.quantization.ranges import FakeQuant, State
from compress.quantization.rules import rule_for
from compress.quantization.rules._base import KeptInFloats
from compress.quantization.values import Building, Placed, Value
from compress.reconstruction.matching import opens

if TYPE_CHECKING:
    import keras

NO_RULE = "no rule says how it is computed in whole numbers"


@dataclass(frozen=True, eq=False)
class Twin:
    """A model that computes as its file of integers will.

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
    """Builds the twin of a model.

    Args:
        model: Functional or Sequential, in float32, of known sizes. Its layers are in both: what
            trains the twin trains it.
        learned: Ranges are trained, not moved.
        integer_products: Activations are multiplied by each other in whole numbers too.
        reduced_range: Weights have 7 bits, as `.onnx` files hold them; see `QuantizedKernel`.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # a training's may be of half floats
    try:
        return _built(model, Building(State(), learned, integer_products, reduced_range))
    finally:
        keras.config.set_dtype_policy(before)


def _built(model: keras.Model, building: Building) -> Twin:
    import keras

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
    """Applies the rules, call by call.

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
    """Makes one call by its rule."""
    real = any("float" in str(tensor.dtype) for tensor in call.node.outputs)
    if not real:
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
    """Returns how often the model's inputs, then each call's outputs are read, in their order."""
    calls = flat(program)
    graph = Readers(calls.nodes, calls.outputs)
    made = (program.inputs, *(node.outputs for node in calls.nodes))
    return [list(map(graph.count_reads, tensors)) for tensors in made]
