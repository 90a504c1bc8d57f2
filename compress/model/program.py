"""Representation of a model as a flat program of calls, with an interpreter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from compress.core.lazy_modules import keras
from compress.model.keras_internals import has_training_argument

CallHook = Callable[["Node", list[Any]], None]
Handler = Callable[["Node", list[Any]], Sequence[Any]]
"""Function from a call and the values of its inputs to the values of its outputs."""

Steps = Generator[list[tuple["Node", list[Any]]], list[Sequence[Any]], list[Any]]
"""Generator that yields calls with their input values, and receives their output values."""

C = TypeVar("C")


@dataclass(eq=False)
class Node:
    """One call in a program.

    Attributes:
        operation: The layer, model or raw operation.
        name: Unique name in its program; raw operations have Keras's automatic names.
        args: Positional arguments, including symbolic tensors.
        kwargs: Keyword arguments.
        inputs: The symbolic tensors among the arguments, in their order.
        outputs: The symbolic tensors that the call returned.
        body: The program of a nested model, or None.
        closed_reason: The reason why a composite layer could not be opened; empty if this was not
            tried.
    """

    operation: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    body: Program | None = None
    closed_reason: str = ""

    def fill_arguments(self, values: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return `args` and `kwargs` with values in place of `inputs`."""
        filled: tuple[tuple[Any, ...], dict[str, Any]] = replace_tensors(
            (self.args, self.kwargs), self.inputs, values
        )
        return filled

    def call(self, values: Sequence[Any], training: bool | None = False) -> Any:
        """Make the call with values in place of `inputs`.

        Args:
            values: One value per input.
            training: Mode of a layer that has one. Some layers (augmentation) run in training mode
                by default. None leaves the choice to Keras.
        """
        args, kwargs = self.fill_arguments(values)
        if training is not None and has_training_argument(self.operation):
            kwargs = {**kwargs, "training": training}
        return self.operation(*args, **kwargs)

    def infer_output_specs(self, inputs: Sequence[Any]) -> list[Any]:
        """Return symbolic outputs for inputs of other shapes.

        Args:
            inputs: Objects with the `shape` and `dtype` of each input.
        """
        args, kwargs = self.fill_arguments([keras.KerasTensor(x.shape, x.dtype) for x in inputs])
        specs = self.operation.compute_output_spec(*args, **kwargs)
        return list(keras.tree.flatten(specs))


def replace_tensors(structure: Any, tensors: Sequence[Any], values: Sequence[Any]) -> Any:
    """Return a structure with values in place of symbolic tensors; other leaves are unchanged.

    Args:
        structure: A nested structure.
        tensors: The symbolic tensors to replace.
        values: One value per tensor.
    """
    return replace_leaves(structure, dict(zip(map(id, tensors), values, strict=True)))


