"""What is left of a program when blocks leave: which blocks each call and weight needs.

A call runs as long as something that is left takes what it makes. So what it needs is an "or" of
"and"s of blocks: a layer in a block needs the block, one in a block within a block needs both, a
normalization that two blocks share needs either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from compress.model.program import Node, Program

Needs = frozenset[frozenset[int]]
"""Sets of blocks (their indices), of which one must be present as a whole; none holds another."""

ALWAYS: Needs = frozenset([frozenset()])
"""Whatever leaves, it stays."""


def either(needs: Iterable[Needs]) -> Needs:
    """Returns what is met where one of several is."""
    sets = frozenset().union(*needs)
    return frozenset(one for one in sets if not any(other < one for other in sets))


def both(first: Needs, second: Needs) -> Needs:
    """Returns what is met where both are."""
    if first == ALWAYS:
        return second
    return either([frozenset(one | two for one in first for two in second)])


def met(needs: Needs, dropped: Collection[int]) -> bool:
    """Tells whether something stays when blocks leave."""
    return any(one.isdisjoint(dropped) for one in needs)


def needs_of_calls(program: Program, operands: Mapping[tuple[int, int], int]) -> dict[int, Needs]:
    """Returns what each call of a program needs, by id, those of nested models apart.

    Args:
        program: The recorded model, or a nested one.
        operands: The block that is an operand: (id of the call, place among its inputs) ->
            index.
    """
    reached: dict[int, Needs] = dict.fromkeys(map(id, program.outputs), ALWAYS)
    found: dict[int, Needs] = {}
    for node in reversed(program.nodes):
        taken = [reached[id(tensor)] for tensor in node.outputs if id(tensor) in reached]
        # what nobody takes was there before; it stays
        own = found[id(node)] = either(taken) if taken else ALWAYS
        for place, tensor in enumerate(node.inputs):
            block = operands.get((id(node), place))
            edge = own if block is None else both(frozenset([frozenset([block])]), own)
            reached[id(tensor)] = either([reached.get(id(tensor), frozenset()), edge])
    return found


def needs_of_weights(program: Program, calls: Mapping[int, Needs]) -> dict[int, Needs]:
    """Returns what each weight needs, by id: one of the calls that it takes part in.

    Args:
        program: The recorded model.
        calls: What calls need, nested models' among them.
    """
    found: dict[int, Needs] = {}

    def visit(nodes: Iterable[Node], outer: Needs) -> None:
        for node in nodes:
            own = both(outer, calls.get(id(node), ALWAYS))
            if node.body is not None:
                visit(node.body.nodes, own)
                continue
            weights: Iterable[Any] = getattr(node.operation, "weights", ())
            for weight in weights:
                found[id(weight)] = either([found.get(id(weight), frozenset()), own])

    visit(program.nodes, ALWAYS)
    return found
