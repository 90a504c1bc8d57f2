"""Records a model as a flat program of calls; layers made of layers are opened.

`record` reads functional and Sequential models as they are (nested ones stay nested) and
*traces* what is no graph: it runs `call` on symbolic tensors, so that the layers and raw
operations inside are recorded with the variables that they have. The model itself is left
as it was: the nodes that tracing hangs on its layers are taken off again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.model import walk
from compress.model.input_sizes import sizes_of
from compress.model.program import Node, Program, substituted
from compress.model.trace import Untraceable, trace

if TYPE_CHECKING:
    import keras

Opener = Callable[[Any], bool]


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
        program.output_structure = substituted(outputs, aliases)
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
        made = [output for output in keras.tree.flatten(outputs) if output is not None]
        for old, new in zip(node.outputs, made, strict=True):
            aliases[id(old)] = aliases.get(id(new), new)
        return ""


def _resolved(arguments: Any, aliases: dict[int, Any]) -> tuple[Any, Any, list[Any]]:
    import keras

    args, kwargs = substituted((arguments.args, arguments.kwargs), aliases)
    flat = keras.tree.flatten((args, kwargs))
    return args, kwargs, [value for value in flat if isinstance(value, keras.KerasTensor)]


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
    if isinstance(given, dict) and isinstance(built, dict):
        own = [(name, tuple(shape)[1:]) for name, shape in built.items()]
        sizes = sizes_of(f"model '{model.name}'", own, given)
        return {name: (None, *size) for (name, _), size in zip(own, sizes, strict=True)}
    if given is None or not isinstance(built, tuple) or len(given) != len(built) - 1:
        return built if given is None else given
    return (None, *given)


def _built_shapes(model: Any) -> Any:
    shapes = model._build_shapes_dict
    if not shapes:
        return None
    return _untracked(next(iter(shapes.values()))) if len(shapes) == 1 else None


def _untracked(structure: Any) -> Any:
    """Returns plain containers for those in which Keras tracks attributes."""
    if isinstance(structure, dict):
        return {name: _untracked(item) for name, item in structure.items()}
    if isinstance(structure, list):
        return [_untracked(item) for item in structure]
    return structure
