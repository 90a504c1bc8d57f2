"""Matching of a pruned model's layers with the original ones, and the order of reconstruction."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from compress.core.errors import InputError
from compress.model.keras_internals import has_implicit_masks, list_layers
from compress.model.program import Node, Program, TensorReaders
from compress.reconstruction.kernel_parts import KernelPart, build_parts, has_parts
from compress.reconstruction.report import SKIPPED, LayerRepair


@dataclass(frozen=True, eq=False)
class Match:
    """A layer of the pruned model with its counterpart in the original model.

    Attributes:
        name: Name of both.
        layer, original_layer: In the pruned and in the original model.
        calls, original_calls: Their calls, in the order of the programs.
        parts, original_parts: Their kernels, in the order of reconstruction.
    """

    name: str
    layer: Any
    original_layer: Any
    calls: tuple[Node, ...]
    original_calls: tuple[Node, ...]
    parts: list[KernelPart]
    original_parts: list[KernelPart]


def report_skipped(name: str, layer: Any, reason: str) -> LayerRepair:
    """Return the report row of a layer that is not reconstructed.

    Args:
        name: Path of the layer.
        layer: The layer.
        reason: Reason for skipping it.
    """
    return LayerRepair(name, type(layer).__name__, SKIPPED, reason=reason)


def should_open(layer: Any) -> bool:
    """Return whether a layer that is not a model is replaced by the calls of its inner layers."""
    inner_layers = not has_parts(layer) and list_layers(layer, include_self=False)
    if type(layer).__name__ == "RNN" or not inner_layers or not layer.weights:
        return False
    # a trace contains only masks passed as arguments: without implicit ones it would differ
    return not has_implicit_masks(layer)


def match_layers(pruned: Program, original: Program) -> tuple[dict[int, Match], list[LayerRepair]]:
    """Match the layers with kernels of two flat programs by name.

    Args:
        pruned, original: Programs of both models.

    Returns:
        Matches by id of the pruned model's layer, and report rows of the layers that are skipped.

    Raises:
        InputError: No layer of the pruned model matches one of the original model.
    """
    original_calls = _group_calls(original)
    matches: dict[int, Match] = {}
    skipped: list[LayerRepair] = []
    pruned_calls = _group_calls(pruned)
    for name, calls in pruned_calls.items():
        layer = calls[0].operation
        if not _has_kernel(layer):
            continue
        original_nodes, rank = original_calls.get(name, []), len(calls[0].inputs[0].shape)
        parts, reason = build_parts(layer, rank)
        if not parts and not has_parts(layer) and has_implicit_masks(layer):
            reason = "it is made of layers and given a mask that its call does not take"
        if any(part.uses_original_states for part in parts) and not all(
            map(_has_no_initial_state, calls)
        ):
            reason = "it is given an initial state"
        if not original_nodes:
            reason = "the dense model has no layer of this name"
        elif type(original_nodes[0].operation) is not type(layer) or len(original_nodes) != len(
            calls
        ):
            reason = "in the dense model it is of another class or called another number of times"
        if reason:
            skipped.append(report_skipped(name, layer, reason))
            continue
        original_layer = original_nodes[0].operation
        matches[id(layer)] = Match(
            name,
            layer,
            original_layer,
            tuple(calls),
            tuple(original_nodes),
            parts,
            build_parts(original_layer, rank)[0],
        )
    if not matches:
        names = [name for name, calls in pruned_calls.items() if _has_kernel(calls[0].operation)]
        raise InputError(
            "The pruned model must have layers with kernels that bear the names of the dense "
            f"model's. Received: {', '.join(names[:5]) or 'no layers'}. Give the model that it was "
            "pruned from."
        )
    return matches, skipped


def _has_no_initial_state(node: Node) -> bool:
    """Return whether a recurrent layer is called with a sequence and at most its mask."""
    is_first_input = node.args[:1] == (node.inputs[0],)
    return is_first_input and all(x is node.kwargs.get("mask") for x in node.inputs[1:])


def _has_kernel(layer: Any) -> bool:
    return any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ()))


def _group_calls(program: Program) -> dict[str, list[Node]]:
    calls: dict[int, list[Node]] = {}
    for node in program.nodes:
        if hasattr(node.operation, "weights"):
            calls.setdefault(id(node.operation), []).append(node)
    return {nodes[0].name: nodes for nodes in calls.values()}


class CallOrder:
    """An order of a program's calls in steps, with added constraints.

    Args:
        program: A flat program.
    """

    def __init__(self, program: Program) -> None:
        self.steps: list[list[Node]] = [[node] for node in program.nodes]
        self._step = {id(node): step for step, node in enumerate(program.nodes)}
        graph = TensorReaders(program.nodes)
        self._producer = {key: self._step[id(node)] for key, node in graph.producers.items()}
        self._users: list[set[int]] = [
            {self._step[id(user)] for tensor in node.outputs for user in graph.list_readers(tensor)}
            for node in program.nodes
        ]

    def require_before(self, tensor: Any, node: Node) -> bool:
        """Require that a tensor is computed before a call; return False if it is impossible."""
        if id(tensor) not in self._producer:
            return True  # an input of the model
        first, second = self._producer[id(tensor)], self._step[id(node)]
        if first in self._find_dependents(second):
            return False
        self._users[first].add(second)
        return True

    def merge_steps(self, nodes: Sequence[Node]) -> bool:
        """Require that calls are made in the same step; return False if it is impossible."""
        steps = [self._step[id(node)] for node in nodes]
        if any(step in self._find_dependents(other) - {other} for other in steps for step in steps):
            return False
        first = min(steps)
        dependents = set[int]().union(*(self._users[step] for step in steps))
        for users in self._users:
            if users & set(steps):
                users -= set(steps)
                users.add(first)
        for step in steps:
            self._users[step] = set()
            self.steps[step] = []
        self._users[first] = dependents
        self.steps[first] = list(nodes)
        self._step.update((id(node), first) for node in nodes)
        for node in nodes:
            self._producer.update((id(tensor), first) for tensor in node.outputs)
        return True

    def sort_steps(self) -> list[list[Node]]:
        """Return the steps in topological order, ties broken by the order of the program."""
        sorter = TopologicalSorter({step: set[int]() for step in range(len(self.steps))})
        for step, users in enumerate(self._users):
            for user in users:
                sorter.add(user, step)
        sorter.prepare()
        ready: list[int] = []
        order: list[int] = []
        while sorter.is_active():
            for step in sorter.get_ready():
                heapq.heappush(ready, step)
            order.append(heapq.heappop(ready))
            sorter.done(order[-1])
        return [self.steps[step] for step in order if self.steps[step]]

    def _find_dependents(self, start: int) -> set[int]:
        """Return the steps that depend on a step, including itself."""
        dependents, stack = {start}, [start]
        while stack:
            for user in self._users[stack.pop()] - dependents:
                dependents.add(user)
                stack.append(user)
        return dependents


def merge_repeated_calls(order: CallOrder, matches: dict[int, Match]) -> list[LayerRepair]:
    """Merge the calls of each layer to be reconstructed into one step.

    Layers with calls that depend on each other are removed from `matches`.

    Args:
        order: Order of the calls.
        matches: Matched layers by id of the layer.

    Returns:
        Report rows of the layers that are removed.
    """
    skipped = []
    for match in list(matches.values()):
        if len(match.calls) > 1 and not order.merge_steps(match.calls):
            del matches[id(match.layer)]
            reason = "a later call of it depends on an earlier one"
            skipped.append(report_skipped(match.name, match.layer, reason))
    return skipped
