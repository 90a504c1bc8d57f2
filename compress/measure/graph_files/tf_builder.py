"""From a graph of TensorFlow to plain records, with all sizes that follow from the inputs'.

TensorFlow's own shape functions tell the sizes. They do not look into loops: a loop's body is
built with the sizes of what goes in, again and again until what comes out has the same sizes.
Scalars that are known without running anything (limits of loops) are noted with their values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from compress.core.native_output import captured_stderr
from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tf_flatten import Library, tensor_name

Shape = tuple[int | None, ...] | None
LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_READERS = {"TensorListGetItem": 2, "TensorListStack": 1}
"""What takes tensors out of a list, with the place of the input that says their shape."""
_SAME = ("Identity", "StopGradient", "PreventGradient", "Snapshot")
"""What makes nothing new: its result is its input."""
_CALLS = re.compile(r"(?:^|(?<=/))(?:Stateful)?PartitionedCall(?:_\d+)?/")
DEEPEST = 32
"""Operations that are followed back from a scalar."""
MOST = 4096
"""Numbers of a tensor on the way; a larger one is no size."""
_STATIC = ("Const", "Shape", "Size", "Rank")


def graph_of(graph_def: Any) -> Graph:
    """Returns the records of a graph whose placeholders have known sizes.

    Args:
        graph_def: A `GraphDef` with its functions, variables made constants.
    """
    library = Library(graph_def)
    nodes, _ = library.flattened(graph_def.node)
    inputs = [node for node in nodes if node.op == "Placeholder"]
    return _Builder(library).built(nodes, [f"{node.name}:0" for node in inputs], ())


@dataclass
class _Built:
    """A function at known sizes of its arguments.

    Attributes:
        graph: Its records.
        shapes: Of its results.
        elements: Of results that are lists of tensors: the shape of one of them.
    """

    graph: Graph
    shapes: list[Shape]
    elements: list[Shape]


@dataclass
class _Builder:
    """Builds one graph.

    Attributes:
        library: Functions of the whole.
        tensors: By name.
        elements: Of lists of tensors, by name: the shape of one of them.
    """

    library: Library
    tensors: dict[str, Tensor] = field(default_factory=dict)
    elements: dict[str, Shape] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    _made: dict[str, Any] = field(default_factory=dict)

    def built(self, nodes: Sequence[Any], inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
        import tensorflow as tf

        graph = tf.Graph()
        waiting: list[Any] = []
        for node in nodes:
            reads_list = node.op in _READERS and node.input[0] in self._lists(waiting)
            if node.op in (*LOOPS, *BRANCHES) or reads_list:
                self._import(graph, waiting)
                waiting = []
            if node.op in LOOPS:
                self._loop(graph, node)
            elif node.op in BRANCHES:
                self._branch(graph, node)
            else:
                self._tell_elements(graph, node)
                waiting.append(node)
        self._import(graph, waiting)
        results = [self.tensors[name] for name in outputs]
        return Graph(
            tuple(self.tensors[name] for name in inputs), tuple(results), tuple(self.operators)
        )

    # -- ordinary nodes -----------------------------------------------------------------------

    @staticmethod
    def _lists(nodes: Sequence[Any]) -> set[str]:
        return {f"{node.name}:0" for node in nodes if node.op.startswith("TensorList")}

    def _import(self, graph: Any, nodes: Sequence[Any]) -> None:
        """Adds nodes to TensorFlow's graph, which infers their sizes, and records them."""
        import tensorflow as tf

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
        with graph.as_default(), captured_stderr():
            tf.graph_util.import_graph_def(graph_def, input_map=outside, name="")
        for node in nodes:
            operation = graph.get_operation_by_name(node.name)
            self._note(node, operation)
            self._record(operation)

    def _note(self, node: Any, operation: Any) -> None:
        """Notes a node's results, and of lists the shape of what they hold."""
        self._made.update((f"{node.name}:{place}", t) for place, t in enumerate(operation.outputs))
        name = f"{node.name}:0"
        if node.op == "TensorListFromTensor":
            shape = _shape(operation.inputs[0])
            self.elements[name] = None if shape is None else shape[1:]
        elif node.op == "TensorListSetItem":
            self.elements[name] = _shape(operation.inputs[2])
        elif node.op == "Identity" and node.input[0] in self.elements:
            self.elements[name] = self.elements[node.input[0]]

    def _tell_elements(self, graph: Any, node: Any) -> None:
        """Puts the shape of what a list holds in place of the open one that a reader was given."""
        import tensorflow as tf

        shape = self.elements.get(node.input[0]) if node.op in _READERS else None
        if shape is None or None in shape:
            return
        with graph.as_default():
            constant = tf.constant(shape, tf.int32, name="element_shape")
        name = f"{constant.op.name}:0"
        self._made[name] = constant
        self._record(constant.op)
        node.input[_READERS[node.op]] = name

    def _record(self, operation: Any) -> None:
        import tensorflow as tf

        if operation.type in _SAME:
            ((given,), (made,)) = operation.inputs, operation.outputs
            self.tensors[self._name(made)] = self.tensors[self._name(given)]
            return
        outputs = [self._tensor(tensor) for tensor in operation.outputs]
        if operation.type in ("Placeholder", "NoOp"):
            return
        if operation.type == "Const":
            proto = operation.get_attr("value")
            outputs[0].values = partial(tf.make_ndarray, proto)
            return
        self.operators.append(
            Operator(
                operation.type,
                _CALLS.sub("", operation.name),
                tuple(self.tensors[self._name(tensor)] for tensor in operation.inputs),
                tuple(outputs),
                {"node": operation.node_def.attr},
            )
        )

    @staticmethod
    def _name(tensor: Any) -> str:
        return tensor_name(tensor.name)

    def _tensor(self, tensor: Any) -> Tensor:
        kind = tensor.dtype.base_dtype
        made = Tensor(
            tensor.name, _shape(tensor), kind.name, quantized=kind.is_quantized,
            number=number_of(tensor),
        )  # fmt: skip
        self.tensors[self._name(tensor)] = made
        return made

    # -- loops and branches -------------------------------------------------------------------

    def _loop(self, graph: Any, node: Any) -> None:
        given = [self._made[name] for name in node.input]
        shapes = [_shape(tensor) for tensor in given]
        elements = [self.elements.get(name) for name in node.input]
        body_name = node.attr["body"].func.name
        while True:
            body = self._function(body_name, given, shapes, elements)
            merged = [_common(a, b) for a, b in zip(shapes, body.shapes, strict=True)]
            # a list that is reserved holds nothing yet
            lists = [
                after if before is None else _common(before, after)
                for before, after in zip(elements, body.elements, strict=True)
            ]
            if (merged, lists) == (shapes, elements):
                break
            shapes, elements = merged, lists
        condition = self._function(node.attr["cond"].func.name, given, shapes, elements)
        self._control(graph, node, shapes, (body.graph,), condition.graph)
        self.elements |= {f"{node.name}:{place}": shape for place, shape in enumerate(elements)}

    def _branch(self, graph: Any, node: Any) -> None:
        given = [self._made[name] for name in node.input[1:]]
        shapes = [_shape(tensor) for tensor in given]
        elements = [self.elements.get(name) for name in node.input[1:]]
        functions = [
            *(node.attr[key].func for key in ("then_branch", "else_branch") if key in node.attr),
            *node.attr["branches"].list.func,
        ]
        names = [function.name for function in functions]
        bodies = [self._function(name, given, shapes, elements) for name in names]
        made = bodies[0].shapes
        for body in bodies[1:]:
            made = [_common(a, b) for a, b in zip(made, body.shapes, strict=True)]
        self._control(graph, node, made, tuple(body.graph for body in bodies), None)

    def _control(
        self,
        graph: Any,
        node: Any,
        shapes: Sequence[Shape],
        bodies: tuple[Graph, ...],
        condition: Graph | None,
    ) -> None:
        """Adds a stand-in of known sizes for what has graphs of its own, and records it."""
        import tensorflow as tf

        types = [tf.as_dtype(number) for number in _types(node)]
        outputs = []
        with graph.as_default():
            for place, (kind, shape) in enumerate(zip(types, shapes, strict=True)):
                made = tf.compat.v1.placeholder(kind, shape, name=f"{node.name}/made")
                self._made[f"{node.name}:{place}"] = made
                outputs.append(self._tensor(made))
        for place, tensor in enumerate(outputs):
            self.tensors[f"{node.name}:{place}"] = tensor
        inputs = [self.tensors[self._name(self._made[name])] for name in node.input]
        self.operators.append(
            Operator(
                node.op, _CALLS.sub("", node.name), tuple(inputs), tuple(outputs), {}, condition,
                bodies,
            )
        )  # fmt: skip

    def _function(
        self, name: str, given: Sequence[Any], shapes: Sequence[Shape], elements: Sequence[Shape]
    ) -> _Built:
        import tensorflow as tf

        nodes, arguments, results = self.library.flat(name)
        by_name = {node.name: node for node in nodes}
        inner = _Builder(self.library)
        for argument, shape, element in zip(arguments, shapes, elements, strict=True):
            node = by_name[argument]
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
            if element is not None:
                inner.elements[f"{argument}:0"] = element
        graph = inner.built(nodes, [f"{argument}:0" for argument in arguments], results)
        made = [inner.tensors[result] for result in results]
        return _Built(
            graph,
            [tensor.shape for tensor in made],
            [inner.elements.get(result) for result in results],
        )


