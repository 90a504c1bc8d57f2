"""Records a model as a flat program of calls; layers made of layers are opened.

`record` reads functional and Sequential models as they are (nested ones stay nested) and
*traces* what is no graph: it runs `call` on symbolic tensors, so that the layers and raw
operations inside are recorded with the variables that they have. The model itself is left
as it was: the nodes that tracing hangs on its layers are taken off again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.model import walk
from compress.model.internals import takes_training
from compress.model.trace import Untraceable, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras

Opener = Callable[[Any], bool]
Watch = Callable[["Node", list[Any]], None]
Handler = Callable[["Node", list[Any]], Sequence[Any]]
"""Takes a call and the values of its inputs, returns those of its outputs."""


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
        """Returns `args` and `kwargs` with values in place of `inputs`."""
        filled: tuple[tuple[Any, ...], dict[str, Any]] = replaced(
            (self.args, self.kwargs), self.inputs, values
        )
        return filled


def replaced(structure: Any, tensors: Sequence[Any], values: Sequence[Any]) -> Any:
    """Returns a structure with values in place of symbolic tensors; what else it holds stays."""
    return _substitute(structure, dict(zip(map(id, tensors), values, strict=True)))


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
    def open_sizes(self) -> bool:
        """Whether the size of an input is unknown, the batch apart."""
        return any(None in tuple(tensor.shape)[1:] for tensor in self.inputs)

    def walk(self) -> Iterator[Node]:
        """Yields all calls, those of nested models in place of the model's call."""
        for node in self.nodes:
            if node.body is None:
                yield node
            else:
                yield from node.body.walk()

    def named(self, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """Yields every call with its name, "nested/layer" inside a nested model."""
        for node in self.nodes:
            path = f"{prefix}{node.name}"
            yield path, node
            if node.body is not None:
                yield from node.body.named(f"{path}/")

    def interpret(
        self, handler: Handler, inputs: Sequence[Any], nested: Handler | None = None
    ) -> list[Any]:
        """Goes through the calls with values of any kind in place of tensors.

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
        last = self._last_uses()
        values = {id(tensor): value for tensor, value in zip(self.inputs, inputs, strict=True)}
        for place, node in enumerate(self.nodes):
            given = [values[id(tensor)] for tensor in node.inputs]
            for tensor in node.inputs:
                if last[id(tensor)] == place:
                    values.pop(id(tensor), None)
            results = (handler if node.body is None else inside)(node, given)
            for tensor, value in zip(node.outputs, results, strict=True):
                if id(tensor) in last:
                    values[id(tensor)] = value
            del given, results
        return [values[id(tensor)] for tensor in self.outputs]

    def _last_uses(self) -> dict[int, int]:
        """Returns the place of the last call that takes each tensor; outputs are used later."""
        last = {
            id(tensor): place for place, node in enumerate(self.nodes) for tensor in node.inputs
        }
        return last | dict.fromkeys(map(id, self.outputs), len(self.nodes))

    def run(
        self,
        inputs: Sequence[Any],
        watch: Watch | None = None,
        training: Opener | None = None,
        tell: Watch | None = None,
    ) -> list[Any]:
        """Runs the calls one by one: interprets them with the layers themselves.

        Args:
            inputs: Arrays or tensors for `inputs`.
            watch: Called before each call with the node and the values of its inputs.
            training: Tells of a layer whether to run it in training mode; default: none.
            tell: Called after each call with the node and its results.

        Returns:
            The values of `outputs`.
        """
        import keras

        def call(node: Node, given: list[Any]) -> Sequence[Any]:
            if watch is not None:
                watch(node, given)
            if node.body is not None:
                results = node.body.interpret(call, given, call)
            else:
                args, kwargs = node.arguments(given)
                if takes_training(node.operation):
                    # some layers (augmentation) train unless they are told not to
                    train = training is not None and training(node.operation)
                    kwargs = {**kwargs, "training": train}
                results = keras.tree.flatten(node.operation(*args, **kwargs))
            if tell is not None:
                tell(node, results)
            return results

        return self.interpret(call, [keras.ops.convert_to_tensor(x) for x in inputs], call)


def record(model: keras.Model, opens: Opener | None = None, inputs: Any = None) -> Program:
    """Records a model's calls.

    Args:
        model: Any model; a subclassed one is traced.
        opens: Tells of a layer that is not a model whether to open it; default: never.
        inputs: Shapes of a traced model's inputs, with the batch axis (None), in the
            structure that its `call` takes; default: those it was built with. Of a model
            that was built with one input the batch axis may be left out.

    Raises:
        InputError: The model is no graph and cannot be traced, or was never built.
    """
    return _Recorder(opens or _never).record(model, inputs)


def _never(_: Any) -> bool:
    return False


class _Recorder:
    def __init__(self, opens: Opener) -> None:
        self.opens = opens
        self.bodies: dict[int, Program] = {}
        self.alive: list[Any] = []  # tensors whose ids stand in aliases

    def record(self, model: Any, inputs: Any = None) -> Program:
        if id(model) not in self.bodies:
            self.bodies[id(model)] = (
                self._functional(model) if walk.is_graph(model) else self._subclassed(model, inputs)
            )
        return self.bodies[id(model)]

    def _functional(self, model: Any) -> Program:
        source = walk.functional(model)
        nodes = (
            node
            for depth in sorted(source._nodes_by_depth, reverse=True)
            for node in source._nodes_by_depth[depth]
        )
        return self._program(
            model, source._inputs_struct, source._outputs_struct, nodes, traced=False
        )

    def _subclassed(self, model: Any, inputs: Any) -> Program:
        import keras

        shapes = _traced_shapes(model, inputs)
        if shapes is None:
            raise InputError(
                f"Model '{model.name}' must be built before it can be read: it is a subclass "
                f"({type(model).__name__}) and its input shape is unknown. Call it once on a "
                "batch of data, or give input_shape=."
            )
        specs = keras.tree.map_shape_structure(
            lambda shape: keras.Input(batch_shape=(None, *tuple(shape)[1:])), shapes
        )
        try:
            outputs, nodes = trace(model, (specs,), {})
        except Untraceable as reason:
            raise InputError(
                f"Model '{model.name}' ({type(model).__name__}) must be a graph or traceable. "
                f"Received: {reason}. Build it with keras.Input and functional calls, or write "
                "its call() with keras layers and keras.ops only."
            ) from None
        return self._program(model, specs, outputs, nodes, traced=True)

    def _program(
        self, model: Any, inputs: Any, outputs: Any, nodes: Iterable[Any], *, traced: bool
    ) -> Program:
        import keras

        program = Program(
            model,
            tuple(keras.tree.flatten(inputs)),
            tuple(keras.tree.flatten(outputs)),
            inputs,
            outputs,
            traced=traced,
        )
        aliases: dict[int, Any] = {}
        self._append(program, nodes, "", aliases)
        program.output_structure = _substitute(outputs, aliases)
        program.outputs = tuple(keras.tree.flatten(program.output_structure))
        _name_uniquely(program.nodes)
        return program

    def _append(
        self, program: Program, nodes: Iterable[Any], prefix: str, aliases: dict[int, Any]
    ) -> None:
        import keras

        for keras_node in nodes:
            operation = keras_node.operation
            if isinstance(operation, keras.layers.InputLayer):
                continue
            arguments = keras_node.arguments
            args, kwargs, inputs = (
                (arguments.args, arguments.kwargs, keras_node.input_tensors)
                if not aliases
                else _resolved(arguments, aliases)
            )
            name = prefix + operation.name
            node = Node(operation, name, args, kwargs, tuple(inputs), tuple(keras_node.outputs))
            if isinstance(operation, keras.Model) and walk.is_graph(operation):
                node.body = self.record(operation)
            elif isinstance(operation, keras.Model) or (
                isinstance(operation, keras.layers.Layer) and self.opens(operation)
            ):
                node.closed = self._open(program, node, aliases)
                if not node.closed:
                    continue
            program.nodes.append(node)

    def _open(self, program: Program, node: Node, aliases: dict[int, Any]) -> str:
        """Puts the calls inside a layer in place of its own; else returns why not."""
        import keras

        fresh: dict[int, Any] = {}
        outer: dict[int, Any] = {}

        def symbolic(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return value
            if id(value) not in fresh:
                fresh[id(value)] = keras.KerasTensor(value.shape, value.dtype)
                outer[id(fresh[id(value)])] = value
            return fresh[id(value)]

        args, kwargs = keras.tree.map_structure(symbolic, (node.args, node.kwargs))
        try:
            outputs, nodes = trace(node.operation, args, kwargs)
        except Untraceable as reason:
            return str(reason)
        self.alive.append((fresh, nodes))
        before = len(program.nodes)
        aliases.update(outer)
        self._append(program, nodes, f"{node.name}_", aliases)
        program.opened[node.name] = len(program.nodes) - before
        for old, new in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
            aliases[id(old)] = aliases.get(id(new), new)
        return ""


def _resolved(arguments: Any, aliases: dict[int, Any]) -> tuple[Any, Any, list[Any]]:
    import keras

    args, kwargs = _substitute((arguments.args, arguments.kwargs), aliases)
    flat = keras.tree.flatten((args, kwargs))
    return args, kwargs, [value for value in flat if isinstance(value, keras.KerasTensor)]


def _substitute(structure: Any, aliases: dict[int, Any]) -> Any:
    import keras

    if not aliases:
        return structure
    return keras.tree.map_structure(lambda value: aliases.get(id(value), value), structure)


def _name_uniquely(nodes: list[Node]) -> None:
    """Numbers repeated names ("dense", "dense_1"); a shared layer keeps one name."""
    owners: dict[str, Any] = {}
    names: dict[int, str] = {}
    for node in nodes:
        if id(node.operation) not in names:
            name, number = node.name, 0
            while name in owners:
                number += 1
                name = f"{node.name}_{number}"
            owners[name] = names[id(node.operation)] = name
        node.name = names[id(node.operation)]


def _traced_shapes(model: Any, given: Any) -> Any:
    """Returns the shapes to trace a model with: those given, else those it was built with."""
    built = _built_shapes(model)
    if given is None or not isinstance(built, tuple) or len(given) != len(built) - 1:
        return built if given is None else given
    return (None, *given)


def _built_shapes(model: Any) -> Any:
    shapes = model._build_shapes_dict
    if not shapes:
        return None
    return next(iter(shapes.values())) if len(shapes) == 1 else None
