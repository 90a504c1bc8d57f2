"""A model as a flat program of calls, and the one interpreter of such programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from compress.core.lazy_modules import keras
from compress.model.internals import takes_training

Watch = Callable[["Node", list[Any]], None]
Handler = Callable[["Node", list[Any]], Sequence[Any]]
"""Takes a call and the values of its inputs, returns those of its outputs."""

Steps = Generator[list[tuple["Node", list[Any]]], list[Sequence[Any]], list[Any]]
"""Yields calls with the values of their inputs, is sent those of their outputs."""

C = TypeVar("C")


@dataclass(eq=False)
class Node:
    """One call in a program.

    Attributes:
        operation: The layer, model or raw operation.
        name: Unique in its program; raw operations have Keras's automatic names.
        args: Positional arguments, symbolic tensors among them.
        kwargs: Keyword arguments.
        inputs: The symbolic tensors among the arguments, in their order.
        outputs: The symbolic tensors that it returned.
        body: The program of a nested model, else None.
        closed: Why a layer made of layers could not be opened; empty: it was not tried.
    """

    operation: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    body: Program | None = None
    closed: str = ""

    def arguments(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return `args` and `kwargs` with values in place of `inputs`."""
        filled: tuple[tuple[Any, ...], dict[str, Any]] = replaced(
            (self.args, self.kwargs), self.inputs, values
        )
        return filled

    def call(self, values: Sequence[Any], training: bool | None = False) -> Any:
        """Make the call with values in place of `inputs`.

        Args:
            values: One an input.
            training: Mode of a layer that has one; some layers (augmentation) train unless they
                are told not to. None: what Keras makes of it.
        """
        args, kwargs = self.arguments(values)
        if training is not None and takes_training(self.operation):
            kwargs = {**kwargs, "training": training}
        return self.operation(*args, **kwargs)

    def output_specs(self, given: Sequence[Any]) -> list[Any]:
        """Return symbolic outputs for inputs of other shapes.

        Args:
            given: What has the `shape` and `dtype` of each input.
        """
        args, kwargs = self.arguments([keras.KerasTensor(x.shape, x.dtype) for x in given])
        specs = self.operation.compute_output_spec(*args, **kwargs)
        return list(keras.tree.flatten(specs))


def replaced(structure: Any, tensors: Sequence[Any], values: Sequence[Any]) -> Any:
    """Return a structure with values in place of symbolic tensors; other leaves stay."""
    return substituted(structure, dict(zip(map(id, tensors), values, strict=True)))


