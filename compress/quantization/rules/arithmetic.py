"""Raw arithmetic between tensors."""

from __future__ import annotations

from compress.quantization.call import Call
from compress.quantization.rules._base import operation_rule
from compress.quantization.values import Value

Made = Value | list[Value]


@operation_rule("Add", "Subtract", "Multiply")
def between_tensors(call: Call) -> Made:
    """With a range of its own."""
    if len(call.inputs) != 2 or any(value.whole for value in call.inputs):
        return call.in_float("one operand is a constant")
    return call.summed(call.itself, *call.inputs)


@operation_rule("Matmul")
def product(call: Call) -> Made:
    """Two activations multiplied, with a range of their own."""
    if len(call.inputs) != 2 or any(value.whole for value in call.inputs):
        return call.in_float("one operand is a constant")
    return call.summed(call.itself, *call.inputs, fuses=False)


@operation_rule("Mean")
def mean(call: Call) -> Made:
    """With a range of its own."""
    return call.summed(call.itself, call.inputs[0], fuses=False)
