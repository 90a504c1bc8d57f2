"""What a file takes: bytes on disk and as a download, and memory while it runs."""

from __future__ import annotations

import gzip
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.core import linux
from compress.core.errors import InputError, MissingDependency, ParetuneError, one_line
from compress.core.native_output import captured_stderr
from compress.core.processes import ProcessEnded, ProcessOverdue, Server, receive, send, serving
from compress.measure.runtimes import RUNTIMES
from compress.measure.runtimes.litert import allocated
from compress.run.directory import LOG

SECONDS = 300.0


@dataclass(frozen=True)
class FileSizes:
    """Bytes of a file: on disk, after gzip -9, after zstd -19."""

    size: int
    gzip: int
    zstd: int


def file_sizes(path: Path) -> FileSizes:
    """Compress a file in memory and return its sizes."""
    import zstandard

    content = path.read_bytes()
    return FileSizes(
        len(content),
        len(gzip.compress(content, compresslevel=9, mtime=0)),
        len(zstandard.ZstdCompressor(level=19).compress(content)),
    )


def arena_bytes(path: str | Path) -> int:
    """Return the bytes that LiteRT's arenas hold for a file's activations, at batch 1.

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
    from ai_edge_litert.interpreter import OpResolverType

    content = Path(path).read_bytes()
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    held = allocated(path, model_content=content, experimental_op_resolver_type=plain)
    if held.num_subgraphs() > 1:
        raise InputError(
            f"The memory of '{path}' must be that of one graph to be read off. Received: "
            f"{held.num_subgraphs()} graphs (loops, of recurrent layers say)."
        )
    with captured_stderr():
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
    """Return the result of `arena_bytes`; None where it fails (the log has the reason).

    None too of files of other runtimes.
    """
    if Path(path).suffix != ".tflite":
        return None
    try:
        return arena_bytes(path)
    except InputError as error:
        LOG.info("note: %s", error)
        return None


def resident_bytes(path: str | Path, runtime: str = "litert", threads: int = 1) -> int:
    """Return the bytes that become resident when a process loads a file and runs it.

    Measured in a process of its own, at batch 1, with the runtime as it ships (its delegates
    included): after some runs less before the file was loaded, when the runtime was imported and
    nothing else. Weights, their packed copies, the arena and what the runtime sets up once are in
    it.

    Args:
        path: A file that the runtime runs.
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be run.
        MissingDependency: The runtime is not installed.

    Example:
        >>> file = export(model, folder / "m.tflite")[0].path
        >>> resident_bytes(file) > 0
        True
    """
    with closing(Server.started("compress.measure.footprint")) as server:
        try:
            found = server.ask(str(path), runtime, threads, seconds=SECONDS)
        except (ProcessEnded, ProcessOverdue) as error:
            raise InputError(f"'{path}' must run in a process of its own ({error}).") from None
    if isinstance(found, str):
        raise InputError(found)
    return int(found)


def known_resident(path: str | Path, runtime: str = "litert", threads: int = 1) -> int | None:
    """Return the result of `resident_bytes`; None where it fails (the log has the reason)."""
    try:
        return resident_bytes(path, runtime, threads)
    except (InputError, MissingDependency) as error:
        LOG.info("note: resident memory: %s", error)
        return None


def _span(interpreter: Any, index: int) -> tuple[int, int] | None:
    """Return where a tensor lies; None: nowhere yet."""
    try:
        values = interpreter.tensor(index)()
    except ValueError:
        return None
    if not values.nbytes:
        return None
    start = int(values.__array_interface__["data"][0])
    return start, start + int(values.nbytes)


def main() -> None:
    """Answer one question; see `resident_bytes`."""
    questions, answers = serving()
    path, runtime, threads = receive(questions, SECONDS)
    try:
        own = RUNTIMES[runtime]
        own.load_library()  # the library's own memory is not the file's
        before = linux.resident_bytes()
        session = own.prepare(Path(path), threads)
        session.set_inputs([np.zeros(info.shape) for info in session.inputs])
        for _ in range(5):
            session.invoke()
        send(answers, max(0, linux.resident_bytes() - before))
    except (ParetuneError, ImportError, RuntimeError, ValueError) as error:
        send(answers, one_line(str(error)))


if __name__ == "__main__":
    main()