@dataclass(eq=False)
class Program:
    """A model's calls in an order in which they can be run.

    Attributes:
        model: What was recorded.
        inputs: Symbolic input tensors, flat.
        outputs: Symbolic output tensors, flat.
        input_structure: The inputs as the model takes them (list, dictionary, ...).
        output_structure: The outputs as the model returns them.
        nodes: The calls.
        traced: The model was no graph and had to be traced.
        opened: Names of the layers that were opened, with the number of calls inside.
    """

    model: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    input_structure: Any
    output_structure: Any
    nodes: list[Node] = field(default_factory=list)
    traced: bool = False
    opened: dict[str, int] = field(default_factory=dict)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs: a graph's own; of a traced model a dictionary's keys, or places."""
        if not self.traced:
            return [tensor.name for tensor in self.inputs]
        if isinstance(self.input_structure, dict):
            paths = keras.tree.flatten_with_path(self.input_structure)
            return ["_".join(map(str, path)) for path, _ in paths]
        return [f"input_{place}" if place else "input" for place in range(len(self.inputs))]

    @property
    def open_sizes(self) -> bool:
        """Whether the size of an input is unknown, the batch apart."""
        return any(None in tuple(tensor.shape)[1:] for tensor in self.inputs)

    def walk(self) -> Iterator[Node]:
        """Yield all calls, those of nested models in place of the model's call."""
        for node in self.nodes:
            if node.body is None:
                yield node
            else:
                yield from node.body.walk()

    def named(self, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """Yield every call with its name, "nested/layer" inside a nested model."""
        for node in self.nodes:
            path = f"{prefix}{node.name}"
            yield path, node
            if node.body is not None:
                yield from node.body.named(f"{path}/")

    def interpret(
        self, handler: Handler, inputs: Sequence[Any], nested: Handler | None = None
    ) -> list[Any]:
        """Go through the calls with values of any kind in place of tensors.

        The values are whatever the handler makes of them: arrays, shapes, channel slots, pairs
        of what two models make. Each is held from where it is made to its last use; what a
        nested model is given, until that ends.

        Args:
            handler: Called for each call with its node and the values of its inputs; returns
                those of its outputs.
            inputs: Values of `inputs`.
            nested: Called in its place for nested models, which it may enter itself (by
                `node.body.interpret`); default: their calls are gone through with `handler`.

        Returns:
            The values of `outputs`.
        """

        def entered(node: Node, given: list[Any]) -> list[Any]:
            assert node.body is not None
            return node.body.interpret(handler, given, entered)

        inside = nested or entered
        steps = self.stepwise(inputs)
        results: list[Sequence[Any]] | None = None
        while True:
            try:
                ((node, given),) = next(steps) if results is None else steps.send(results)
            except StopIteration as end:
                return list(end.value)
            results = [(handler if node.body is None else inside)(node, given)]
            del given

    def stepwise(
        self, inputs: Sequence[Any], steps: Sequence[Sequence[Node]] | None = None
    ) -> Steps:
        """Run the calls as a generator, so that several programs can run side by side.

        Args:
            inputs: Values of `inputs`.
            steps: The calls in an order in which they can be made; those of one step are made
                together, none of them from what another makes. Default: one by one.

        Yields:
            The calls of a step with the values of their inputs; it is sent the values of their
            outputs, call by call. Nested models' calls are not entered.

        Returns:
            The values of `outputs`.
        """
        order = [[node] for node in self.nodes] if steps is None else steps
        last = {
            id(tensor): place
            for place, step in enumerate(order)
            for node in step
            for tensor in node.inputs
        }
        last |= dict.fromkeys(map(id, self.outputs), len(order))
        values = {id(tensor): value for tensor, value in zip(self.inputs, inputs, strict=True)}
        for place, step in enumerate(order):
            given = [(node, [values[id(tensor)] for tensor in node.inputs]) for node in step]
            for node in step:
                for tensor in node.inputs:
                    if last[id(tensor)] == place:
                        values.pop(id(tensor), None)
            asked = given
            del given
            results = yield asked
            del asked
            for node, made in zip(step, results, strict=True):
                for tensor, value in zip(node.outputs, made, strict=True):
                    if id(tensor) in last:
                        values[id(tensor)] = value
            del results
        return [values[id(tensor)] for tensor in self.outputs]

    def tail(self, place: int) -> Program:
        """Return the program of the calls from a place on.

        Its inputs are what these take, or the model returns, of what was made before.
        """
        nodes = self.nodes[place:]
        own = {id(tensor) for node in nodes for tensor in node.outputs}
        used = [tensor for node in nodes for tensor in node.inputs]
        cut = {id(tensor): tensor for tensor in (*used, *self.outputs) if id(tensor) not in own}
        return replace(self, inputs=tuple(cut.values()), nodes=nodes)

    def run(
        self,
        inputs: Sequence[Any],
        watch: Watch | None = None,
        training: Callable[[Any], bool] | None = None,
        tell: Watch | None = None,
    ) -> list[Any]:
        """Run the calls one by one: interprets them with the layers themselves.

        Args:
            inputs: Arrays or tensors for `inputs`.
            watch: Called before each call with the node and the values of its inputs.
            training: Tells of a layer whether to run it in training mode; default: none.
            tell: Called after each call with the node and its results.

        Returns:
            The values of `outputs`.
        """

        def call(node: Node, given: list[Any]) -> Sequence[Any]:
            if watch is not None:
                watch(node, given)
            if node.body is not None:
                results = node.body.interpret(call, given, call)
            else:
                train = training is not None and training(node.operation)
                results = keras.tree.flatten(node.call(given, train))
            if tell is not None:
                tell(node, results)
            return results

        return self.interpret(call, [keras.ops.convert_to_tensor(x) for x in inputs], call)


class Readers(Generic[C]):
    """The producer and the consumers of each tensor.

    Args:
        calls: In their order; each has `inputs` and `outputs`.
        ends: The tensors that are returned at the end.
        key: Tells tensors apart.

    Attributes:
        maker: The call that makes a tensor, by key; the inputs of the whole have none.
    """

    def __init__(
        self, calls: Iterable[C], ends: Iterable[Any] = (), key: Callable[[Any], int] = id
    ) -> None:
        self.maker: dict[int, C] = {}
        self._key, self._ends = key, Counter(map(key, ends))
        self._users: dict[int, list[C]] = {}
        for call in calls:
            ports: Any = call
            self.maker.update((key(tensor), call) for tensor in ports.outputs)
            for tensor in ports.inputs:
                self._users.setdefault(key(tensor), []).append(call)

    def users(self, tensor: Any) -> list[C]:
        """Return the calls that read a tensor, one that reads it twice twice."""
        return self._users.get(self._key(tensor), [])

    def only_user(self, tensor: Any) -> C | None:
        """Return the call that reads a tensor, where nothing else does."""
        users = self.users(tensor)
        return users[0] if len(users) == 1 and not self.is_output(tensor) else None

    def is_output(self, tensor: Any) -> bool:
        """Tell whether a tensor is returned at the end."""
        return self._key(tensor) in self._ends

    def count_reads(self, tensor: Any) -> int:
        """Return the number of reads of a tensor, by calls and as an output."""
        return len(self.users(tensor)) + self._ends[self._key(tensor)]


def substituted(structure: Any, aliases: Mapping[int, Any]) -> Any:
    """Return a structure with its leaves replaced by their `aliases`, by id."""
    if not aliases:
        return structure
    return keras.tree.map_structure(lambda value: aliases.get(id(value), value), structure)


def flat(program: Program) -> Program:
    """Return a program of the same calls with those of nested models in place of theirs.

    Calls of nested models have tensors of their own at each call of the model, and names behind
    the model's: "backbone/conv1". What is nested in nothing stays as it is.

    Args:
        program: From `compress.model.recording.record`; it stays as it is.
    """
    nodes: list[Node] = []
    outputs = _inlined(program, "", program.inputs, nodes)
    return replace(program, nodes=nodes, outputs=tuple(outputs))


def _inlined(program: Program, prefix: str, given: Sequence[Any], nodes: list[Node]) -> list[Any]:
    """Append a program's calls, made on the tensors `given`; returns its outputs."""
    aliases = {id(own): tensor for own, tensor in zip(program.inputs, given, strict=True)}
    for node in program.nodes:
        args, kwargs = substituted((node.args, node.kwargs), aliases)
        inputs = tuple(aliases.get(id(tensor), tensor) for tensor in node.inputs)
        name = f"{prefix}{node.name}"
        if node.body is not None:
            made = _inlined(node.body, f"{name}/", inputs, nodes)
        else:
            made = [
                keras.KerasTensor(tensor.shape, tensor.dtype) if prefix else tensor
                for tensor in node.outputs
            ]
            nodes.append(
                replace(
                    node, name=name, args=args, kwargs=kwargs, inputs=inputs, outputs=tuple(made)
                )
            )
        aliases.update((id(own), tensor) for own, tensor in zip(node.outputs, made, strict=True))
    return [aliases.get(id(tensor), tensor) for tensor in program.outputs]
