"""TensorFlow as a runtime: Keras models and SavedModels as compiled functions.

TensorFlow fixes its thread count at startup, so each count has its own server process. The process
times runs itself, and later files reuse it.
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
from compress.core.lazy_modules import keras, tf
from compress.core.processes import (
    ProcessEnded,
    ServerProcess,
    receive_object,
    send_object,
    start_serving,
)
from compress.measure.runtimes import Runtime, Session, TensorInfo
from compress.model.ports import PortDescriptions, describe_ports, pack_inputs

_SERVERS: dict[int, ServerProcess] = {}  # thread count -> server


def list_server_processes() -> list[int]:
    """Return the ids of the server processes of this process."""
    return [server.pid for server in _SERVERS.values()]


class TensorFlowSession(Session):
    """One loaded and traced model in the server process of a thread count.

    Args:
        path: A Keras model or a SavedModel folder, with fixed input sizes.
        threads: Number of CPU threads. A GPU is used if TensorFlow finds one; timing waits for it.

    Raises:
        InputError: The file cannot be read or run.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._threads = threads
        if threads not in _SERVERS:
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
            _SERVERS[threads] = ServerProcess.start(__name__, str(threads), environment=quiet)
            atexit.register(_SERVERS[threads].close)
        self._server = _SERVERS[threads]
        self._number, *ports = self._ask("load", str(path))
        self.inputs, self.outputs = (
            tuple(TensorInfo(*described) for described in part) for part in ports
        )

    def __del__(self) -> None:
        if hasattr(self, "_number") and self._server.is_alive:
            self._ask("drop", self._number)

    def _ask(self, *question: Any) -> Any:
        """Return the response of the server process.

        Raises:
            InputError: The server reports an error, or its process ended.
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
        stored = [info.quantize(value) for info, value in zip(self.inputs, values, strict=True)]
        self._ask("input", self._number, stored)

    def invoke(self) -> None:
        """Run one inference."""
        self.time_runs(1)

    def time_runs(self, count: int) -> list[float]:
        """Run `count` inferences and return the seconds of each, timed in the server process."""
        return list(self._ask("run", self._number, count))

    def results(self) -> list[npt.NDArray[Any]]:
        """Return the outputs."""
        stored = self._ask("output", self._number)
        return [info.dequantize(output) for info, output in zip(self.outputs, stored, strict=True)]


class _ModelStore:
    """Traced models of the server process, with their inputs and outputs."""

    def __init__(self) -> None:
        self._models: dict[int, SimpleNamespace] = {}
        self._count = 0

    def load(self, path: str) -> tuple[int, list[Any], list[Any]]:
        """Load a model; return its number and the descriptions of inputs and outputs."""
        loaded = _load_saved_model(Path(path)) if Path(path).is_dir() else _load_keras_model(path)
        function, inputs, outputs = loaded
        self._count += 1
        self._models[self._count] = SimpleNamespace(function=function)
        return self._count, inputs, outputs

    def input(self, number: int, values: list[Any]) -> None:
        """Set the inputs of a model."""

        self._models[number].inputs = [tf.constant(value) for value in values]

    def run(self, number: int, count: int) -> list[float]:
        """Run a model and return the seconds of each inference."""
        model = self._models[number]
        function, x = model.function, model.inputs
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            # .numpy() waits until a GPU is done
            model.outputs = [output.numpy() for output in function(x)]
            seconds.append(time.perf_counter() - start)
        return seconds

    def output(self, number: int) -> Any:
        """Return the outputs of the last inference."""
        return self._models[number].outputs

    def drop(self, number: int) -> None:
        """Remove a model."""
        del self._models[number]


def _load_keras_model(path: str) -> tuple[Any, PortDescriptions, PortDescriptions]:
    """Return a function from a list of inputs to outputs, and descriptions of both."""
    from compress.model.io import load_model
    from compress.model.layer_patches import disable_training_layers

    model = load_model(path)
    inputs, outputs = describe_ports(model)
    unknown = next((shape for _, shape, _ in inputs if 0 in shape), None)
    if unknown is not None:
        raise InputError(
            f"'{path}' must have known input sizes. Received: {unknown}, 0 where it is open. "
            "Give --input-shape."
        )

    def run(values: Any) -> Any:
        with disable_training_layers(model):  # during tracing
            return keras.tree.flatten(model(pack_inputs(model, values), training=False))

    return tf.function(run, autograph=False), inputs, outputs


def _load_saved_model(path: Path) -> tuple[Any, PortDescriptions, PortDescriptions]:
    """Return the function of a SavedModel's signature at batch 1, and its port descriptions."""
    from compress.model.file_formats import SavedModel

    model = SavedModel(path)
    sizes = model.fill_input_shapes(None, "to be timed")
    function = model.build_function(sizes)
    names = [name for name, _, _ in model.inputs]
    inputs = [
        (name, shape, kind)
        for (name, _, kind), shape in zip(model.inputs, model.add_batch_axes(sizes), strict=True)
    ]
    structured_outputs = function.structured_outputs
    outputs = [
        (
            name,
            tuple(size or 0 for size in structured_outputs[name].shape)
            if structured_outputs[name].shape.rank
            else (),
            kind,
        )
        for name, _, kind in model.outputs
    ]

    def run(values: Any) -> Any:
        results = function(**dict(zip(names, values, strict=True)))
        return [results[name] for name, _, _ in model.outputs]

    return run, inputs, outputs


def _serve(threads: int) -> None:
    """Answer requests for models until the client closes its pipe; errors are sent back as text."""
    questions, answers = start_serving()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.get_logger().setLevel("ERROR")
    models = _ModelStore()
    while True:
        try:
            name, *arguments = receive_object(questions)
        except EOFError:
            return
        try:
            send_object(answers, ("answer", getattr(models, name)(*arguments)))
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            is_own = isinstance(error, InputError)
            answer = text if is_own else f"TensorFlow must be able to run it ({text})."
            send_object(answers, ("error", answer))


RUNTIME = Runtime(
    "tensorflow",
    text="TensorFlow {} (graph)",
    package="tensorflow",
    install="TensorFlow must be installed to run Keras models: pip install tensorflow",
    library="tensorflow",
    prepare=TensorFlowSession,
    suffixes=(".keras", ".h5"),
    formats=("float32",),
    maker="compress.exporting.tracing:write_for_runtime",
)

if __name__ == "__main__":
    _serve(int(sys.argv[1]))
