"""Which layers of a pruned model are solved for, what they were, and in which order."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from compress.core.errors import InputError
from compress.model.internals import has_silent_masks, layers_inside
from compress.model.program import Node, Program, Readers
from compress.reconstruction.kinds import Part, has_parts, parts_of
from compress.reconstruction.report import LEFT, LayerRepair


@dataclass(frozen=True, eq=False)
class Match:
    """A layer of the pruned model and what it was in the dense one.

    Attributes:
        name: Of both.
        layer, twin: In the pruned and in the dense model.
        calls, twin_calls: Their calls, in the order of the programs.
        parts, twins: Their kernels, in the order in which they are solved.
    """

    name: str
    layer: Any
    twin: Any
    calls: tuple[Node, ...]
    twin_calls: tuple[Node, ...]
    parts: list[Part]
    twins: list[Part]


def left(name: str, layer: Any, reason: str) -> LayerRepair:
    """Return the row of a layer that is not solved for."""
    return LayerRepair(name, type(layer).__name__, LEFT, reason=reason)


def opens(layer: Any) -> bool:
    """Tell of a layer that is no model whether it is opened: it is made of others."""
    made_of_others = not has_parts(layer) and layers_inside(layer, include_self=False)
    if type(layer).__name__ == "RNN" or not made_of_others or not layer.weights:
        return False
    # a trace has no masks but those among the arguments: it would do something else
    return not has_silent_masks(layer)


def matched(pruned: Program, dense: Program) -> tuple[dict[int, Match], list[LayerRepair]]:
    """Pair the layers of two flat programs that have kernels, by name.

    Returns:
        Matches by id of the pruned model's layer, and rows of those that are left.

    Raises:
        InputError: No layer of the pruned model is one of the dense one.
    """
    theirs = _calls(dense)
    matches: dict[int, Match] = {}
    rest: list[LayerRepair] = []
    own = _calls(pruned)
    for name, calls in own.items():
        layer = calls[0].operation
        if not _has_kernel(layer):
            continue
        twins, rank = theirs.get(name, []), len(calls[0].inputs[0].shape)
        parts, reason = parts_of(layer, rank)
        if not parts and not has_parts(layer) and has_silent_masks(layer):
            reason = "it is made of layers and given a mask that its call does not take"
        if any(part.guided for part in parts) and not all(map(_from_zero, calls)):
            reason = "it is given an initial state"
        if not twins:
            reason = "the dense model has no layer of this name"
        elif type(twins[0].operation) is not type(layer) or len(twins) != len(calls):
            reason = "in the dense model it is of another class or called another number of times"
        if reason:
            rest.append(left(name, layer, reason))
            continue
        twin = twins[0].operation
        matches[id(layer)] = Match(
            name, layer, twin, tuple(calls), tuple(twins), parts, parts_of(twin, rank)[0]
        )
    if not matches:
        names = [name for name, calls in own.items() if _has_kernel(calls[0].operation)]
        raise InputError(
            "The pruned model must have layers with kernels that bear the names of the dense "
            f"model's. Received: {', '.join(names[:5]) or 'no layers'}. Give the model that it was "
            "pruned from."
        )
    return matches, rest


def _from_zero(node: Node) -> bool:
    """Tell whether a recurrence is given a sequence, and at most its mask."""
    first = node.args[:1] == (node.inputs[0],)
    return first and all(x is node.kwargs.get("mask") for x in node.inputs[1:])


def _has_kernel(layer: Any) -> bool:
    return any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ()))


def _calls(program: Program) -> dict[str, list[Node]]:
    calls: dict[int, list[Node]] = {}
    for node in program.nodes:
        if hasattr(node.operation, "weights"):
            calls.setdefault(id(node.operation), []).append(node)
    return {nodes[0].name: nodes for nodes in calls.values()}


class Order:
    """An order of a program's calls, in steps; more may be asked of it as long as it can be had.

    Args:
        program: A flat program.
    """

    def __init__(self, program: Program) -> None:
        self.steps: list[list[Node]] = [[node] for node in program.nodes]
        self._step = {id(node): place for place, node in enumerate(program.nodes)}
        graph = Readers(program.nodes)
        self._maker = {key: self._step[id(node)] for key, node in graph.maker.items()}
        self._users: list[set[int]] = [
            {self._step[id(user)] for tensor in node.outputs for user in graph.users(tensor)}
            for node in program.nodes
        ]

    def before(self, tensor: Any, node: Node) -> bool:
        """Ask that a tensor is made before a call; returns whether that can be."""
        if id(tensor) not in self._maker:
            return True  # an input of the model
        first, second = self._maker[id(tensor)], self._step[id(node)]
        if first in self._reached(second):
            return False
        self._users[first].add(second)
        return True

    def together(self, nodes: Sequence[Node]) -> bool:
        """Ask that calls are made in one step; returns whether that can be."""
        places = [self._step[id(node)] for node in nodes]
        if any(place in self._reached(other) - {other} for other in places for place in places):
            return False
        first = min(places)
        reached = set[int]().union(*(self._users[place] for place in places))
        for users in self._users:
            if users & set(places):
                users -= set(places)
                users.add(first)
        for place in places:
            self._users[place] = set()
            self.steps[place] = []
        self._users[first] = reached
        self.steps[first] = list(nodes)
        self._step.update((id(node), first) for node in nodes)
        for node in nodes:
            self._maker.update((id(tensor), first) for tensor in node.outputs)
        return True

    def sorted(self) -> list[list[Node]]:
        """Return the steps, those first that came first in the program."""
        sorter = TopologicalSorter({place: set[int]() for place in range(len(self.steps))})
        for place, users in enumerate(self._users):
            for user in users:
                sorter.add(user, place)
        sorter.prepare()
        ready: list[int] = []
        order: list[int] = []
        while sorter.is_active():
            for place in sorter.get_ready():
                heapq.heappush(ready, place)
            order.append(heapq.heappop(ready))
            sorter.done(order[-1])
        return [self.steps[place] for place in order if self.steps[place]]

    def _reached(self, start: int) -> set[int]:
        """Return the steps that need a step's results, itself among them."""
        found, stack = {start}, [start]
        while stack:
            for user in self._users[stack.pop()] - found:
                found.add(user)
                stack.append(user)
        return found


def joined(order: Order, matches: dict[int, Match]) -> list[LayerRepair]:
    """Bring the calls of each layer that is solved for into one step.

    Layers of which one call needs the result of another are taken out of `matches`.

    Returns:
        Rows of the layers that are left.
    """
    rest = []
    for match in list(matches.values()):
        if len(match.calls) > 1 and not order.together(match.calls):
            del matches[id(match.layer)]
            reason = "a later call of it depends on an earlier one"
            rest.append(left(match.name, match.layer, reason))
    return rest
