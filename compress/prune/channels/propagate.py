"""Follows slots through a program: the rule of each call, shared layers and models tied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from compress.model.program import Node, Program
from compress.model.rebuild import why_not_rebuildable
from compress.prune.channels.coupling.call import Site
from compress.prune.channels.coupling.slots import Ledger, Shape, Slots
from compress.prune.channels.rules import apply, rule_for

Shapes = list[Shape]


def input_slots(program: Program, shapes: Sequence[Shape] | None = None) -> list[Slots]:
    """Returns the slots of a model's inputs: none of their axes is tracked."""
    sizes = [tuple(tensor.shape) for tensor in program.inputs] if shapes is None else shapes
    return [
        Slots(shape, (None,) * len(shape), origin=f"model input '{tensor.name}'")
        for shape, tensor in zip(sizes, program.inputs, strict=True)
    ]


def run(
    program: Program,
    inputs: Sequence[Slots],
    ledger: Ledger,
    sized: Iterator[Shapes] | None = None,
) -> list[Slots]:
    """Follows slots through a program; nested programs are run at every call.

    Args:
        program: The recorded model.
        inputs: Slots of its inputs.
        ledger: Is filled.
        sized: Output shapes of each call in the order of the calls, in place of the
            program's own, which may be open.

    Returns:
        Slots of its outputs.
    """
    slots: dict[int, Slots] = {}
    for tensor, value in zip(program.inputs, inputs, strict=True):
        slots[id(tensor)] = value
        ledger.tensors.setdefault(id(tensor), value)
    for node in program.nodes:
        received = [slots[id(tensor)] for tensor in node.inputs]
        results = _visit(node, received, ledger, sized)
        for tensor, result in zip(node.outputs, results, strict=True):
            slots[id(tensor)] = result
            ledger.tensors.setdefault(id(tensor), result)
    return [slots[id(tensor)] for tensor in program.outputs]


def _visit(
    node: Node, inputs: list[Slots], ledger: Ledger, sized: Iterator[Shapes] | None
) -> list[Slots]:
    operation = node.operation
    again = ledger.first_inputs.get(id(operation))
    if node.body is not None:
        if again is not None:
            _tie(ledger, node.name, again, inputs)
        ledger.first_inputs.setdefault(id(operation), inputs)
        return run(node.body, inputs, ledger, sized)
    configs = len(ledger.edits[id(operation)].config) if id(operation) in ledger.edits else 0
    calls = len(ledger.call_edits.get(id(node), ()))
    shapes = [tuple(tensor.shape) for tensor in node.outputs] if sized is None else next(sized)
    site = Site(ledger, operation, node.name, inputs, shapes, node.args, node.kwargs, node=node)
    if rule_for(operation) is None and node.closed:
        results = site.unknown(f"no rule for this class, and it cannot be opened: {node.closed}")
    else:
        results = apply(site)
    edits = ledger.edits.get(id(operation))
    if again is not None and ((edits and edits.config) or calls):
        # one config serves all calls: their channels must be the same ones
        if id(operation) not in ledger.by_weights:
            _tie(ledger, node.name, again, inputs)
        if edits:
            del edits.config[configs:]
        if calls:
            del ledger.call_edits[id(node)][calls:]
    if again is None and (reason := why_not_rebuildable(operation)):
        ledger.copied[id(operation)] = node.name, type(operation).__name__, reason
    if id(operation) in ledger.copied:
        _held(site, results, calls)
    ledger.first_inputs.setdefault(id(operation), inputs)
    return results


def _held(site: Site, results: list[Slots], calls: int) -> None:
    """Keeps the channels of a layer that surgery can only copy as it is, if it would change."""
    ledger, layer = site.ledger, site.layer
    weights = {id(weight) for weight in layer.weights}
    bound = [item for (weight, _), item in ledger.bindings.items() if weight in weights and item]
    edits = ledger.edits.get(id(layer))
    if not bound and not edits and len(ledger.call_edits.get(id(site.node), ())) == calls:
        return
    name, kind, reason = ledger.copied[id(layer)]
    text = f"layer '{name}' ({kind}) cannot be rebuilt from its config: {reason}"
    for slots in (*site.inputs, *results):
        site.barrier(slots, text)
    for binding in bound:
        site.freeze(binding.ids, text)


def _tie(ledger: Ledger, name: str, first: list[Slots], second: list[Slots]) -> None:
    """Ties the inputs of two calls of one layer or model."""
    reason = "a shared layer is called on other channels too"
    nothing = Slots((), ())  # one call may take more tensors, such as a mask
    for one, two in zip_longest(first, second, fillvalue=nothing):
        for axis in range(max(len(one.axes), len(two.axes))):
            a = one.axes[axis] if axis < len(one.axes) else None
            b = two.axes[axis] if axis < len(two.axes) else None
            if a is not None and b is not None and len(a) == len(b):
                ledger.link(a, b)
                continue
            ledger.freeze(a, reason, name)
            ledger.freeze(b, reason, name)
