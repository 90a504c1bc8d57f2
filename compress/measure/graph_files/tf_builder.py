"""The graph of a SavedModel as plain records, with sizes inferred from the input sizes.

Function calls are inlined. TensorFlow's shape functions infer the sizes. They do not look into
loops, so a loop's body is built with the sizes of its inputs, repeatedly, until its outputs have
the same sizes. Scalars that are known without running the graph (limits of loops) are recorded with
their values.
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

from compress.core.errors import InputError, extract_reason
from compress.core.native_output import capture_stderr, silence_logger
from compress.measure.graph_files.counting import count_graph
from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tables import BRANCHES, LOOPS, TENSORFLOW
from compress.measure.layer_costs import Analysis
from compress.model.file_formats import SavedModel

Shape = tuple[int | None, ...] | None
_LIST_READERS = {"TensorListGetItem": 2, "TensorListStack": 1}
"""Operations that read a tensor list -> index of the input with the element shape."""
_CALLS = re.compile(r"(?:^|(?<=/))(?:Stateful)?PartitionedCall(?:_\d+)?/")


def count_saved_model(model: SavedModel, sizes: Sequence[tuple[int, ...]]) -> Analysis:
    """Return the costs of a loaded SavedModel, with its variables frozen to constants.

    Args:
        model: SavedModel with the signature to count.
        sizes: Shape of one example for each input, from `SavedModel.fill_input_shapes`.

    Raises:
        InputError: The model cannot run at these sizes, TensorFlow cannot write it as one graph
            (more than 2 GiB, for example), or TensorFlow cannot infer its sizes.
    """
    function = model.build_function(sizes)
    with capture_stderr(), silence_logger("tensorflow"):
        try:
            frozen = convert_to_constants.convert_variables_to_constants_v2(
                function, lower_control_flow=False
            )
            graph_def = frozen.graph.as_graph_def()
            library = FunctionLibrary(graph_def)
            nodes, _ = library.inline_calls(graph_def.node)
            inputs = [f"{node.name}:0" for node in nodes if node.op == "Placeholder"]
            graph = _Builder(library).build(nodes, inputs, ())
        except InputError:
            raise
        except Exception as error:  # many exception classes of protobuf and TensorFlow
            raise InputError(
                f"The graph of '{model.path}' must be readable with its variables as constants. "
                f"Received: {extract_reason(error)}."
            ) from None
    return count_graph(graph, TENSORFLOW)


class FunctionLibrary:
    """The functions of a graph."""

    def __init__(self, graph_def: Any) -> None:
        self._functions = {item.signature.name: item for item in graph_def.library.function}

    def inline_function(self, name: str) -> tuple[list[Any], list[str], list[str]]:
        """Return a function's nodes, the names of its arguments and the names of its results.

        Nodes are in topological order, with calls inlined.

        Args:
            name: Name of the function.
        """
        inside, arguments, results = self._read_function(name)
        nodes, aliases = self.inline_calls(inside)
        return nodes, arguments, [resolve_alias(result, aliases) for result in results]

    def _read_function(self, name: str) -> tuple[Sequence[Any], list[str], list[str]]:
        definition = self._functions[name]
        graph_def, flat_names = function_def_to_graph.function_def_to_graph_def(definition)
        arguments = [item.name for item in definition.signature.input_arg]
        result_names = [definition.ret[item.name] for item in definition.signature.output_arg]
        return graph_def.node, arguments, [flat_names[name] for name in result_names]

    def inline_calls(self, nodes: Sequence[Any]) -> tuple[list[Any], dict[str, str]]:
        """Return nodes in topological order with calls inlined, and the aliases of call results."""
        inlined: list[Any] = []
        aliases: dict[str, str] = {}
        self._inline_nodes(nodes, "", inlined, aliases)
        for node in inlined:
            inputs = [resolve_alias(item, aliases) for item in node.input]
            del node.input[:]
            node.input.extend(inputs)
        return _sort_nodes(inlined), aliases

    def _inline_nodes(
        self, nodes: Sequence[Any], prefix: str, inlined: list[Any], aliases: dict[str, str]
    ) -> None:
        """Append node copies to `inlined`, function bodies in place of calls; fill `aliases`."""
        for node in nodes:
            name = prefix + node.name
            inputs = [prefix + item for item in node.input if not item.startswith("^")]
            is_call = node.op in ("PartitionedCall", "StatefulPartitionedCall")
            function_name = node.attr["f"].func.name if is_call else ""
            if function_name in self._functions:
                inside, arguments, results = self._read_function(function_name)
                for argument, source in zip(arguments, inputs, strict=True):
                    aliases[to_tensor_name(f"{name}/{argument}")] = source
                for number, result in enumerate(results):
                    aliases[f"{name}:{number}"] = f"{name}/{result}"
                inner = [item for item in inside if item.name not in arguments]
                self._inline_nodes(inner, f"{name}/", inlined, aliases)
                continue
            node_copy = node_def_pb2.NodeDef()
            node_copy.CopyFrom(node)
            node_copy.name, node_copy.device = name, ""
            del node_copy.input[:]
            node_copy.input.extend(inputs)
            for key in [key for key in node_copy.attr if key.startswith("_")]:
                del node_copy.attr[key]  # device and compilation attributes
            inlined.append(node_copy)


def to_tensor_name(name: str) -> str:
    """Return "node:0" for "node"."""
    return name if ":" in name else f"{name}:0"


def resolve_alias(name: str, aliases: Mapping[str, str]) -> str:
    """Return the tensor behind inlined calls and their arguments."""
    name = to_tensor_name(name)
    while name in aliases:
        name = to_tensor_name(aliases[name])
    return name


def _sort_nodes(nodes: Sequence[Any]) -> list[Any]:
    """Return the nodes in topological order.

    Raises:
        InputError: The graph has a cycle, as loops of TensorFlow 1 have.
    """
    by_name = {node.name: node for node in nodes}
    done: dict[str, None] = {}
    for first in nodes:
        stack, visited = [first.name], set[str]()
        while stack:
            name = stack[-1]
            sources = (item.rpartition(":")[0] for item in by_name[name].input)
            missing = [item for item in sources if item in by_name and item not in done]
            if name in done or not missing:
                done.setdefault(name)
                stack.pop()
                continue
            if name in visited:
                raise InputError(
                    f"A graph must have no circles to be counted. Received: one at '{name}', a "
                    "loop of TensorFlow 1."
                )
            visited.add(name)
            stack.extend(missing)
    return [by_name[name] for name in done]


@dataclass
class _Builder:
    """Builder of one graph.

    Attributes:
        library: Functions of the whole model.
        tensors: Tensors by name.
        element_shapes: Shape of the elements of tensor lists, by the list's name.
        operators: Operators so far.
        graph: TensorFlow graph that infers sizes.
    """

    library: FunctionLibrary
    tensors: dict[str, Tensor] = field(default_factory=dict)
    element_shapes: dict[str, Shape] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    graph: Any = field(default_factory=tf.Graph)
    _tf_tensors: dict[str, Any] = field(default_factory=dict)

    def build(self, nodes: Sequence[Any], inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
        """Return the graph of nodes."""
        waiting: list[Any] = []
        for node in nodes:
            reads_list = node.op in _LIST_READERS and any(
                item.op.startswith("TensorList") and f"{item.name}:0" == node.input[0]
                for item in waiting
            )
            if node.op in (*LOOPS, *BRANCHES) or reads_list:
                self._import(waiting)
                waiting = []
            if node.op in LOOPS:
                self._build_loop(node)
            elif node.op in BRANCHES:
                self._build_branch(node)
            else:
                self._set_element_shape(node)
                waiting.append(node)
        self._import(waiting)
        input_tensors, output_tensors = (
            tuple(self.tensors[name] for name in names) for names in (inputs, outputs)
        )
        return Graph(input_tensors, output_tensors, tuple(self.operators))

    # -- ordinary nodes -----------------------------------------------------------------------

    def _import(self, nodes: Sequence[Any]) -> None:
        """Add nodes to the TensorFlow graph, which infers their sizes, and record them."""
        if not nodes:
            return
        graph_def = tf.compat.v1.GraphDef()
        graph_def.node.extend(nodes)
        new_names = {node.name for node in nodes}
        outside = {
            name: self._tf_tensors[name]
            for node in nodes
            for name in node.input
            if name.rpartition(":")[0] not in new_names
        }
        with self.graph.as_default(), capture_stderr():
            tf.graph_util.import_graph_def(graph_def, input_map=outside, name="")
        for node in nodes:
            self._record(node, self.graph.get_operation_by_name(node.name))

    def _set_element_shape(self, node: Any) -> None:
        """Pass the known element shape of a tensor list to a node that reads it."""
        shape = self.element_shapes.get(node.input[0]) if node.op in _LIST_READERS else None
        if shape is None or None in shape:
            return
        with self.graph.as_default():
            constant = tf.constant(shape, tf.int32, name="element_shape")
        self._record(constant.op.node_def, constant.op)
        node.input[_LIST_READERS[node.op]] = constant.name

    def _record(self, node: Any, operation: Any) -> None:
        """Record an operation with its outputs, and element shapes of tensor lists."""
        self._tf_tensors.update((tensor.name, tensor) for tensor in operation.outputs)
        name = f"{node.name}:0"
        if node.op == "TensorListFromTensor":
            shape = _read_shape(operation.inputs[0])
            self.element_shapes[name] = None if shape is None else shape[1:]
        elif node.op == "TensorListSetItem":
            self.element_shapes[name] = _read_shape(operation.inputs[2])
        elif node.op == "Identity" and node.input[0] in self.element_shapes:
            self.element_shapes[name] = self.element_shapes[node.input[0]]
        if operation.type in ("Identity", "StopGradient", "PreventGradient", "Snapshot"):
            # its output is its input
            self.tensors[name] = self.tensors[operation.inputs[0].name]
            return
        outputs = [self._record_tensor(tensor) for tensor in operation.outputs]
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

    def _record_tensor(self, tensor: Any) -> Tensor:
        """Store a tensor by name and return it, with its value if it is a constant integer."""
        kind = tensor.dtype.base_dtype
        graph_tensor = Tensor(
            tensor.name, _read_shape(tensor), kind.name, is_quantized=kind.is_quantized
        )
        is_scalar_integer = tensor.shape.rank == 0 and tensor.dtype.is_integer
        if is_scalar_integer and (value := _evaluate_constant(tensor)) is not None:
            graph_tensor.scalar = float(value)
        self.tensors[tensor.name] = graph_tensor
        return graph_tensor

    # -- loops and branches -------------------------------------------------------------------

    def _build_loop(self, node: Any) -> None:
        """Record a loop, rebuilding its body until the shapes of its variables no longer change."""
        shapes = [_read_shape(self._tf_tensors[name]) for name in node.input]
        elements = [self.element_shapes.get(name) for name in node.input]
        while True:
            body, ends = self._build_function(node.attr["body"].func.name, shapes, elements)
            merged = _merge_outputs(shapes, body)
            # a reserved list has no element shape yet
            lists = [
                after if before is None else _merge_shapes(before, after)
                for before, after in zip(elements, ends, strict=True)
            ]
            if (merged, lists) == (shapes, elements):
                break
            shapes, elements = merged, lists
        condition, _ = self._build_function(node.attr["cond"].func.name, shapes, elements)
        self._record_control_flow(node, shapes, (body,), condition)
        self.element_shapes |= {
            f"{node.name}:{index}": shape for index, shape in enumerate(elements)
        }

    def _build_branch(self, node: Any) -> None:
        """Record a conditional with all branches; output sizes that differ become None."""
        shapes = [_read_shape(self._tf_tensors[name]) for name in node.input[1:]]
        elements = [self.element_shapes.get(name) for name in node.input[1:]]
        functions = [
            *(node.attr[key].func for key in ("then_branch", "else_branch") if key in node.attr),
            *node.attr["branches"].list.func,
        ]
        bodies = tuple(self._build_function(item.name, shapes, elements)[0] for item in functions)
        output_shapes = [tensor.shape for tensor in bodies[0].outputs]
        for body in bodies[1:]:
            output_shapes = _merge_outputs(output_shapes, body)
        self._record_control_flow(node, output_shapes, bodies, None)

    def _record_control_flow(
        self,
        node: Any,
        shapes: Sequence[Shape],
        bodies: tuple[Graph, ...],
        condition: Graph | None,
    ) -> None:
        """Record a loop or branch; placeholders of known sizes represent its outputs."""
        types = node.attr["T" if node.op in LOOPS else "Tout"].list.type
        outputs = []
        with self.graph.as_default():
            for index, (kind, shape) in enumerate(zip(types, shapes, strict=True)):
                placeholder = tf.compat.v1.placeholder(kind, shape, name=f"{node.name}/made")
                outputs.append(self._record_tensor(placeholder))
                self._tf_tensors[f"{node.name}:{index}"] = placeholder
                self.tensors[f"{node.name}:{index}"] = outputs[-1]
        inputs = tuple(self.tensors[self._tf_tensors[name].name] for name in node.input)
        name = _CALLS.sub("", node.name)
        self.operators.append(
            Operator(node.op, name, inputs, tuple(outputs), {}, condition, bodies)
        )

    def _build_function(
        self, name: str, shapes: Sequence[Shape], elements: Sequence[Shape]
    ) -> tuple[Graph, list[Shape]]:
        """Return a function's graph at known sizes, and the element shapes of its result lists."""
        nodes, arguments, results = self.library.inline_function(name)
        by_name = {node.name: node for node in nodes}
        inner = _Builder(self.library)
        for argument, shape, element in zip(arguments, shapes, elements, strict=True):
            by_name[argument].attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
            if element is not None:
                inner.element_shapes[f"{argument}:0"] = element
        graph = inner.build(nodes, [f"{argument}:0" for argument in arguments], results)
        return graph, [inner.element_shapes.get(result) for result in results]


