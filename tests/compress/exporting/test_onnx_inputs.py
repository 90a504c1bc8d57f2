"""Inputs of ONNX files are the model's, and no constants that their reader has swallowed."""

from __future__ import annotations

from typing import Any

import pytest

from compress.exporting.onnx import _drop_unread_inputs

onnx = pytest.importorskip("onnx")


def graph(*read: str) -> Any:
    """Return a graph that adds what it reads, with three inputs."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(name, kind, [1]) for name in ("input_0", "input_1", "12:0")
    ]
    output = helper.make_tensor_value_info("output", kind, [1])
    return helper.make_graph([helper.make_node("Sum", read, ["output"])], "g", inputs, [output])


def test_a_constant_that_nothing_reads_is_no_input() -> None:
    made = graph("input_0")
    _drop_unread_inputs(made, ["input_0", "input_1"])
    # the model's own inputs stay, read or not
    assert [item.name for item in made.input] == ["input_0", "input_1"]


def test_a_tensor_that_no_input_gives_is_refused() -> None:
    with pytest.raises(RuntimeError, match="a tensor that no input gives: 12:0"):
        _drop_unread_inputs(graph("input_0", "12:0"), ["input_0", "input_1"])


def test_branches_read_too() -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    output = helper.make_tensor_value_info("kept", kind, [1])
    branch = helper.make_graph(
        [helper.make_node("Identity", ["12:0"], ["kept"])], "b", [], [output]
    )
    made = graph("input_0")
    made.node.append(
        helper.make_node("If", ["input_1"], ["chosen"], then_branch=branch, else_branch=branch)
    )
    with pytest.raises(RuntimeError, match="12:0"):
        _drop_unread_inputs(made, ["input_0", "input_1"])
