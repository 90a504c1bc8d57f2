"""Size of a file on disk and as a download, and its memory while it runs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from compress.core import linux
from compress.core.errors import InputError, MissingDependency, ParetuneError, to_one_line
from compress.core.native_output import capture_stderr
from compress.core.processes import (
    ProcessEnded,
    ProcessOverdue,
    ServerProcess,
    receive_object,
    send_object,
    start_serving,
)
from compress.measure.runtimes import RUNTIMES
from compress.measure.runtimes.litert import allocate_interpreter
from compress.run.directory import LOG

TIMEOUT_S = 300.0


def measure_arena_bytes(path: str | Path) -> int:
    """Return the bytes of LiteRT's arenas for the activations of a file, at batch 1.

    The value is measured, not estimated: LiteRT's own planner allocates the tensors, without
    delegates (XNNPACK plans its own memory), and their addresses are read. Each byte that belongs
    to a tensor counts once, in all arenas. Weights are part of the file and do not count. Temporary
    buffers of kernels (im2col) count if LiteRT lists them as tensors.

    Args:
        path: A `.tflite` file.

    Raises:
        InputError: The file cannot be read or run, or it has loops: LiteRT does not expose the
            addresses of the tensors in loops.
        MissingDependency: ai-edge-litert is not installed.

    Example:
        >>> file = export(model, folder / "m.tflite")[0].path
        >>> measure_arena_bytes(file) > 4 * model.inputs[0].shape[-1]
        True
    """
    from ai_edge_litert.interpreter import OpResolverType

    content = Path(path).read_bytes()
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = allocate_interpreter(
        path, model_content=content, experimental_op_resolver_type=plain
    )
    if interpreter.num_subgraphs() > 1:
        raise InputError(
            f"The memory of '{path}' must be that of one graph to be read off. Received: "
            f"{interpreter.num_subgraphs()} graphs (loops, of recurrent layers say)."
        )
    with capture_stderr():
        spans = [
            span
            for detail in interpreter.get_tensor_details()
            if (span := _find_span(interpreter, detail["index"]))
        ]
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    # tensors inside the file content are weights
    activation_spans = [
        (low, high) for low, high in spans if not start <= low < start + len(content)
    ]
    occupied, end = 0, 0
    for low, high in sorted(activation_spans):
        occupied += max(0, high - max(low, end))
        end = max(end, high)
    return occupied


def try_measure_arena(path: str | Path) -> int | None:
    """Return the result of `measure_arena_bytes`; None on an `InputError` (the log has the reason).

    Args:
        path: A file. The result is None for files other than `.tflite`.
    """
    if Path(path).suffix != ".tflite":
        return None
    try:
        return measure_arena_bytes(path)
    except InputError as error:
        LOG.info("note: %s", error)
        return None


def measure_resident_bytes(path: str | Path, runtime: str = "litert", threads: int = 1) -> int:
    """Return the resident memory in bytes that loading and running a file adds to a process.

    The file runs in a separate process, at batch 1, with the runtime's default delegates. The
    result is the resident memory after some runs minus that after importing the runtime. It
    includes weights, their packed copies, the arena, and one-time allocations of the runtime.

    Args:
        path: A file that the runtime can run.
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        threads: Number of CPU threads.

    Raises:
        InputError: The file cannot be run.
        MissingDependency: The runtime is not installed.

    Example:
        >>> file = export(model, folder / "m.tflite")[0].path
        >>> measure_resident_bytes(file) > 0
        True
    """
    with closing(ServerProcess.start("compress.measure.footprint")) as server:
        try:
            answer = server.ask(str(path), runtime, threads, seconds=TIMEOUT_S)
        except (ProcessEnded, ProcessOverdue) as error:
            raise InputError(f"'{path}' must run in a process of its own ({error}).") from None
    if isinstance(answer, str):
        raise InputError(answer)
    return int(answer)


def try_measure_resident(path: str | Path, runtime: str = "litert", threads: int = 1) -> int | None:
    """Return the result of `measure_resident_bytes`; None if it fails (the log has the reason).

    Args:
        path, runtime, threads: See `measure_resident_bytes`.
    """
    try:
        return measure_resident_bytes(path, runtime, threads)
    except (InputError, MissingDependency) as error:
        LOG.info("note: resident memory: %s", error)
        return None


def _find_span(interpreter: Any, index: int) -> tuple[int, int] | None:
    """Return the start and end address of a tensor; None if it is not allocated."""
    try:
        values = interpreter.tensor(index)()
    except ValueError:
        return None
    if not values.nbytes:
        return None
    start = int(values.__array_interface__["data"][0])
    return start, start + int(values.nbytes)


def main() -> None:
    """Serve one request of `measure_resident_bytes`."""
    questions, answers = start_serving()
    path, runtime, threads = receive_object(questions, TIMEOUT_S)
    try:
        backend = RUNTIMES[runtime]
        backend.load_library()  # its memory is part of the baseline
        before = linux.measure_resident_bytes()
        session = backend.prepare(Path(path), threads)
        session.set_inputs([np.zeros(info.shape) for info in session.inputs])
        for _ in range(5):
            session.invoke()
        send_object(answers, max(0, linux.measure_resident_bytes() - before))
    except (ParetuneError, ImportError, RuntimeError, ValueError) as error:
        send_object(answers, to_one_line(str(error)))


if __name__ == "__main__":
    main()
