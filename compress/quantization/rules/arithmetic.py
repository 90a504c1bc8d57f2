"""Raw arithmetic between tensors."""

from __future__ import annotations

from typing import Any

from compress.model.ports import BYTES
from compress.quantization.call import FASTER, Call
from compress.quantization.kernels import Affine
from compress.quantization.rules._base import KeptInFloats, operation_rule
from compress.quantization.values import Value

Made = Value | list[Value]


@operation_rule("Add", "Subtract", "Multiply")
def between_tensors(call: Call) -> Made:
    """With a range of its own; of a constant operand, too."""
    if any(value.whole for value in call.inputs):
        raise KeptInFloats("one operand is no real number")
    if len(call.inputs) == 2:
        return call.summed(call.itself, *call.inputs)
    return with_constant(call)


def with_constant(call: Call) -> Made:
    """Combines a tensor with a number or an array of numbers, no larger than itself."""
    import keras
    import numpy as np
    import tensorflow as tf

    operands = list(call.node.args[:2])
    place = next(
        (at for at, item in enumerate(operands) if not isinstance(item, keras.KerasTensor)), None
    )
    if len(operands) != 2 or place is None:
        raise KeptInFloats("its operands are not told apart")
    try:
        number = np.asarray(operands[place], np.float32)
    except (TypeError, ValueError):
        raise KeptInFloats("one operand is no constant") from None
    sizes = call.shape_of(0)[1:]
    shape = (1, *(size for size in sizes if size is not None))
    if None in sizes or np.broadcast_shapes(shape, number.shape) != shape:
        raise KeptInFloats("its constant is larger than its tensor")
    name = type(call.layer).__name__
    if name in ("Divide", "TrueDivide"):
        if place == 0 or not number.all():
            raise KeptInFloats("a quotient by a tensor, or by 0, has no integer kernel")
        name, number = "Multiply", np.float32(1.0) / number
    if number.size == 1 and name == "Multiply":
        scale = np.full(shape[-1], float(number.reshape(())), np.float32)
        return call.scaled(call.inputs[0], Affine(None, lambda: (tf.constant(scale), None)))
    combine = {"Add": tf.add, "Subtract": tf.subtract, "Multiply": tf.multiply}[name]

    def combined(x: Any, held: Any) -> Any:
        return combine(held, x) if place == 0 else combine(x, held)

    return call.with_constant(combined, call.inputs[0], lambda: tf.constant(number))


@operation_rule("Divide", "TrueDivide")
def quotient(call: Call) -> Made:
    """By a constant: times its reciprocal."""
    if len(call.inputs) > 1:
        raise KeptInFloats("a quotient of two tensors has no integer kernel")
    return with_constant(call)


@operation_rule("Cast")
def cast(call: Call) -> Value:
    """Bytes lie on a grid as they are; of what size other integers are nothing tells."""
    value, made = call.inputs[0], str(call.node.outputs[0].dtype)
    if made != "float32" or str(value.tensor.dtype if value.whole else made) not in (*BYTES, made):
        raise KeptInFloats("what it makes floats of may be of any size")
    return call.on_grid(value) if value.whole else value


@operation_rule("Matmul")
def product(call: Call) -> Made:
    """Two activations multiplied; in whole numbers with a range of their own."""
    if len(call.inputs) != 2 or any(value.whole for value in call.inputs):
        raise KeptInFloats("one operand is a constant")
    if not call.building.integer_products:
        raise KeptInFloats(FASTER)
    return call.summed(call.itself, *call.inputs, fuses=False)


@operation_rule("Mean")
def mean(call: Call) -> Made:
    """With a range of its own."""
    return call.summed(call.itself, call.inputs[0], fuses=False)
