"""From a model to its coupling: the rules are run over its program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compress.measure.counting import given_shapes
from compress.model.program import Program
from compress.model.recording import record
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import CouplingGraph
from compress.prune.channels.propagate import input_slots, run
from compress.prune.channels.rules import known

if TYPE_CHECKING:
    import keras


def coupling_of(model: keras.Model, input_shape: Any = None) -> Coupling:
    """Analyses a model.

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
    for tensor, slots in zip(program.outputs, outputs, strict=True):
        for axis in slots.tracked:
            name = _producer(program, tensor)
            graph.freeze(slots.axes[axis], f"model output '{name}'", name)
    return Coupling(program, graph, input_shape)


def _producer(program: Program, tensor: Any) -> str:
    for node in program.nodes:
        if any(output is tensor for output in node.outputs):
            return node.name
    return str(tensor.name)
