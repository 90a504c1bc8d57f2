"""The memory that LiteRT sets aside for what flows through a file: its tensor arena."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.core.native_output import captured_stderr

TENSORS = "LiteRT's built-in kernels"
"""Whose arena it is: delegates such as XNNPACK plan their own memory inside."""


def arena_bytes(path: str | Path) -> int:
    """Returns the bytes of the arena in which LiteRT places a file's activations, at batch 1.

    Measured, not estimated: the file's tensors are allocated by LiteRT's own planner, without
    delegates, and the span of their addresses is read off. Weights lie in the file and are not in
    it; buffers that kernels need beside (im2col) are. Tensors that live at the same time do not
    share memory.

    Args:
        path: A `.tflite` file.

    Raises:
        InputError: The file cannot be read or run.

    Example:
        >>> file = export(model, folder / "m.tflite")[0].path
        >>> arena_bytes(file) > 4 * model.inputs[0].shape[-1]
        True
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    content = Path(path).read_bytes()
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with captured_stderr() as written:
        try:
            held: Any = Interpreter(model_content=content, experimental_op_resolver_type=plain)
            held.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error) or written().strip()
            raise InputError(f"LiteRT must be able to run '{path}' ({reason}).") from None
        spans = [
            span for detail in held.get_tensor_details() if (span := _span(held, detail["index"]))
        ]
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    # what lies in the file itself is no activation
    own = [(low, high) for low, high in spans if not start <= low < start + len(content)]
    return max(high for _, high in own) - min(low for low, _ in own) if own else 0


def _span(interpreter: Any, index: int) -> tuple[int, int] | None:
    """Returns where a tensor lies; None: nowhere yet."""
    try:
        values = interpreter.tensor(index)()
    except ValueError:
        return None
    if not values.nbytes:
        return None
    start = int(values.__array_interface__["data"][0])
    return start, start + int(values.nbytes)
