"""Products of activations in floats, and with them what lies between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.quantization.call import Call

PRODUCTS = frozenset({"Dot", "DotProductAttention", "Einsum", "Matmul"})
BETWEEN = frozenset(
    {
        *("Activation", "Relu", "Sigmoid", "Softmax", "Tanh"),
        *("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide", "Where"),
        *("ExpandDims", "Permute", "Reshape", "Split", "Squeeze", "Swapaxes", "Transpose"),
    }
)
"""What computes each element for itself, or moves it: from a float it makes one."""

FASTER = "CPUs multiply activations far faster in floats (integer_products: in whole numbers)"
READS_ONE = "it reads the product of activations that is computed in floats"


def made_loose(call: Call) -> bool:
    """Tells whether what a call makes in floats stays one where a kernel does not read it."""
    if call.building.integer_products:
        return False
    return _kind(call.layer) in PRODUCTS or reads_loose(call)


def reads_loose(call: Call) -> bool:
    """Tells whether a call lies behind a product in floats, and is made in floats as well."""
    return _kind(call.layer) in BETWEEN and any(value.loose for value in call.inputs)


def _kind(operation: Any) -> str:
    return type(operation).__name__
