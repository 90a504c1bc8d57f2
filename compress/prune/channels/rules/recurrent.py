"""Recurrent layers and their cells: LSTM, GRU, SimpleRNN, convolutional LSTM, stacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots
from compress.prune.channels.rules._arguments import masks_fixed, tensors
from compress.prune.channels.rules._base import inner, layer_rule
from compress.prune.channels.rules._common import (
    _probe,
    channel_axis,
    channels_only,
    spatial_positions,
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
    masks_fixed(call, given)
    x, states = given["sequences"][0], given.get("initial_state", [])
    call.freeze(x.axes[1], "a recurrence runs along it")
    step = Slots((x.shape[0], *x.shape[2:]), (None, *x.axes[2:]), x.zero, x.origin)
    shape = call.shapes[0]
    shape = (shape[0], *shape[2:]) if layer.return_sequences else shape
    results = inner(
        call,
        layer.cell,
        [step, *states],
        [shape, *call.shapes[1:]],
        path,
        positions=x.shape[1] or 1,
    )
    last, moved = results[0], int(layer.return_sequences)
    axes = {axis + moved: last.axes[axis] for axis in last.tracked}
    out = call.out(axes, zero=last.zero, origin=last.origin)
    return [out, *results[1 : len(call.shapes)]]


@layer_rule("LSTMCell")
def lstm_cell(call: LayerCall) -> list[Slots]:
    """Gates i, f, c, o lie side by side; the states are h and c."""
    return _cell(call, "units", gates=4, states=2)


@layer_rule("GRUCell")
def gru_cell(call: LayerCall) -> list[Slots]:
    """Gates z, r, h lie side by side; with `reset_after` the bias is (2, 3 x units)."""
    return _cell(call, "units", gates=3, states=1)


@layer_rule("SimpleRNNCell")
def simple_cell(call: LayerCall) -> list[Slots]:
    """One kernel (in, units), one (units, units)."""
    return _cell(call, "units", gates=1, states=1)


@layer_rule("ConvLSTMCell")
def convolutional_cell(call: LayerCall) -> list[Slots]:
    """As LSTMCell, with kernels (*size, in, 4 x filters) and (*size, filters, 4 x filters)."""
    return _cell(call, "filters", gates=4, states=2)


def _cell(call: LayerCall, key: str, gates: int, states: int) -> list[Slots]:
    """A unit owns its column in every gate and its row of the recurrent kernel.

    Its state stays exactly zero without kernels and bias if it began at zero and the
    activation maps 0 to 0.
    """
    layer, shape = call.layer, call.shapes[0]
    axis = channel_axis(layer, len(shape))
    x, *given = [channels_only(call, slots, axis, "a recurrence") for slots in call.inputs]
    units = call.new(getattr(layer, key))
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
    ids = x.axes[axis]
    call.macs(positions, layer.kernel.shape[-2] if ids is None else ids, gated)
    call.macs(positions, units, gated)
    axes = tuple(units if index == axis else None for index in range(len(shape)))
    return [Slots(shape, axes, zero, x.origin)] * (1 + states)


def _entry_by_entry(call: LayerCall, units: Ids) -> bool:
    """Freezes units that an activation mixes; tells whether the activation maps 0 to 0."""
    zero = True
    for name in ("activation", "recurrent_activation"):
        function = getattr(call.layer, name, None)
        if function is None:
            continue
        pointwise, silent = _probe(function)
        if not pointwise:
            text = getattr(function, "__name__", repr(function))
            call.freeze(units, f"activation {text} mixes units")
        zero = zero and (silent or name == "recurrent_activation")
    return zero


@layer_rule("StackedRNNCells")
def stacked_cells(call: LayerCall) -> list[Slots]:
    """Each cell feeds the next one at the same step."""
    import keras

    x, *given = call.inputs
    states: list[Slots] = []
    for index, cell in enumerate(call.layer.cells):
        count = len(keras.tree.flatten(cell.state_size))
        mine, given = given[:count], given[count:]
        shape = (*call.shapes[0][:-1], _width(cell))
        shapes = [shape] * (1 + count)
        x, *new = inner(call, cell, [x, *mine], shapes, ("cells", index, "config"))
        states += new
    return [x, *states]


def _width(cell: Any) -> int:
    import keras

    width = getattr(cell, "output_size", None)
    return int(keras.tree.flatten(cell.state_size)[0] if width is None else width)
