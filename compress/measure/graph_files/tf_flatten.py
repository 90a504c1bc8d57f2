"""Graphs of TensorFlow without calls: what functions hold stands in place of the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compress.core.errors import InputError

CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class Library:
    """The functions of a graph."""

    def __init__(self, graph_def: Any) -> None:
        self._functions = {item.signature.name: item for item in graph_def.library.function}

    def flat(self, name: str) -> tuple[list[Any], list[str], list[str]]:
        """Returns a function's nodes, the names of its arguments and those of its results.

        Nodes are in an order in which they can be made; calls are opened.
        """
        from tensorflow.python.framework import function_def_to_graph

        definition = self._functions[name]
        graph_def, flat_names = function_def_to_graph.function_def_to_graph_def(definition)
        arguments = [item.name for item in definition.signature.input_arg]
        results = [
            flat_names[definition.ret[item.name]] for item in definition.signature.output_arg
        ]
        nodes, aliases = self.flattened(graph_def.node)
        return nodes, arguments, [resolved(result, aliases) for result in results]

    def flattened(self, nodes: Sequence[Any]) -> tuple[list[Any], dict[str, str]]:
        """Returns nodes without calls, in order, and what took the place of calls' results."""
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
        from tensorflow.core.framework import node_def_pb2

        for node in nodes:
            inputs = [prefix + item for item in node.input if not item.startswith("^")]
            if node.op in CALLS and node.attr["f"].func.name in self._functions:
                self._open_call(node, prefix + node.name, inputs, made, aliases)
                continue
            own = node_def_pb2.NodeDef()
            own.CopyFrom(node)
            own.name = prefix + node.name
            own.device = ""
            del own.input[:]
            own.input.extend(inputs)
            for key in [key for key in own.attr if key.startswith("_")]:
                del own.attr[key]  # where it runs and how it is compiled
            made.append(own)

    def _open_call(
        self, node: Any, name: str, inputs: list[str], made: list[Any], aliases: dict[str, str]
    ) -> None:
        from tensorflow.python.framework import function_def_to_graph

        definition = self._functions[node.attr["f"].func.name]
        graph_def, flat_names = function_def_to_graph.function_def_to_graph_def(definition)
        arguments = [item.name for item in definition.signature.input_arg]
        for argument, given in zip(arguments, inputs, strict=True):
            aliases[tensor_name(f"{name}/{argument}")] = given
        inside = [item for item in graph_def.node if item.name not in arguments]
        self._open(inside, f"{name}/", made, aliases)
        for number, item in enumerate(definition.signature.output_arg):
            result = flat_names[definition.ret[item.name]]
            aliases[f"{name}:{number}"] = f"{name}/{result}"


def tensor_name(name: str) -> str:
    """Returns "node:0" for "node"."""
    return name if ":" in name else f"{name}:0"


def resolved(name: str, aliases: Mapping[str, str]) -> str:
    """Returns the tensor that stands behind calls and arguments."""
    name = tensor_name(name)
    while name in aliases:
        name = tensor_name(aliases[name])
    return name


def _ordered(nodes: Sequence[Any]) -> list[Any]:
    """Returns nodes behind what they read; calls' arguments may have been made later.

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