def _read_shape(tensor: Any) -> Shape:
    return None if tensor.shape.rank is None else tuple(tensor.shape)


def _merge_shapes(first: Shape, second: Shape) -> Shape:
    """Return the sizes that two shapes share; other sizes are open."""
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))


def _merge_outputs(shapes: Sequence[Shape], body: Graph) -> list[Shape]:
    return [
        _merge_shapes(shape, output.shape)
        for shape, output in zip(shapes, body.outputs, strict=True)
    ]


def _evaluate_constant(tensor: Any, max_operations: int = 32) -> Any:
    """Return the value of a constant expression; None if it is not constant or too large.

    Args:
        tensor: The TensorFlow tensor.
        max_operations: Largest depth of operations to evaluate.
    """
    size = tensor.shape.num_elements()
    # large tensors are not sizes
    if not max_operations or (size is not None and size > 4096):
        return None
    operation = tensor.op
    rule = _RULES.get(operation.type)
    if rule is None:
        static = operation.type in ("Const", "Shape", "Size", "Rank")
        return tf.get_static_value(tensor) if static else None
    input_values = [_evaluate_constant(item, max_operations - 1) for item in operation.inputs]
    if any(value is None for value in input_values):
        return None
    try:
        return rule(operation, *input_values)
    except (ValueError, IndexError, TypeError):
        return None


