"""The graph of a SavedModel as plain records, with all sizes that follow from the inputs'.

What functions hold stands in place of their calls. TensorFlow's own shape functions tell the sizes.
They do not look into loops: a loop's body is built with the sizes of what goes in, again and again
until what comes out has the same sizes. Scalars that are known without running anything (limits of
loops) are noted with their values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import convert_to_constants, function_def_to_graph

from compress.core.errors import InputError, one_line
from compress.core.native_output import captured_stderr, quiet_logger
from compress.measure.graph_files.counting import count_graph
from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tables import BRANCHES, LOOPS, TENSORFLOW
from compress.measure.layer_costs import Analysis
from compress.model.kinds import SavedModel

Shape = tuple[int | None, ...] | None
_READERS = {"TensorListGetItem": 2, "TensorListStack": 1}
"""What takes tensors out of a list, with the place of the input that says their shape."""
_CALLS = re.compile(r"(?:^|(?<=/))(?:Stateful)?PartitionedCall(?:_\d+)?/")


def count_saved_model(model: SavedModel, sizes: Sequence[tuple[int, ...]]) -> Analysis:
    """Count a loaded SavedModel, with constants in place of its variables.

    Args:
        model: With the signature that is counted.
        sizes: Of one example, an input each; see `SavedModel.sizes`.

    Raises:
        InputError: It cannot run at these sizes; TensorFlow cannot write it as one graph (of more
            than 2 GiB, say), or does not know its sizes.
    """
    function = model.at(sizes)
    with captured_stderr(), quiet_logger("tensorflow"):
        try:
            frozen = convert_to_constants.convert_variables_to_constants_v2(
                function, lower_control_flow=False
            )
            graph_def = frozen.graph.as_graph_def()
            library = Library(graph_def)
            nodes, _ = library.flattened(graph_def.node)
            inputs = [f"{node.name}:0" for node in nodes if node.op == "Placeholder"]
            graph = _Builder(library).built(nodes, inputs, ())
        except InputError:
            raise
        except Exception as error:  # of protobuf and of TensorFlow, of many kinds
            raise InputError(
                f"The graph of '{model.path}' must be readable with its variables as constants. "
                f"Received: {one_line(str(error).strip().splitlines()[0], 300)}."
            ) from None
    return count_graph(graph, TENSORFLOW)


class Library:
    """The functions of a graph."""

    def __init__(self, graph_def: Any) -> None:
        self._functions = {item.signature.name: item for item in graph_def.library.function}

    def flat(self, name: str) -> tuple[list[Any], list[str], list[str]]:
        """Return a function's nodes, the names of its arguments and those of its results.

        Nodes are in an order in which they can be made; calls are opened.
        """
        inside, arguments, results = self._parts(name)
        nodes, aliases = self.flattened(inside)
        return nodes, arguments, [resolved(result, aliases) for result in results]

    def _parts(self, name: str) -> tuple[Sequence[Any], list[str], list[str]]:
        definition = self._functions[name]
        graph_def, flat_names = function_def_to_graph.function_def_to_graph_def(definition)
        arguments = [item.name for item in definition.signature.input_arg]
        made = [definition.ret[item.name] for item in definition.signature.output_arg]
        return graph_def.node, arguments, [flat_names[name] for name in made]

    def flattened(self, nodes: Sequence[Any]) -> tuple[list[Any], dict[str, str]]:
        """Return nodes in order with calls inlined, and the aliases of calls' results."""
        made: list[Any] = []
        aliases: dict[str, str] = {}
        self._open(nodes, "", made, aliases)
        for node in made:
            inputs = [resolved(item, aliases) for item in node.input]
            del node.input[:]
            node.input.extend(inputs)
        return _ordered(made), aliases

    def _open(
        self, nodes: Sequence[Any], prefix: str, made: list[Any], aliases: dict[str, str]
    ) -> None:
        for node in nodes:
            name = prefix + node.name
            inputs = [prefix + item for item in node.input if not item.startswith("^")]
            calls = node.op in ("PartitionedCall", "StatefulPartitionedCall")
            called = node.attr["f"].func.name if calls else ""
            if called in self._functions:
                inside, arguments, results = self._parts(called)
                for argument, given in zip(arguments, inputs, strict=True):
                    aliases[tensor_name(f"{name}/{argument}")] = given
                for number, result in enumerate(results):
                    aliases[f"{name}:{number}"] = f"{name}/{result}"
                inner = [item for item in inside if item.name not in arguments]
                self._open(inner, f"{name}/", made, aliases)
                continue
            own = node_def_pb2.NodeDef()
            own.CopyFrom(node)
            own.name, own.device = name, ""
            del own.input[:]
            own.input.extend(inputs)
            for key in [key for key in own.attr if key.startswith("_")]:
                del own.attr[key]  # where it runs and how it is compiled
            made.append(own)


