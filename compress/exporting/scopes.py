"""Which layer a node of a converted graph stands for: TensorFlow names nodes by layers."""

from __future__ import annotations

import re
from collections.abc import Collection

UNNAMED = "(no layer)"
"""Nodes that a runtime or a converter put in, such as changes of layout."""
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_NUMBERED = re.compile(r"_\d+$")


def without_calls(node: str) -> str:
    """Returns a node's name without the calls that a SavedModel puts around its model."""
    return _CALLS.sub("", node)


def layer_of(node: str, layers: Collection[str]) -> str:
    """Returns the layer whose scope a node's name lies in.

    TensorFlow writes "model_1/conv_1/convolution" for layer "conv" that is traced again, so a
    scope is looked up with its last number taken off first, then as it is.

    Args:
        node: The node's name.
        layers: Names of layers that hold no others.
    """
    for scope in _scopes(node):
        for name in scope:
            if name in layers:
                return name
    return UNNAMED


def path_of(node: str, paths: Collection[str]) -> str:
    """Returns the innermost layer whose scope a node's name lies in, behind what holds it.

    Args:
        node: The node's name.
        paths: Of `compress.model.walk.named_layers`.
    """
    found = ""
    for scope in _scopes(node):
        for name in scope:
            path = f"{found}/{name}" if found else name
            if path in paths:
                found = path
                break
    return found or UNNAMED


def _scopes(node: str) -> list[tuple[str, str]]:
    """Returns the scopes of a node behind the model's, each without and with its last number."""
    return [(_NUMBERED.sub("", scope), scope) for scope in node.split("/")[1:]]