def _types(node: Any) -> Sequence[int]:
    key = "T" if node.op in LOOPS else "Tout"
    found: Sequence[int] = node.attr[key].list.type
    return found


def _shape(tensor: Any) -> Shape:
    return None if tensor.shape.rank is None else tuple(tensor.shape)


def _common(one: Shape, other: Shape) -> Shape:
    """Returns what two shapes agree in."""
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))


def number_of(tensor: Any) -> float | None:
    """Returns the value of a scalar of whole numbers; None: it is none, or not known."""
    if tensor.shape.rank != 0 or not tensor.dtype.is_integer:
        return None
    value = _value(tensor, DEEPEST)
    return None if value is None else float(value)


def _value(tensor: Any, left: int) -> Any:
    import tensorflow as tf

    size = tensor.shape.num_elements()
    if not left or (size is not None and size > MOST):
        return None
    operation = tensor.op
    if operation.type in ("Placeholder", "While", "If"):
        return None
    rule = _RULES.get(operation.type)
    if rule is None:
        return tf.get_static_value(tensor) if operation.type in _STATIC else None
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
    def reduce(_: Any, values: Any, axes: Any) -> Any:
        # over no axes: the values themselves
        return function(values, axis=tuple(np.atleast_1d(axes).astype(int)))

    return reduce


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