@dataclass(eq=False)
class Program:
    """A model's calls in an executable order.

    Attributes:
        model: The recorded model.
        inputs: Symbolic input tensors, flat.
        outputs: Symbolic output tensors, flat.
        input_structure: The inputs in the structure that the model takes (list, dictionary, ...).
        output_structure: The outputs in the structure that the model returns.
        nodes: The calls.
        is_traced: Whether the model is no graph and was traced.
        opened_layers: Numbers of inner calls of the opened layers, by name.
    """

    model: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    input_structure: Any
    output_structure: Any
    nodes: list[Node] = field(default_factory=list)
    is_traced: bool = False
    opened_layers: dict[str, int] = field(default_factory=dict)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs; a traced model's are dictionary keys or numbered names."""
        if not self.is_traced:
            return [tensor.name for tensor in self.inputs]
        if isinstance(self.input_structure, dict):
            paths = keras.tree.flatten_with_path(self.input_structure)
            return ["_".join(map(str, path)) for path, _ in paths]
        return [f"input_{index}" if index else "input" for index in range(len(self.inputs))]

    @property
    def has_open_sizes(self) -> bool:
        """Whether an input has an unknown size besides the batch size."""
        return any(None in tuple(tensor.shape)[1:] for tensor in self.inputs)

    def walk(self) -> Iterator[Node]:
        """Yield all calls, with those of nested models in place of the model's call."""
        for node in self.nodes:
            if node.body is None:
                yield node
            else:
                yield from node.body.walk()

    def walk_named(self, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """Yield every call with its name, "nested/layer" inside a nested model.

        Args:
            prefix: Prefix of all names.
        """
        for node in self.nodes:
            path = f"{prefix}{node.name}"
            yield path, node
            if node.body is not None:
                yield from node.body.walk_named(f"{path}/")

    def interpret(
        self, handler: Handler, inputs: Sequence[Any], nested: Handler | None = None
    ) -> list[Any]:
        """Interpret the calls with values of any type in place of tensors.

        The handler defines the values: arrays, shapes, channel slots, pairs of two models' results.
        Each value is kept until its last use; the inputs of a nested model until the model ends.

        Args:
            handler: Called for each call with its node and the values of its inputs; returns the
                values of its outputs.
            inputs: Values of `inputs`.
            nested: Called for nested models, which it may enter with `node.body.interpret`.
                Default: their calls are interpreted with `handler`.

        Returns:
            The values of `outputs`.
        """

        def interpret_nested(node: Node, values: list[Any]) -> list[Any]:
            assert node.body is not None
            return node.body.interpret(handler, values, interpret_nested)

        nested_handler = nested or interpret_nested
        steps = self.iterate_steps(inputs)
        results: list[Sequence[Any]] | None = None
        while True:
            try:
                ((node, values),) = next(steps) if results is None else steps.send(results)
            except StopIteration as end:
                return list(end.value)
            results = [(handler if node.body is None else nested_handler)(node, values)]
            del values

    def iterate_steps(
        self, inputs: Sequence[Any], steps: Sequence[Sequence[Node]] | None = None
    ) -> Steps:
        """Interpret the calls as a generator, so that several programs can run side by side.

        Args:
            inputs: Values of `inputs`.
            steps: The calls in an executable order. The calls of one step are made together and
                must not depend on each other. Default: one call per step.

        Yields:
            The calls of a step with the values of their inputs. The generator expects the values of
            their outputs in return, call by call. Calls inside nested models are not yielded.

        Returns:
            The values of `outputs`.
        """
        order = [[node] for node in self.nodes] if steps is None else steps
        last_use = {
            id(tensor): index
            for index, step in enumerate(order)
            for node in step
            for tensor in node.inputs
        }
        last_use |= dict.fromkeys(map(id, self.outputs), len(order))
        values = {id(tensor): value for tensor, value in zip(self.inputs, inputs, strict=True)}
        for index, step in enumerate(order):
            step_inputs = [(node, [values[id(tensor)] for tensor in node.inputs]) for node in step]
            for node in step:
                for tensor in node.inputs:
                    if last_use[id(tensor)] == index:
                        values.pop(id(tensor), None)
            request = step_inputs
            del step_inputs
            results = yield request
            del request
            for node, outputs in zip(step, results, strict=True):
                for tensor, value in zip(node.outputs, outputs, strict=True):
                    if id(tensor) in last_use:
                        values[id(tensor)] = value
            del results
        return [values[id(tensor)] for tensor in self.outputs]

    def slice_from(self, index: int) -> Program:
        """Return the program of the calls from an index on.

        Its inputs are the earlier tensors that these calls or the outputs use.

        Args:
            index: Position of the first call to keep.
        """
        nodes = self.nodes[index:]
        inner_ids = {id(tensor) for node in nodes for tensor in node.outputs}
        used = [tensor for node in nodes for tensor in node.inputs]
        boundary = {
            id(tensor): tensor for tensor in (*used, *self.outputs) if id(tensor) not in inner_ids
        }
        return replace(self, inputs=tuple(boundary.values()), nodes=nodes)

    def run(
        self,
        inputs: Sequence[Any],
        before_call: CallHook | None = None,
        training: Callable[[Any], bool] | None = None,
        after_call: CallHook | None = None,
    ) -> list[Any]:
        """Run the calls one by one with the layers themselves.

        Args:
            inputs: Arrays or tensors for `inputs`.
            before_call: Called before each call with the node and the values of its inputs.
            training: Function from a layer to whether it runs in training mode. Default: none does.
            after_call: Called after each call with the node and its results.

        Returns:
            The values of `outputs`.
        """

        def call(node: Node, values: list[Any]) -> Sequence[Any]:
            if before_call is not None:
                before_call(node, values)
            if node.body is not None:
                results = node.body.interpret(call, values, call)
            else:
                is_training = training is not None and training(node.operation)
                results = keras.tree.flatten(node.call(values, is_training))
            if after_call is not None:
                after_call(node, results)
            return results

        return self.interpret(call, [keras.ops.convert_to_tensor(x) for x in inputs], call)


class TensorReaders(Generic[C]):
    """Producers and consumers of each tensor.

    Args:
        calls: Objects with `inputs` and `outputs`, in their order.
        outputs: The tensors that are returned at the end.
        key: Function from a tensor to its identity.

    Attributes:
        producers: The call that produces each tensor, by key; inputs of the program have none.
    """

    def __init__(
        self, calls: Iterable[C], outputs: Iterable[Any] = (), key: Callable[[Any], int] = id
    ) -> None:
        self.producers: dict[int, C] = {}
        self._key, self._output_counts = key, Counter(map(key, outputs))
        self._readers: dict[int, list[C]] = {}
        for call in calls:
            ports: Any = call
            self.producers.update((key(tensor), call) for tensor in ports.outputs)
            for tensor in ports.inputs:
                self._readers.setdefault(key(tensor), []).append(call)

    def list_readers(self, tensor: Any) -> list[C]:
        """Return the calls that read a tensor; a call that reads it twice appears twice."""
        return self._readers.get(self._key(tensor), [])

    def find_only_reader(self, tensor: Any) -> C | None:
        """Return the call that reads a tensor if nothing else reads it, or None."""
        readers = self.list_readers(tensor)
        return readers[0] if len(readers) == 1 and not self.is_output(tensor) else None

    def is_output(self, tensor: Any) -> bool:
        """Return whether a tensor is returned at the end."""
        return self._key(tensor) in self._output_counts

    def count_reads(self, tensor: Any) -> int:
        """Return the number of reads of a tensor, by calls and as an output."""
        return len(self.list_readers(tensor)) + self._output_counts[self._key(tensor)]


def replace_leaves(structure: Any, aliases: Mapping[int, Any]) -> Any:
    """Return a structure with its leaves replaced according to `aliases`.

    Args:
        structure: A nested structure.
        aliases: Replacements by id of the leaf.
    """
    if not aliases:
        return structure
    return keras.tree.map_structure(lambda value: aliases.get(id(value), value), structure)


def flatten_program(program: Program) -> Program:
    """Return a program with the calls of nested models inlined.

    Each call of a nested model gets its own tensors, and the names of its inner calls begin with
    the name of the model: "backbone/conv1". Other calls are unchanged.

    Args:
        program: From `compress.model.recording.record_program`; it is not changed.
    """
    nodes: list[Node] = []
    outputs = _inline_calls(program, "", program.inputs, nodes)
    return replace(program, nodes=nodes, outputs=tuple(outputs))


def _inline_calls(
    program: Program, prefix: str, program_inputs: Sequence[Any], nodes: list[Node]
) -> list[Any]:
    """Append a program's calls, made on the tensors `program_inputs`, and return its outputs."""
    aliases = {
        id(inner): tensor for inner, tensor in zip(program.inputs, program_inputs, strict=True)
    }
    for node in program.nodes:
        args, kwargs = replace_leaves((node.args, node.kwargs), aliases)
        inputs = tuple(aliases.get(id(tensor), tensor) for tensor in node.inputs)
        name = f"{prefix}{node.name}"
        if node.body is not None:
            outputs = _inline_calls(node.body, f"{name}/", inputs, nodes)
        else:
            outputs = [
                keras.KerasTensor(tensor.shape, tensor.dtype) if prefix else tensor
                for tensor in node.outputs
            ]
            nodes.append(
                replace(
                    node, name=name, args=args, kwargs=kwargs, inputs=inputs, outputs=tuple(outputs)
                )
            )
        aliases.update(
            (id(inner), tensor) for inner, tensor in zip(node.outputs, outputs, strict=True)
        )
    return [aliases.get(id(tensor), tensor) for tensor in program.outputs]
