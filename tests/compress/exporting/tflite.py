"""Reads the constants of a `.tflite` file."""

from __future__ import annotations

from typing import Any

import numpy as np


def zeros_in(content: bytes, shape: tuple[int, ...], dtype: Any) -> int:
    """Counts the zeros of the one constant of this shape and type."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        # without a delegate constants stay readable
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (zeros,) = [
        int(np.count_nonzero(interpreter.get_tensor(detail["index"]) == 0))
        for detail in interpreter.get_tensor_details()
        if tuple(detail["shape"]) == shape and detail["dtype"] == dtype
    ]
    return zeros