def tensor_name(name: str) -> str:
    """Return "node:0" for "node"."""
    return name if ":" in name else f"{name}:0"


def resolved(name: str, aliases: Mapping[str, str]) -> str:
    """Return the tensor that stands behind calls and arguments."""
    name = tensor_name(name)
    while name in aliases:
        name = tensor_name(aliases[name])
    return name


def _ordered(nodes: Sequence[Any]) -> list[Any]:
    """Return nodes behind what they read; calls' arguments may have been made later.

    Raises:
        InputError: Nodes read each other in a circle, as loops of TensorFlow 1 do.
    """
    by_name = {node.name: node for node in nodes}
    done: dict[str, None] = {}
    for first in nodes:
        waiting, begun = [first.name], set[str]()
        while waiting:
            name = waiting[-1]
            sources = (item.rpartition(":")[0] for item in by_name[name].input)
            missing = [item for item in sources if item in by_name and item not in done]
            if name in done or not missing:
                done.setdefault(name)
                waiting.pop()
                continue
            if name in begun:
                raise InputError(
                    f"A graph must have no circles to be counted. Received: one at '{name}', a "
                    "loop of TensorFlow 1."
                )
            begun.add(name)
            waiting.extend(missing)
    return [by_name[name] for name in done]


@dataclass
class _Builder:
    """Builds one graph.

    Attributes:
        library: Functions of the whole.
        tensors: By name.
        elements: Of lists of tensors, by name: the shape of one of them.
        operators: What it holds.
        graph: TensorFlow's, which infers sizes.
    """

    library: Library
    tensors: dict[str, Tensor] = field(default_factory=dict)
    elements: dict[str, Shape] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    graph: Any = field(default_factory=tf.Graph)
    _made: dict[str, Any] = field(default_factory=dict)

    def built(self, nodes: Sequence[Any], inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
        waiting: list[Any] = []
        for node in nodes:
            reads_list = node.op in _READERS and any(
                item.op.startswith("TensorList") and f"{item.name}:0" == node.input[0]
                for item in waiting
            )
            if node.op in (*LOOPS, *BRANCHES) or reads_list:
                self._import(waiting)
                waiting = []
            if node.op in LOOPS:
                self._loop(node)
            elif node.op in BRANCHES:
                self._branch(node)
            else:
                self._tell_elements(node)
                waiting.append(node)
        self._import(waiting)
        taken, given = (tuple(self.tensors[name] for name in names) for names in (inputs, outputs))
        return Graph(taken, given, tuple(self.operators))

    # -- ordinary nodes -----------------------------------------------------------------------

    def _import(self, nodes: Sequence[Any]) -> None:
        """Add nodes to TensorFlow's graph, which infers their sizes, and record them."""
        if not nodes:
            return
        graph_def = tf.compat.v1.GraphDef()
        graph_def.node.extend(nodes)
        own = {node.name for node in nodes}
        outside = {
            name: self._made[name]
            for node in nodes
            for name in node.input
            if name.rpartition(":")[0] not in own
        }
        with self.graph.as_default(), captured_stderr():
            tf.graph_util.import_graph_def(graph_def, input_map=outside, name="")
        for node in nodes:
            self._record(node, self.graph.get_operation_by_name(node.name))

    def _tell_elements(self, node: Any) -> None:
        """Give readers of a tensor list the known shape of its elements."""
        shape = self.elements.get(node.input[0]) if node.op in _READERS else None
        if shape is None or None in shape:
            return
        with self.graph.as_default():
            constant = tf.constant(shape, tf.int32, name="element_shape")
        self._record(constant.op.node_def, constant.op)
        node.input[_READERS[node.op]] = constant.name

    def _record(self, node: Any, operation: Any) -> None:
        """Record an operation and its results, and the element shapes of tensor lists."""
        self._made.update((tensor.name, tensor) for tensor in operation.outputs)
        name = f"{node.name}:0"
        if node.op == "TensorListFromTensor":
            shape = _shape(operation.inputs[0])
            self.elements[name] = None if shape is None else shape[1:]
        elif node.op == "TensorListSetItem":
            self.elements[name] = _shape(operation.inputs[2])
        elif node.op == "Identity" and node.input[0] in self.elements:
            self.elements[name] = self.elements[node.input[0]]
        if operation.type in ("Identity", "StopGradient", "PreventGradient", "Snapshot"):
            # it makes nothing new: its result is its input
            self.tensors[name] = self.tensors[operation.inputs[0].name]
            return
        outputs = [self._tensor(tensor) for tensor in operation.outputs]
        if operation.type in ("Placeholder", "NoOp"):
            return
        if operation.type == "Const":
            outputs[0].values = partial(tf.make_ndarray, operation.get_attr("value"))
            return
        self.operators.append(
            Operator(
                operation.type,
                _CALLS.sub("", operation.name),
                tuple(self.tensors[tensor.name] for tensor in operation.inputs),
                tuple(outputs),
                operation.node_def.attr,
            )
        )

    def _tensor(self, tensor: Any) -> Tensor:
        kind = tensor.dtype.base_dtype
        made = Tensor(tensor.name, _shape(tensor), kind.name, quantized=kind.is_quantized)
        whole = tensor.shape.rank == 0 and tensor.dtype.is_integer
        if whole and (value := _value(tensor)) is not None:
            made.number = float(value)
        self.tensors[tensor.name] = made
        return made

    # -- loops and branches -------------------------------------------------------------------

    def _loop(self, node: Any) -> None:
        shapes = [_shape(self._made[name]) for name in node.input]
        elements = [self.elements.get(name) for name in node.input]
        while True:
            body, ends = self._function(node.attr["body"].func.name, shapes, elements)
            merged = _merged(shapes, body)
            # a list that is reserved holds nothing yet
            lists = [
                after if before is None else _common(before, after)
                for before, after in zip(elements, ends, strict=True)
            ]
            if (merged, lists) == (shapes, elements):
                break
            shapes, elements = merged, lists
        condition, _ = self._function(node.attr["cond"].func.name, shapes, elements)
        self._control(node, shapes, (body,), condition)
        self.elements |= {f"{node.name}:{place}": shape for place, shape in enumerate(elements)}

    def _branch(self, node: Any) -> None:
        shapes = [_shape(self._made[name]) for name in node.input[1:]]
        elements = [self.elements.get(name) for name in node.input[1:]]
        functions = [
            *(node.attr[key].func for key in ("then_branch", "else_branch") if key in node.attr),
            *node.attr["branches"].list.func,
        ]
        bodies = tuple(self._function(item.name, shapes, elements)[0] for item in functions)
        made = [tensor.shape for tensor in bodies[0].outputs]
        for body in bodies[1:]:
            made = _merged(made, body)
        self._control(node, made, bodies, None)

    def _control(
        self,
        node: Any,
        shapes: Sequence[Shape],
        bodies: tuple[Graph, ...],
        condition: Graph | None,
    ) -> None:
        """Add a stand-in of known sizes for what has graphs of its own, and record it."""
        types = node.attr["T" if node.op in LOOPS else "Tout"].list.type
        outputs = []
        with self.graph.as_default():
            for place, (kind, shape) in enumerate(zip(types, shapes, strict=True)):
                made = tf.compat.v1.placeholder(kind, shape, name=f"{node.name}/made")
                outputs.append(self._tensor(made))
                self._made[f"{node.name}:{place}"] = made
                self.tensors[f"{node.name}:{place}"] = outputs[-1]
        inputs = tuple(self.tensors[self._made[name].name] for name in node.input)
        name = _CALLS.sub("", node.name)
        self.operators.append(
            Operator(node.op, name, inputs, tuple(outputs), {}, condition, bodies)
        )

    def _function(
        self, name: str, shapes: Sequence[Shape], elements: Sequence[Shape]
    ) -> tuple[Graph, list[Shape]]:
        """Return a function's graph at known sizes, and the element shapes of its lists."""
        nodes, arguments, results = self.library.flat(name)
        by_name = {node.name: node for node in nodes}
        inner = _Builder(self.library)
        for argument, shape, element in zip(arguments, shapes, elements, strict=True):
            by_name[argument].attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
            if element is not None:
                inner.elements[f"{argument}:0"] = element
        graph = inner.built(nodes, [f"{argument}:0" for argument in arguments], results)
        return graph, [inner.elements.get(result) for result in results]


def _shape(tensor: Any) -> Shape:
    return None if tensor.shape.rank is None else tuple(tensor.shape)


def _common(one: Shape, other: Shape) -> Shape:
    """Return the sizes that two shapes share; others are open."""
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))


