"""Analysis of a model: the rule of every call tells which channels belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from compress.measure.counting import given_shapes
from compress.model.program import Node, Program
from compress.model.rebuild import why_not_rebuildable
from compress.model.recording import record
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import CouplingGraph, LayerCall, Shape, Slots
from compress.prune.channels.rules import apply, known, rule_for

if TYPE_CHECKING:
    import keras


def coupling_of(model: keras.Model, input_shape: Any = None) -> Coupling:
    """Analyse a model.

    Args:
        model: Any Keras model; a subclassed one is traced.
        input_shape: Of one example, where the model's own has open sizes: MACs are counted
            at it. Of a subclassed model that was never called: see
            `compress.model.recording.record`.

    Raises:
        InputError: The model is no graph and cannot be traced, or the shape does not fit.
    """
    program = record(model, lambda layer: not known(layer), input_shape)
    if not program.traced:
        given_shapes(program, input_shape)
    if not program.open_sizes:
        input_shape = None  # the model says it itself
    graph = CouplingGraph()
    outputs = run(program, input_slots(program), graph)
    makers = {id(output): node.name for node in program.nodes for output in node.outputs}
    for tensor, slots in zip(program.outputs, outputs, strict=True):
        name = makers.get(id(tensor), str(tensor.name))
        for ids in slots.axes:
            graph.freeze(ids, f"model output '{name}'", name)
    return Coupling(program, graph, input_shape)


def input_slots(program: Program, shapes: Sequence[Shape] | None = None) -> list[Slots]:
    """Return the slots of a model's inputs: none of their axes is tracked."""
    sizes = [tuple(tensor.shape) for tensor in program.inputs] if shapes is None else shapes
    return [
        Slots(shape, (None,) * len(shape), origin=f"model input '{tensor.name}'")
        for shape, tensor in zip(sizes, program.inputs, strict=True)
    ]


def run(
    program: Program,
    inputs: Sequence[Slots],
    graph: CouplingGraph,
    sized: Iterator[list[Shape]] | None = None,
) -> list[Slots]:
    """Follow slots through a program; nested programs are run at every call.

    Args:
        program: The recorded model.
        inputs: Slots of its inputs.
        graph: Is filled.
        sized: Output shapes of each call in the order of the calls, in place of the
            program's own, which may be open.

    Returns:
        Slots of its outputs.
    """

    def call(node: Node, received: list[Slots]) -> list[Slots]:
        results = _visit(node, received, graph, sized)
        _note(graph, node.outputs, results)
        return results

    _note(graph, program.inputs, inputs)
    return program.interpret(call, inputs, nested=call)


def _note(graph: CouplingGraph, tensors: Sequence[Any], found: Sequence[Slots]) -> None:
    """Note the slots of tensors; of a program that runs several times those of the first."""
    for tensor, slots in zip(tensors, found, strict=True):
        graph.tensors.setdefault(id(tensor), slots)


def _visit(
    node: Node, inputs: list[Slots], graph: CouplingGraph, sized: Iterator[list[Shape]] | None
) -> list[Slots]:
    operation = node.operation
    again = graph.first_inputs.get(id(operation))
    if node.body is not None:
        if again is not None:
            _tie(graph, node.name, again, inputs)
        graph.first_inputs.setdefault(id(operation), inputs)
        before = len(graph.terms)
        results = run(node.body, inputs, graph, sized)
        graph.terms[before:] = [
            replace(term, calls=(node, *term.calls)) for term in graph.terms[before:]
        ]
        return results
    edits, call_edits = graph.config_edits[id(operation)], graph.call_edits[id(node)]
    configs, calls = len(edits), len(call_edits)
    shapes = [tuple(tensor.shape) for tensor in node.outputs] if sized is None else next(sized)
    call = LayerCall(
        graph, operation, node.name, inputs, shapes, node.args, node.kwargs, node, _inside
    )
    if rule_for(operation) is None and node.closed:
        results = call.unknown(f"no rule for this class, and it cannot be opened: {node.closed}")
    else:
        results = apply(call)
    if again is not None and (edits or calls):
        # one config serves all calls: their channels must be the same ones
        if id(operation) not in graph.by_weights:
            _tie(graph, node.name, again, inputs)
        del edits[configs:]
        if calls:
            del call_edits[calls:]
    if again is None and (reason := why_not_rebuildable(operation)):
        graph.copied[id(operation)] = node.name, type(operation).__name__, reason
    if id(operation) in graph.copied:
        _held(call, results, calls)
    graph.first_inputs.setdefault(id(operation), inputs)
    return results


def _inside(
    model: Any, inputs: Sequence[Slots], graph: CouplingGraph
) -> tuple[Program, list[Slots]]:
    program = record(model, lambda layer: not known(layer))
    return program, run(program, inputs, graph)


def _held(call: LayerCall, results: list[Slots], calls: int) -> None:
    """Keep the channels of a layer that surgery can only copy as it is, if it would change."""
    graph, layer = call.graph, call.layer
    weights = {id(weight) for weight in layer.weights}
    bound = [item for (weight, _), item in graph.bindings.items() if weight in weights and item]
    edits = [*graph.config_edits[id(layer)], *graph.scales[id(layer)]]
    if not bound and not edits and len(graph.call_edits[id(call.node)]) == calls:
        return
    name, kind, reason = graph.copied[id(layer)]
    text = f"layer '{name}' ({kind}) cannot be rebuilt from its config: {reason}"
    for slots in (*call.inputs, *results):
        call.barrier(slots, text)
    for binding in bound:
        call.freeze(binding.ids, text)


def _tie(graph: CouplingGraph, name: str, first: list[Slots], second: list[Slots]) -> None:
    reason = "a shared layer is called on other channels too"
    nothing = Slots((), ())  # one call may take more tensors, such as a mask
    for one, two in zip_longest(first, second, fillvalue=nothing):
        for a, b in zip_longest(one.axes, two.axes):
            if a is not None and b is not None and len(a) == len(b):
                graph.link(a, b)
            else:
                graph.freeze(a, reason, name)
                graph.freeze(b, reason, name)
