"""Layers around layers: Bidirectional and TimeDistributed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from compress.model import walk
from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Ids, Slots
from compress.prune.channels.rules._arguments import masks_fixed, tensors
from compress.prune.channels.rules._base import known, layer_rule


@layer_rule("Bidirectional")
def bidirectional(site: Site) -> list[Slots]:
    """Both directions keep the same units: Keras takes their widths to be equal."""
    layer = site.layer
    if layer.stateful:
        return site.unknown("it carries its state from batch to batch")
    site.follows_weights()
    given = tensors(site, "sequences", "initial_state")
    masks_fixed(site, given)
    x, states = given["sequences"][0], given.get("initial_state", [])
    shape = list(site.shapes[0])
    if layer.merge_mode == "concat":
        shape[-1] = int(shape[-1] or 0) // 2
    made = site.shapes[2 if layer.merge_mode is None else 1 :]
    half, given_half = len(made) // 2, len(states) // 2
    shapes = [tuple(shape), *made[:half]]
    forward = site.inner(
        layer.forward_layer, [x, *states[:given_half]], shapes, ("layer", "config")
    )
    backward = site.inner(
        layer.backward_layer, [x, *states[given_half:]], shapes, ("backward_layer", "config")
    )
    if not _tied(site, forward, backward):
        return site.unknown("its two layers have different widths")
    return [*_merged(site, forward[0], backward[0]), *forward[1:], *backward[1:]]


def _tied(site: Site, forward: list[Slots], backward: list[Slots]) -> bool:
    for one, two in zip(forward, backward, strict=True):
        for first, second in zip(one.axes, two.axes, strict=True):
            if first is not None and second is not None and len(first) != len(second):
                return False
            site.link(first, second, "the other direction is fixed")
    return True


def _merged(site: Site, one: Slots, two: Slots) -> list[Slots]:
    mode = site.layer.merge_mode
    if mode is None:
        return [one, two]
    axes: dict[int, Ids | None] = {axis: one.axes[axis] for axis in one.tracked}
    last = len(one.shape) - 1
    first, second = one.axes[last], two.axes[last]
    if mode == "concat" and first is not None and second is not None:
        axes[last] = np.concatenate([first, second])
    zero = one.zero or two.zero if mode == "mul" else one.zero and two.zero
    return [site.out(axes, zero=zero, origin=one.origin)]


@layer_rule("TimeDistributed")
def time_distributed(site: Site) -> list[Slots]:
    """The rule of the layer, or of every layer of the model, inside at every step.

    What is also called outside of its wrapper becomes a copy there, as it does by saving.
    """
    layer = site.layer
    given = tensors(site, "inputs")
    masks_fixed(site, given)
    x, shape = given["inputs"][0], site.shapes[0]
    site.freeze(x.axes[1], "a layer is distributed over it")
    step = Slots((x.shape[0], *x.shape[2:]), (None, *x.axes[2:]), x.zero, x.origin)
    steps = x.shape[1] or 1
    if walk.is_graph(layer.layer):
        result = _model(site, step, steps)
    else:
        inside = (shape[0], *shape[2:])
        result = site.inner(layer.layer, [step], [inside], ("layer", "config"), steps)[0]
    axes = {axis + 1: result.axes[axis] for axis in result.tracked}
    return [site.out(axes, zero=result.zero, origin=result.origin)]


def _model(site: Site, step: Slots, steps: int) -> Slots:
    """Follows slots through a model inside; surgery builds it anew into the config."""
    from compress.model.program import record
    from compress.prune.channels.propagate import run
    from compress.prune.channels.surgery import rebuilt

    ledger = site.ledger
    program = record(site.layer.layer, lambda layer: not known(layer))
    before = len(ledger.terms)
    result = run(program, [step], ledger)[0]
    ledger.terms[before:] = [
        replace(term, coefficient=term.coefficient * steps) for term in ledger.terms[before:]
    ]
    for node in program.walk():
        edits = ledger.edits.get(id(node.operation))
        for variable, factor in edits.scales if edits else ():
            site.scale(variable, factor)

    def change(config: dict[str, Any], kept: Any) -> None:
        import keras

        model = rebuilt(program, ledger, kept)
        config["layer"] = keras.saving.serialize_keras_object(model)

    site.edit(change)
    return result
