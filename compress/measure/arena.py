"""The memory that LiteRT sets aside for what flows through a file: its tensor arena."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.core.native_output import captured_stderr
from compress.run.directory import LOG


def arena_bytes(path: str | Path) -> int:
    """Returns the bytes that LiteRT's arenas hold for a file's activations, at batch 1.

    Measured, not estimated: the file's tensors are allocated by LiteRT's own planner, without
    delegates (XNNPACK plans its own memory), and their addresses are read off: every byte that a
    tensor lies on counts once, in whichever arena. Weights lie in the file and do not count;
    buffers that kernels need beside (im2col) do, where LiteRT lists them as tensors.

    Args:
        path: A `.tflite` file.

    Raises:
        InputError: The file cannot be read or run, or has loops: LiteRT does not tell where the
            tensors in them lie.

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
        if held.num_subgraphs() > 1:
            raise InputError(
                f"The memory of '{path}' must be that of one graph to be read off. Received: "
                f"{held.num_subgraphs()} graphs (loops, of recurrent layers say)."
            )
        spans = [
            span for detail in held.get_tensor_details() if (span := _span(held, detail["index"]))
        ]
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    # what lies in the file itself is no activation
    own = [(low, high) for low, high in spans if not start <= low < start + len(content)]
    occupied, end = 0, 0
    for low, high in sorted(own):
        occupied += max(0, high - max(low, end))
        end = max(end, high)
    return occupied


def known_arena(path: str | Path) -> int | None:
    """Returns what `arena_bytes` does; None where it cannot be read off (the log says why).

    None too of files of other runtimes.
    """
    if Path(path).suffix != ".tflite":
        return None
    try:
        return arena_bytes(path)
    except InputError as error:
        LOG.info("note: %s", error)
        return None


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
