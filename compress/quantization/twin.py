"""A model's twin that computes as a file of integers does, with the model's own weights.

The model's program is gone through call by call; each call's rule says how it is computed in whole
numbers. Where no rule speaks for a call it is made in floats, and the reason is taken down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.model.internals import maker_of
from compress.model.ports import packed
from compress.model.program import Node, Program
from compress.model.recording import record
from compress.quantization.building import Building, Placed
from compress.quantization.call import Call, brought
from compress.quantization.layers.ranges import FakeQuant
from compress.quantization.layers.state import State
from compress.quantization.rules import rule_for
from compress.quantization.values import Value
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


def twin_of(model: keras.Model, *, learned: bool = False) -> Twin:
    """Builds the twin of a model.

    Args:
        model: Functional or Sequential, in float32, of known sizes. Its layers are in both: what
            trains the twin trains it.
        learned: Ranges are trained, not moved.
    """
    import keras

    program = record(model, opens)
    building = Building(State(), learned)
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=maker_of(own).name)
        for tensor, own in zip(program.inputs, model.inputs, strict=True)
    ]
    for tensor in inputs:
        building.name(maker_of(tensor).name)
    counts = _users(program)
    given = [
        Value(maker_of(own).name, users, tensor, whole="float" not in str(tensor.dtype))
        for own, tensor, users in zip(model.inputs, inputs, counts[0], strict=True)
    ]
    outputs = _gone_through(program, given, counts[1:], building)
    made = brought(building, outputs)
    packed_inputs = packed(model, inputs)
    structure = program.output_structure
    served = keras.Model(
        packed_inputs, _filled(structure, program, [value.tensor for value in made]),
        name=f"{model.name}_served",
    )  # fmt: skip
    trained = keras.Model(
        packed_inputs,
        _filled(
            structure,
            program,
            [value.tensor if value.plain is None else value.plain for value in made],
        ),
        name=model.name,
    )
    observed = tuple(layer for layer in building.ranges if layer.fixed is None)
    return Twin(trained, served, building.state, observed, tuple(building.placed))


def _filled(structure: Any, program: Program, tensors: Sequence[Any]) -> Any:
    from compress.model.program import replaced

    # a model may return one tensor twice
    return replaced(structure, program.outputs, tensors)


def _gone_through(
    program: Program, inputs: Sequence[Value], counts: Sequence[list[int]], building: Building
) -> list[Value]:
    """Applies the rules, call by call."""
    place = iter(counts)
    paths = _Paths()

    def handler(node: Node, values: list[Value]) -> list[Value]:
        path = paths.of(node)
        call = Call(node, path, list(values), next(place), building)
        return _called(call)

    def nested(node: Node, values: list[Value]) -> list[Value]:
        assert node.body is not None
        with paths.inside(node):
            return node.body.interpret(handler, values, nested)

    return program.interpret(handler, inputs, nested)


def _called(call: Call) -> list[Value]:
    """Makes one call by its rule."""
    real = any("float" in str(tensor.dtype) for tensor in call.node.outputs)
    if not real:
        return call.whole_numbers()
    rule = rule_for(call.layer)
    if rule is None:
        return call.in_float(NO_RULE)
    before = len(call.building.placed)
    made = rule(call)
    if len(call.building.placed) == before:
        call.building.note(call.path, call.layer)
    return made if isinstance(made, list) else [made]


class _Paths:
    """Names of calls behind those of the models that they are nested in."""

    def __init__(self) -> None:
        self._outer: list[str] = []

    def of(self, node: Node) -> str:
        return "/".join([*self._outer, node.name])

    def inside(self, node: Node) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def entered() -> Any:
            self._outer.append(node.name)
            try:
                yield
            finally:
                self._outer.pop()

        return entered()


@dataclass(eq=False)
class _Reads:
    count: int = 0


def _users(program: Program) -> list[list[int]]:
    """Returns how often the model's inputs, then each call's outputs are read, in their order."""
    made: list[list[_Reads]] = [[_Reads() for _ in program.inputs]]

    def handler(node: Node, values: list[_Reads]) -> list[_Reads]:
        for value in values:
            value.count += 1
        made.append([_Reads() for _ in node.outputs])
        return made[-1]

    for value in program.interpret(handler, made[0]):
        value.count += 1
    return [[value.count for value in values] for values in made]
