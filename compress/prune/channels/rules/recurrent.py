"""Rules of recurrent layers, their cells, and wrappers (Bidirectional, TimeDistributed)."""

from __future__ import annotations

import math

import numpy as np

from compress.core.lazy_modules import keras
from compress.model.keras_internals import is_graph
from compress.prune.channels.coupling.slots import Ids, LayerCall, Slots
from compress.prune.channels.rules._base import (
    analyze_activation,
    apply_rule,
    collect_tensors,
    count_positions,
    find_channel_axis,
    freeze_other_axes,
    layer_rule,
)


@layer_rule("RNN")
def propagate_rnn(call: LayerCall) -> list[Slots]:
    """Apply the rule of the layer's cell, which has a separate config."""
    if "cell" not in call.layer.get_config():
        return call.report_unknown("its config does not hold the cell")
    return propagate_recurrent(call, ("cell", "config"))


@layer_rule("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
def propagate_recurrent(call: LayerCall, path: tuple[str, ...] = ()) -> list[Slots]:
    """Apply the rule of the layer's cell; the cell's config is the layer's own, or at a path."""
    layer = call.layer
    if layer.stateful:
        return call.report_unknown("it carries its state from batch to batch")
    call.link_by_weights()
    slots_by_argument = collect_tensors(call, "sequences", "initial_state")
    x, states = slots_by_argument["sequences"][0], slots_by_argument.get("initial_state", [])
    call.freeze(x.axes[1], "a recurrence runs along it")
    step = Slots((x.shape[0], *x.shape[2:]), (None, *x.axes[2:]), x.zero, x.origin)
    shape = call.shapes[0]
    shape = (shape[0], *shape[2:]) if layer.return_sequences else shape
    shapes = [shape, *call.shapes[1:]]
    results = apply_rule(
        call.create_inner_call(layer.cell, [step, *states], shapes, path, x.shape[1] or 1)
    )
    last, offset = results[0], int(layer.return_sequences)
    axes = {axis + offset: last.axes[axis] for axis in last.tracked}
    return [call.out(axes, zero=last.zero, origin=last.origin), *results[1 : len(call.shapes)]]


@layer_rule("LSTMCell", "GRUCell", "SimpleRNNCell", "ConvLSTMCell")
def propagate_recurrent_cell(call: LayerCall) -> list[Slots]:
    """Bind each unit to its column in every gate and to its row of the recurrent kernel.

    Gates are side by side: i, f, c, o of an LSTM; z, r, h of a GRU, whose bias is (2, 3 x units)
    with `reset_after`. The state of a removed unit is exactly zero if its initial state is zero and
    the activation maps 0 to 0.
    """
    layer, shape = call.layer, call.shapes[0]
    axis = find_channel_axis(layer, len(shape))
    x, *states = [freeze_other_axes(call, slots, axis, "a recurrence") for slots in call.inputs]
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
    for state in states:
        call.link(units, state.axes[axis], f"its initial state is fixed ({state.origin})")
    zero = _check_activations(call, units) and all(state.zero for state in states)
    positions = count_positions(shape, axis) * math.prod(getattr(layer, "kernel_size", ()))
    call.macs(positions, x.get_factor(axis), gated)
    call.macs(positions, units, gated)
    axes = tuple(units if index == axis else None for index in range(len(shape)))
    # an LSTM (four gates) has two states
    return [Slots(shape, axes, zero, x.origin)] * (3 if gates == 4 else 2)


def _check_activations(call: LayerCall, units: Ids) -> bool:
    """Freeze units that an activation mixes, and return whether the activation maps 0 to 0."""
    zero = True
    for name in ("activation", "recurrent_activation"):
        function = getattr(call.layer, name, None)
        if function is None:
            continue
        pointwise, silent = analyze_activation(function)
        if not pointwise:
            text = getattr(function, "__name__", repr(function))
            call.freeze(units, f"activation {text} mixes units")
        zero = zero and (silent or name == "recurrent_activation")
    return zero


@layer_rule("StackedRNNCells")
def propagate_stacked_cells(call: LayerCall) -> list[Slots]:
    """Apply the rules of the cells; each cell feeds the next one at the same step."""
    x, *remaining_states = call.inputs
    states: list[Slots] = []
    for index, cell in enumerate(call.layer.cells):
        sizes = keras.tree.flatten(cell.state_size)
        cell_states, remaining_states = (
            remaining_states[: len(sizes)],
            remaining_states[len(sizes) :],
        )
        width = getattr(cell, "output_size", None)
        shape = (*call.shapes[0][:-1], int(sizes[0] if width is None else width))
        shapes = [shape] * (1 + len(sizes))
        x, *new = apply_rule(
            call.create_inner_call(cell, [x, *cell_states], shapes, ("cells", index, "config"))
        )
        states += new
    return [x, *states]


@layer_rule("Bidirectional")
def propagate_bidirectional(call: LayerCall) -> list[Slots]:
    """Link the units of both directions, because Keras requires equal numbers of units."""
    layer = call.layer
    if layer.stateful:
        return call.report_unknown("it carries its state from batch to batch")
    call.link_by_weights()
    slots_by_argument = collect_tensors(call, "sequences", "initial_state")
    x, states = slots_by_argument["sequences"][0], slots_by_argument.get("initial_state", [])
    shape = list(call.shapes[0])
    if layer.merge_mode == "concat":
        shape[-1] = int(shape[-1] or 0) // 2
    state_shapes = call.shapes[2 if layer.merge_mode is None else 1 :]
    half, half_states = len(state_shapes) // 2, len(states) // 2
    shapes = [tuple(shape), *state_shapes[:half]]
    forward, backward = (
        apply_rule(call.create_inner_call(inner, [x, *direction_states], shapes, (key, "config")))
        for inner, direction_states, key in (
            (layer.forward_layer, states[:half_states], "layer"),
            (layer.backward_layer, states[half_states:], "backward_layer"),
        )
    )
    if not _link_directions(call, forward, backward):
        return call.report_unknown("its two layers have different channel counts")
    return [*_merge_directions(call, forward[0], backward[0]), *forward[1:], *backward[1:]]


def _link_directions(call: LayerCall, forward: list[Slots], backward: list[Slots]) -> bool:
    for forward_slots, backward_slots in zip(forward, backward, strict=True):
        for first, second in zip(forward_slots.axes, backward_slots.axes, strict=True):
            if first is not None and second is not None and len(first) != len(second):
                return False
            call.link(first, second, "the other direction is fixed")
    return True


def _merge_directions(call: LayerCall, forward: Slots, backward: Slots) -> list[Slots]:
    mode = call.layer.merge_mode
    if mode is None:
        return [forward, backward]
    axes: dict[int, Ids | None] = {axis: forward.axes[axis] for axis in forward.tracked}
    last = len(forward.shape) - 1
    first, second = forward.axes[last], backward.axes[last]
    if mode == "concat":
        is_known = first is not None and second is not None
        axes[last] = np.concatenate([first, second]) if is_known else None
    zero = forward.zero or backward.zero if mode == "mul" else forward.zero and backward.zero
    return [call.out(axes, zero=zero, origin=forward.origin)]


@layer_rule("TimeDistributed")
def propagate_time_distributed(call: LayerCall) -> list[Slots]:
    """Apply the rule of the inner layer, or the rules of all layers of an inner model.

    If the inner layer is also called outside of its wrapper, the wrapper of the pruned model
    contains a copy of it, as after saving and loading.
    """
    layer = call.layer
    x, shape = collect_tensors(call, "inputs")["inputs"][0], call.shapes[0]
    call.freeze(x.axes[1], "a layer is distributed over it")
    step = Slots((x.shape[0], *x.shape[2:]), (None, *x.axes[2:]), x.zero, x.origin)
    steps = x.shape[1] or 1
    if is_graph(layer.layer):
        result = call.propagate_model(layer.layer, [step], steps)[0]
    else:
        shapes, path = [(shape[0], *shape[2:])], ("layer", "config")
        result = apply_rule(call.create_inner_call(layer.layer, [step], shapes, path, steps))[0]
    axes = {axis + 1: result.axes[axis] for axis in result.tracked}
    return [call.out(axes, zero=result.zero, origin=result.origin)]
