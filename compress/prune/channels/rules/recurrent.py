"""Recurrent layers, their cells, and layers around layers: Bidirectional, TimeDistributed."""

from __future__ import annotations

import math

import numpy as np

from compress.core.lazy_modules import keras
from compress.model.internals import is_graph
from compress.prune.channels.coupling.slots import Ids, LayerCall, Slots
from compress.prune.channels.rules._base import (
    apply,
    channel_axis,
    channels_only,
    layer_rule,
    probe,
    spatial_positions,
    tensors,
)


@layer_rule("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
def recurrent(call: LayerCall) -> list[Slots]:
    """The rule of its cell at every step; the cell's config is the layer's own."""
    return _over_steps(call, ())


@layer_rule("RNN")
def any_cell(call: LayerCall) -> list[Slots]:
    """The rule of its cell at every step."""
    if "cell" not in call.layer.get_config():
        return call.unknown("its config does not hold the cell")
    return _over_steps(call, ("cell", "config"))


def _over_steps(call: LayerCall, path: tuple[str, ...]) -> list[Slots]:
    layer = call.layer
    if layer.stateful:
        return call.unknown("it carries its state from batch to batch")
    call.follows_weights()
    given = tensors(call, "sequences", "initial_state")
    x, states = given["sequences"][0], given.get("initial_state", [])
    call.freeze(x.axes[1], "a recurrence runs along it")
    step = Slots((x.shape[0], *x.shape[2:]), (None, *x.axes[2:]), x.zero, x.origin)
    shape = call.shapes[0]
    shape = (shape[0], *shape[2:]) if layer.return_sequences else shape
    shapes = [shape, *call.shapes[1:]]
    results = apply(call.inside(layer.cell, [step, *states], shapes, path, x.shape[1] or 1))
    last, moved = results[0], int(layer.return_sequences)
    axes = {axis + moved: last.axes[axis] for axis in last.tracked}
    return [call.out(axes, zero=last.zero, origin=last.origin), *results[1 : len(call.shapes)]]


@layer_rule("LSTMCell", "GRUCell", "SimpleRNNCell", "ConvLSTMCell")
def recurrent_cell(call: LayerCall) -> list[Slots]:
    """A unit owns its column in every gate and its row of the recurrent kernel.

    Gates lie side by side: i, f, c, o of an LSTM, z, r, h of a GRU, whose bias is (2, 3 x units)
    with `reset_after`. A unit's state stays exactly zero without kernels and bias if it began at
    zero and the activation maps 0 to 0.
    """
    layer, shape = call.layer, call.shapes[0]
    axis = channel_axis(layer, len(shape))
    x, *given = [channels_only(call, slots, axis, "a recurrence") for slots in call.inputs]
    key = "filters" if hasattr(layer, "filters") else "units"
    units = call.new(getattr(layer, key))
    gates = layer.kernel.shape[-1] // len(units)
    gated = units if gates == 1 else np.tile(units, gates)
    call.bind(layer.kernel, -2, x.axes[axis])
    call.bind(layer.kernel, -1, gated)
    call.bind(layer.recurrent_kernel, -2, units)
    call.bind(layer.recurrent_kernel, -1, gated)
    call.bind(layer.bias, -1, gated)
    call.config(key, units)
    for state in given:
        call.link(units, state.axes[axis], f"its initial state is fixed ({state.origin})")
    zero = _entry_by_entry(call, units) and all(state.zero for state in given)
    positions = spatial_positions(shape, axis) * math.prod(getattr(layer, "kernel_size", ()))
    call.macs(positions, x.get_factor(axis), gated)
    call.macs(positions, units, gated)
    axes = tuple(units if index == axis else None for index in range(len(shape)))
    # an LSTM, of four gates, has two states
    return [Slots(shape, axes, zero, x.origin)] * (3 if gates == 4 else 2)


def _entry_by_entry(call: LayerCall, units: Ids) -> bool:
    """Freeze units that an activation mixes; tells whether the activation maps 0 to 0."""
    zero = True
    for name in ("activation", "recurrent_activation"):
        function = getattr(call.layer, name, None)
        if function is None:
            continue
        pointwise, silent = probe(function)
        if not pointwise:
            text = getattr(function, "__name__", repr(function))
            call.freeze(units, f"activation {text} mixes units")
        zero = zero and (silent or name == "recurrent_activation")
    return zero


@layer_rule("StackedRNNCells")
def stacked_cells(call: LayerCall) -> list[Slots]:
    """Each cell feeds the next one at the same step."""
    x, *given = call.inputs
    states: list[Slots] = []
    for index, cell in enumerate(call.layer.cells):
        sizes = keras.tree.flatten(cell.state_size)
        mine, given = given[: len(sizes)], given[len(sizes) :]
        width = getattr(cell, "output_size", None)
        shape = (*call.shapes[0][:-1], int(sizes[0] if width is None else width))
        shapes = [shape] * (1 + len(sizes))
        x, *new = apply(call.inside(cell, [x, *mine], shapes, ("cells", index, "config")))
        states += new
    return [x, *states]


@layer_rule("Bidirectional")
def bidirectional(call: LayerCall) -> list[Slots]:
    """Both directions keep the same units: Keras takes their widths to be equal."""
    layer = call.layer
    if layer.stateful:
        return call.unknown("it carries its state from batch to batch")
    call.follows_weights()
    given = tensors(call, "sequences", "initial_state")
    x, states = given["sequences"][0], given.get("initial_state", [])
    shape = list(call.shapes[0])
    if layer.merge_mode == "concat":
        shape[-1] = int(shape[-1] or 0) // 2
    made = call.shapes[2 if layer.merge_mode is None else 1 :]
    half, given_half = len(made) // 2, len(states) // 2
    shapes = [tuple(shape), *made[:half]]
    forward, backward = (
        apply(call.inside(inner, [x, *own], shapes, (key, "config")))
        for inner, own, key in (
            (layer.forward_layer, states[:given_half], "layer"),
            (layer.backward_layer, states[given_half:], "backward_layer"),
        )
    )
    if not _tied(call, forward, backward):
        return call.unknown("its two layers have different widths")
    return [*_merged(call, forward[0], backward[0]), *forward[1:], *backward[1:]]


def _tied(call: LayerCall, forward: list[Slots], backward: list[Slots]) -> bool:
    for one, two in zip(forward, backward, strict=True):
        for first, second in zip(one.axes, two.axes, strict=True):
            if first is not None and second is not None and len(first) != len(second):
                return False
            call.link(first, second, "the other direction is fixed")
    return True


def _merged(call: LayerCall, one: Slots, two: Slots) -> list[Slots]:
    mode = call.layer.merge_mode
    if mode is None:
        return [one, two]
    axes: dict[int, Ids | None] = {axis: one.axes[axis] for axis in one.tracked}
    last = len(one.shape) - 1
    first, second = one.axes[last], two.axes[last]
    if mode == "concat" and first is not None and second is not None:
        axes[last] = np.concatenate([first, second])
    zero = one.zero or two.zero if mode == "mul" else one.zero and two.zero
    return [call.out(axes, zero=zero, origin=one.origin)]


@layer_rule("TimeDistributed")
def time_distributed(call: LayerCall) -> list[Slots]:
    """The rule of the layer, or of every layer of the model, inside at every step.

    What is also called outside of its wrapper becomes a copy there, as it does by saving.
    """
    layer = call.layer
    x, shape = tensors(call, "inputs")["inputs"][0], call.shapes[0]
    call.freeze(x.axes[1], "a layer is distributed over it")
    step = Slots((x.shape[0], *x.shape[2:]), (None, *x.axes[2:]), x.zero, x.origin)
    steps = x.shape[1] or 1
    if is_graph(layer.layer):
        result = call.model(layer.layer, [step], "layer", steps)[0]
    else:
        shapes, path = [(shape[0], *shape[2:])], ("layer", "config")
        result = apply(call.inside(layer.layer, [step], shapes, path, steps))[0]
    axes = {axis + 1: result.axes[axis] for axis in result.tracked}
    return [call.out(axes, zero=result.zero, origin=result.origin)]
