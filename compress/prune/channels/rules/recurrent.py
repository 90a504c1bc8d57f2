"""Recurrent layers and their cells: LSTM, GRU, SimpleRNN, convolutional LSTM, stacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Ids, Slots
from compress.prune.channels.rules._arguments import masks_fixed, tensors
from compress.prune.channels.rules._base import layer_rule
from compress.prune.channels.rules._common import (
    _probe,
    channel_axis,
    channels_only,
    spatial_positions,
)


@layer_rule("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
def recurrent(site: Site) -> list[Slots]:
    """The rule of its cell at every step; the cell's config is the layer's own."""
    return _over_steps(site, ())


@layer_rule("RNN")
def any_cell(site: Site) -> list[Slots]:
    """The rule of its cell at every step."""
    if "cell" not in site.layer.get_config():
        return site.unknown("its config does not hold the cell")
    return _over_steps(site, ("cell", "config"))


def _over_steps(site: Site, path: tuple[str, ...]) -> list[Slots]:
    layer = site.layer
    if layer.stateful:
        return site.unknown("it carries its state from batch to batch")
    site.follows_weights()
    given = tensors(site, "sequences", "initial_state")
    masks_fixed(site, given)
    x, states = given["sequences"][0], given.get("initial_state", [])
    site.freeze(x.axes[1], "a recurrence runs along it")
    step = Slots((x.shape[0], *x.shape[2:]), (None, *x.axes[2:]), x.zero, x.origin)
    shape = site.shapes[0]
    shape = (shape[0], *shape[2:]) if layer.return_sequences else shape
    results = site.inner(
        layer.cell, [step, *states], [shape, *site.shapes[1:]], path, positions=x.shape[1] or 1
    )
    last, moved = results[0], int(layer.return_sequences)
    axes = {axis + moved: last.axes[axis] for axis in last.tracked}
    out = site.out(axes, zero=last.zero, origin=last.origin)
    return [out, *results[1 : len(site.shapes)]]


@layer_rule("LSTMCell")
def lstm_cell(site: Site) -> list[Slots]:
    """Gates i, f, c, o lie side by side; the states are h and c."""
    return _cell(site, "units", gates=4, states=2)


@layer_rule("GRUCell")
def gru_cell(site: Site) -> list[Slots]:
    """Gates z, r, h lie side by side; with `reset_after` the bias is (2, 3 x units)."""
    return _cell(site, "units", gates=3, states=1)


@layer_rule("SimpleRNNCell")
def simple_cell(site: Site) -> list[Slots]:
    """One kernel (in, units), one (units, units)."""
    return _cell(site, "units", gates=1, states=1)


@layer_rule("ConvLSTMCell")
def convolutional_cell(site: Site) -> list[Slots]:
    """As LSTMCell, with kernels (*size, in, 4 x filters) and (*size, filters, 4 x filters)."""
    return _cell(site, "filters", gates=4, states=2)


def _cell(site: Site, key: str, gates: int, states: int) -> list[Slots]:
    """A unit owns its column in every gate and its row of the recurrent kernel.

    Its state stays exactly zero without kernels and bias if it began at zero and the
    activation maps 0 to 0.
    """
    layer, shape = site.layer, site.shapes[0]
    axis = channel_axis(layer, len(shape))
    x, *given = [channels_only(site, slots, axis, "a recurrence") for slots in site.inputs]
    units = site.new(getattr(layer, key))
    gated = units if gates == 1 else np.tile(units, gates)
    site.bind(layer.kernel, -2, x.axes[axis])
    site.bind(layer.kernel, -1, gated)
    site.bind(layer.recurrent_kernel, -2, units)
    site.bind(layer.recurrent_kernel, -1, gated)
    site.bind(layer.bias, -1, gated)
    site.config(key, units)
    for state in given:
        site.link(units, state.axes[axis], f"its initial state is fixed ({state.origin})")
    zero = _entry_by_entry(site, units) and all(state.zero for state in given)
    positions = spatial_positions(shape, axis) * math.prod(getattr(layer, "kernel_size", ()))
    ids = x.axes[axis]
    site.macs(positions, layer.kernel.shape[-2] if ids is None else ids, gated)
    site.macs(positions, units, gated)
    axes = tuple(units if index == axis else None for index in range(len(shape)))
    return [Slots(shape, axes, zero, x.origin)] * (1 + states)


def _entry_by_entry(site: Site, units: Ids) -> bool:
    """Freezes units that an activation mixes; tells whether the activation maps 0 to 0."""
    zero = True
    for name in ("activation", "recurrent_activation"):
        function = getattr(site.layer, name, None)
        if function is None:
            continue
        pointwise, silent = _probe(function)
        if not pointwise:
            text = getattr(function, "__name__", repr(function))
            site.freeze(units, f"activation {text} mixes units")
        zero = zero and (silent or name == "recurrent_activation")
    return zero


@layer_rule("StackedRNNCells")
def stacked_cells(site: Site) -> list[Slots]:
    """Each cell feeds the next one at the same step."""
    import keras

    x, *given = site.inputs
    states: list[Slots] = []
    for index, cell in enumerate(site.layer.cells):
        count = len(keras.tree.flatten(cell.state_size))
        mine, given = given[:count], given[count:]
        shape = (*site.shapes[0][:-1], _width(cell))
        shapes = [shape] * (1 + count)
        x, *new = site.inner(cell, [x, *mine], shapes, ("cells", index, "config"))
        states += new
    return [x, *states]


def _width(cell: Any) -> int:
    import keras

    width = getattr(cell, "output_size", None)
    return int(keras.tree.flatten(cell.state_size)[0] if width is None else width)
