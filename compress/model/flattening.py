"""Programs without nested ones: the calls of nested models in place of the models' calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from compress.model.program import Node, Program, substituted


def flat(program: Program) -> Program:
    """Returns a program of the same calls with those of nested models in place of theirs.

    Calls of nested models have tensors of their own at each call of the model, and names behind
    the model's: "backbone/conv1". What is nested in nothing stays as it is.

    Args:
        program: From `compress.model.recording.record`; it stays as it is.
    """
    nodes: list[Node] = []
    outputs = _inlined(program, "", program.inputs, nodes)
    return replace(program, nodes=nodes, outputs=tuple(outputs))


def _inlined(program: Program, prefix: str, given: Sequence[Any], nodes: list[Node]) -> list[Any]:
    """Appends a program's calls, made on the tensors `given`; returns its outputs."""
    import keras

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