def _merged(shapes: Sequence[Shape], body: Graph) -> list[Shape]:
    return [_common(one, made.shape) for one, made in zip(shapes, body.outputs, strict=True)]


def _value(tensor: Any, left: int = 32) -> Any:
    """Return the value of a tensor, by at most so many operations; None: it is not known."""
    size = tensor.shape.num_elements()
    # a tensor of many numbers is no size
    if not left or (size is not None and size > 4096):
        return None
    operation = tensor.op
    if operation.type in ("Placeholder", "While", "If"):
        return None
    rule = _RULES.get(operation.type)
    if rule is None:
        static = operation.type in ("Const", "Shape", "Size", "Rank")
        return tf.get_static_value(tensor) if static else None
    given = [_value(item, left - 1) for item in operation.inputs]
    if any(value is None for value in given):
        return None
    try:
        return rule(operation, *given)
    except (ValueError, IndexError, TypeError):
        return None


def _slice(operation: Any, values: Any, begin: Any, *_: Any) -> Any:
    """One entry of a vector, as `shape[0]` takes it."""
    one = operation.get_attr("shrink_axis_mask") == 1 and len(begin) == 1
    if not one or operation.get_attr("ellipsis_mask") or operation.get_attr("new_axis_mask"):
        return None
    return np.asarray(values)[int(begin[0])]


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    # over no axes: the values themselves
    return lambda _, values, axes: function(values, axis=tuple(np.atleast_1d(axes).astype(int)))


def _two(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, one, other: function(one, other)


_RULES: dict[str, Callable[..., Any]] = {
    "Identity": lambda _, value: value,
    "Cast": lambda operation, value: np.asarray(value).astype(
        operation.outputs[0].dtype.as_numpy_dtype
    ),
    "StridedSlice": _slice,
    "Range": lambda _, first, last, step: np.arange(first, last, step),
    "Max": _reduced(np.max),
    "Min": _reduced(np.min),
    "Prod": _reduced(np.prod),
    "Pack": lambda operation, *values: np.stack(values, operation.get_attr("axis")),
    "Maximum": _two(np.maximum),
    "Minimum": _two(np.minimum),
    **dict.fromkeys(("Add", "AddV2"), _two(np.add)),
    "Sub": _two(np.subtract),
    "Mul": _two(np.multiply),
    "FloorDiv": _two(np.floor_divide),
}
