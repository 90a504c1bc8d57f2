"""Coupling analysis of a model: the rules of all calls determine the coupled channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from compress.core.lazy_modules import keras
from compress.measure.counting import resolve_input_shapes
from compress.model.program import Node, Program
from compress.model.rebuild import find_rebuild_failure
from compress.model.recording import record_program
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import CouplingGraph, LayerCall, Shape, Slots
from compress.prune.channels.rules import apply_rule, find_rule, has_rule


def analyze_coupling(model: keras.Model, input_shape: Any = None) -> Coupling:
    """Return the coupling of a model's channels.

    Args:
        model: Any Keras model; a subclassed one is traced.
        input_shape: Shape of one example, at which MACs are counted; needed only if the model's
            input has open sizes. For a subclassed model that was never called, see
            `compress.model.recording.record_program`.

    Raises:
        InputError: The model is not a graph and cannot be traced, or the shape does not fit.
    """
    program = record_program(model, lambda layer: not has_rule(layer), input_shape)
    if not program.is_traced:
        resolve_input_shapes(program, input_shape)
    if not program.has_open_sizes:
        input_shape = None  # the model defines it
    graph = CouplingGraph()
    outputs = propagate_slots(program, create_input_slots(program), graph)
    makers = {id(output): node.name for node in program.nodes for output in node.outputs}
    for tensor, slots in zip(program.outputs, outputs, strict=True):
        name = makers.get(id(tensor), str(tensor.name))
        for ids in slots.axes:
            graph.freeze(ids, f"model output '{name}'", name)
    return Coupling(program, graph, input_shape)


def create_input_slots(program: Program, shapes: Sequence[Shape] | None = None) -> list[Slots]:
    """Return the slots of a model's inputs, with all axes untracked.

    Args:
        program: The recorded model.
        shapes: Shapes of the inputs; default: those of the program.
    """
    sizes = [tuple(tensor.shape) for tensor in program.inputs] if shapes is None else shapes
    return [
        Slots(shape, (None,) * len(shape), origin=f"model input '{tensor.name}'")
        for shape, tensor in zip(sizes, program.inputs, strict=True)
    ]


def propagate_slots(
    program: Program,
    inputs: Sequence[Slots],
    graph: CouplingGraph,
    output_shapes: Iterator[list[Shape]] | None = None,
) -> list[Slots]:
    """Propagate slots through a program; nested programs are visited at every call.

    Args:
        program: The recorded model.
        inputs: Slots of its inputs.
        graph: Coupling graph that is filled.
        output_shapes: Output shapes of each call, in the order of the calls, instead of the
            program's own, which may be open.

    Returns:
        Slots of its outputs.
    """

    def call(node: Node, received: list[Slots]) -> list[Slots]:
        results = _visit_call(node, received, graph, output_shapes)
        _record_slots(graph, node.outputs, results)
        return results

    _record_slots(graph, program.inputs, inputs)
    return program.interpret(call, inputs, nested=call)


def _record_slots(graph: CouplingGraph, tensors: Sequence[Any], all_slots: Sequence[Slots]) -> None:
    """Record the slots of tensors; if a program runs several times, those of the first run."""
    for tensor, slots in zip(tensors, all_slots, strict=True):
        graph.tensors.setdefault(id(tensor), slots)


def _visit_call(
    node: Node,
    inputs: list[Slots],
    graph: CouplingGraph,
    output_shapes: Iterator[list[Shape]] | None,
) -> list[Slots]:
    operation = node.operation
    first_inputs = graph.first_inputs.get(id(operation))
    if node.body is not None:
        if first_inputs is not None:
            _link_shared_inputs(graph, node.name, first_inputs, inputs)
        graph.first_inputs.setdefault(id(operation), inputs)
        before = len(graph.terms)
        results = propagate_slots(node.body, inputs, graph, output_shapes)
        graph.terms[before:] = [
            replace(term, calls=(node, *term.calls)) for term in graph.terms[before:]
        ]
        return results
    edits, call_edits = graph.config_edits[id(operation)], graph.call_edits[id(node)]
    configs, calls = len(edits), len(call_edits)
    shapes = (
        [tuple(tensor.shape) for tensor in node.outputs]
        if output_shapes is None
        else next(output_shapes)
    )
    call = LayerCall(
        graph,
        operation,
        node.name,
        inputs,
        shapes,
        node.args,
        node.kwargs,
        node,
        _propagate_inner_model,
    )
    if find_rule(operation) is None and node.closed_reason:
        results = call.report_unknown(
            f"no rule for this class, and it cannot be opened: {node.closed_reason}"
        )
    else:
        results = apply_rule(call)
    if first_inputs is not None and (edits or calls):
        # all calls share one config, so their channels must be the same
        if id(operation) not in graph.by_weights:
            _link_shared_inputs(graph, node.name, first_inputs, inputs)
        del edits[configs:]
        if calls:
            del call_edits[calls:]
    if first_inputs is None and (reason := find_rebuild_failure(operation)):
        graph.copied[id(operation)] = node.name, type(operation).__name__, reason
    if id(operation) in graph.copied:
        _freeze_copied(call, results, calls)
    graph.first_inputs.setdefault(id(operation), inputs)
    return results


def _propagate_inner_model(
    model: Any, inputs: Sequence[Slots], graph: CouplingGraph
) -> tuple[Program, list[Slots]]:
    program = record_program(model, lambda layer: not has_rule(layer))
    return program, propagate_slots(program, inputs, graph)


def _freeze_copied(call: LayerCall, results: list[Slots], calls: int) -> None:
    """Freeze the channels of a layer that can only be copied unchanged."""
    graph, layer = call.graph, call.layer
    weights = {id(weight) for weight in layer.weights}
    bound = [item for (weight, _), item in graph.bindings.items() if weight in weights and item]
    edits = [*graph.config_edits[id(layer)], *graph.scales[id(layer)]]
    if not bound and not edits and len(graph.call_edits[id(call.node)]) == calls:
        return
    name, kind, reason = graph.copied[id(layer)]
    text = f"layer '{name}' ({kind}) cannot be rebuilt from its config: {reason}"
    for slots in (*call.inputs, *results):
        call.freeze_axes(slots, text)
    for binding in bound:
        call.freeze(binding.ids, text)


def _link_shared_inputs(
    graph: CouplingGraph, name: str, first: list[Slots], second: list[Slots]
) -> None:
    reason = "a shared layer is called on other channels too"
    nothing = Slots((), ())  # one call may have more inputs, such as a mask
    for first_slots, second_slots in zip_longest(first, second, fillvalue=nothing):
        for a, b in zip_longest(first_slots.axes, second_slots.axes):
            if a is not None and b is not None and len(a) == len(b):
                graph.link(a, b)
            else:
                graph.freeze(a, reason, name)
                graph.freeze(b, reason, name)
