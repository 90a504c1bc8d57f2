"""TensorFlow itself: a Keras model or SavedModel as a compiled function, in a process of its own.

TensorFlow's thread count is fixed when it starts, so each count gets its own process; runs are
timed inside it, and it stays for later files.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.processes import ProcessEnded, Server, receive, send, serving
from compress.measure.runtimes import Runtime, Session, TensorInfo
from compress.model.ports import Described, described

_SERVERS: dict[int, Server] = {}  # by their numbers of threads


def server_processes() -> list[int]:
    """Return the ids of the processes that run models for this one."""
    return [server.pid for server in _SERVERS.values()]


class TensorFlowSession(Session):
    """One loaded and traced model in the process of a thread count.

    Args:
        path: A Keras model, or a SavedModel's folder, with inputs of known sizes.
        threads: CPU threads; a GPU is used where TensorFlow sees one, and waited for.

    Raises:
        InputError: The file cannot be read or run.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._threads = threads
        if threads not in _SERVERS:
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
            _SERVERS[threads] = Server.started(__name__, str(threads), environment=quiet)
            atexit.register(_SERVERS[threads].close)
        self._server = _SERVERS[threads]
        self._number, *ports = self._ask("load", str(path))
        self.inputs, self.outputs = (
            tuple(TensorInfo(*described) for described in part) for part in ports
        )

    def __del__(self) -> None:
        if hasattr(self, "_number") and self._server.alive:
            self._ask("drop", self._number)

    def _ask(self, *question: Any) -> Any:
        """Return the answer of the process.

        Raises:
            InputError: What the process says is wrong with the question, or that it died.
        """
        try:
            kind, answer = self._server.ask(*question)
        except ProcessEnded as error:
            _SERVERS.pop(self._threads, None)
            raise InputError(
                f"TensorFlow's process must live through {question[:2]}. Received: {error}."
            ) from None
        if kind == "error":
            raise InputError(answer)
        return answer

    def set_inputs(self, values: Sequence[npt.NDArray[Any]]) -> None:
        """Copy a batch in."""
        stored = [info.stored(value) for info, value in zip(self.inputs, values, strict=True)]
        self._ask("input", self._number, stored)

    def invoke(self) -> None:
        """Run one inference."""
        self.timed(1)

    def timed(self, count: int) -> list[float]:
        """Run `count` inferences and return the seconds of each, as the process itself sees."""
        return list(self._ask("run", self._number, count))

    def results(self) -> list[npt.NDArray[Any]]:
        """Return the outputs."""
        made = self._ask("output", self._number)
        return [info.real(one) for info, one in zip(self.outputs, made, strict=True)]


class _Models:
    """What the process holds: traced models, their inputs and outputs."""

    def __init__(self) -> None:
        self._held: dict[int, SimpleNamespace] = {}
        self._made = 0

    def load(self, path: str) -> tuple[int, list[Any], list[Any]]:
        found = _saved_model(Path(path)) if Path(path).is_dir() else _keras_model(path)
        function, inputs, outputs = found
        self._made += 1
        self._held[self._made] = SimpleNamespace(function=function)
        return self._made, inputs, outputs

    def input(self, number: int, values: list[Any]) -> None:
        import tensorflow as tf

        self._held[number].inputs = [tf.constant(value) for value in values]

    def run(self, number: int, count: int) -> list[float]:
        model = self._held[number]
        function, x = model.function, model.inputs
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            # .numpy() waits for a GPU
            model.outputs = [made.numpy() for made in function(x)]
            seconds.append(time.perf_counter() - began)
        return seconds

    def output(self, number: int) -> Any:
        return self._held[number].outputs

    def drop(self, number: int) -> None:
        del self._held[number]


def _keras_model(path: str) -> tuple[Any, Described, Described]:
    """Return a function from a list of inputs to outputs, and both described."""
    import keras
    import tensorflow as tf

    from compress.model.inference import inference_alone
    from compress.model.io import load_model

    model = load_model(path)
    inputs, outputs = described(model)
    unknown = next((shape for _, shape, _ in inputs if 0 in shape), None)
    if unknown is not None:
        raise InputError(
            f"'{path}' must have known input sizes. Received: {unknown}, 0 where it is open. "
            "Give --input-shape."
        )

    def run(values: Any) -> Any:
        with inference_alone(model):  # while it is traced
            given = keras.tree.pack_sequence_as(model.input, values)
            return keras.tree.flatten(model(given, training=False))

    return tf.function(run, autograph=False), inputs, outputs


def _saved_model(path: Path) -> tuple[Any, Described, Described]:
    """Return the same of a SavedModel's signature, at batch 1."""
    from compress.model.kinds import SavedModel

    model = SavedModel(path)
    sizes = model.sizes(None, "to be timed")
    function = model.at(sizes)
    names = [name for name, _, _ in model.inputs]
    inputs = [
        (name, shape, kind)
        for (name, _, kind), shape in zip(model.inputs, model.shapes_at(sizes), strict=True)
    ]
    made = function.structured_outputs
    outputs = [
        (name, tuple(size or 0 for size in made[name].shape) if made[name].shape.rank else (), kind)
        for name, _, kind in model.outputs
    ]

    def run(values: Any) -> Any:
        results = function(**dict(zip(names, values, strict=True)))
        return [results[name] for name, _, _ in model.outputs]

    return run, inputs, outputs


def _serve(threads: int) -> None:
    questions, answers = serving()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.get_logger().setLevel("ERROR")
    models = _Models()
    while True:
        try:
            name, *given = receive(questions)
        except EOFError:
            return
        try:
            send(answers, ("answer", getattr(models, name)(*given)))
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            if not isinstance(error, InputError):
                text = f"TensorFlow must be able to run it ({text})."
            send(answers, ("error", text))


RUNTIME = Runtime(
    "tensorflow",
    text="TensorFlow {} (graph)",
    package="tensorflow",
    install="TensorFlow must be installed to run Keras models: pip install tensorflow",
    library="tensorflow",
    prepare=TensorFlowSession,
    suffixes=(".keras", ".h5"),
    formats=("float32",),
    maker="compress.exporting.traced:file_for",
)

if __name__ == "__main__":
    _serve(int(sys.argv[1]))