def _slice_vector(operation: Any, values: Any, begin: Any, *_: Any) -> Any:
    """Return one entry of a vector, as in `shape[0]`; None for other slices."""
    is_single_entry = operation.get_attr("shrink_axis_mask") == 1 and len(begin) == 1
    if (
        not is_single_entry
        or operation.get_attr("ellipsis_mask")
        or operation.get_attr("new_axis_mask")
    ):
        return None
    return np.asarray(values)[int(begin[0])]


def _wrap_reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    # without axes NumPy returns the values themselves
    return lambda _, values, axes: function(values, axis=tuple(np.atleast_1d(axes).astype(int)))


def _wrap_binary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, one, other: function(one, other)


_RULES: dict[str, Callable[..., Any]] = {
    "Identity": lambda _, value: value,
    "Cast": lambda operation, value: np.asarray(value).astype(
        operation.outputs[0].dtype.as_numpy_dtype
    ),
    "StridedSlice": _slice_vector,
    "Range": lambda _, first, last, step: np.arange(first, last, step),
    "Max": _wrap_reduction(np.max),
    "Min": _wrap_reduction(np.min),
    "Prod": _wrap_reduction(np.prod),
    "Pack": lambda operation, *values: np.stack(values, operation.get_attr("axis")),
    "Maximum": _wrap_binary(np.maximum),
    "Minimum": _wrap_binary(np.minimum),
    **dict.fromkeys(("Add", "AddV2"), _wrap_binary(np.add)),
    "Sub": _wrap_binary(np.subtract),
    "Mul": _wrap_binary(np.multiply),
    "FloorDiv": _wrap_binary(np.floor_divide),
}
