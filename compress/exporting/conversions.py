"""Conversions in a child process, so that a converter may crash or hang without ending the run.

A process that imports TensorFlow once and never uses it forks for each conversion
(`compress.exporting.converter`). It starts with the first conversion, or is forked from this
process before TensorFlow is used (`converter.fork_converter`), and ends with this process. A
failed conversion is reported in one line with the model, the format and the layer.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from compress.core.errors import RunFailed
from compress.core.lazy_modules import keras
from compress.core.processes import ProcessEnded, ProcessOverdue, ServerProcess
from compress.exporting.tracing import UNNAMED, find_layer_path, strip_calls
from compress.model.keras_internals import walk_named_layers

HANG_SECONDS = 3600.0
"""Time limit of a conversion: large models calibrated on 200 images take minutes."""
SHOWN = 3
LONGEST = 300
# Error messages with a layer. LiteRT: error: loc(callsite(fused["Svd:", "functional_1/my_svd_1/..."
# tf2onnx: Tensorflow op [functional_1/my_svd_1/Svd: Svd] is not supported
_NODES = (
    re.compile(r'error: loc\((?:callsite\()?fused\["(?P<kind>\w+):", "(?P<node>[^"@]+)'),
    re.compile(r"op \[(?P<node>\S+): (?P<kind>\w+)\] is not supported"),
)
_RULE = re.compile(r"'tfl\.\w+' op [^\n]*")
"""Violated constraint of a LiteRT operation; shown if no unsupported operation is named."""
_NO_RANGE = re.compile(r"Max and min for dynamic tensors should be recorded.*tensor (\S+)")
"""Tensor without a calibrated range: an integer tensor, which cannot be quantized."""
_MLIR = re.compile(r"\s*<?unknown>?:0: error: .*", re.DOTALL)


def convert(step: str, **arguments: Any) -> None:
    """Run a step of `compress.plugins.STEPS` in the converter process.

    Args:
        step: Name of the step.
        arguments: Arguments of the step, which are pickled: paths as text, numbers, lists.

    Raises:
        ConversionFailed: The converter refused, crashed or hung.
        MissingDependency: The step needs a package that is not installed.
        OSError: No disk space is left, or too many files are open.
    """
    try:
        failure = CLIENT.ask(step, arguments)
    except ProcessOverdue:
        raise build_timeout_error() from None
    except ProcessEnded as error:
        raise ConversionFailed("crashed on", str(error)) from None
    if failure is not None:
        raise failure


@contextmanager
def explain_failures(converter: str, kind: str, model: keras.Model | str) -> Iterator[None]:
    """Turn a failed conversion into an error that names the model, the format and the reason.

    Args:
        converter: Name of the converter for the user ("LiteRT's converter").
        kind: The format.
        model: The model, or the name of a file that is converted.

    Raises:
        RunFailed: Instead of `ConversionFailed`.
    """
    try:
        yield
    except ConversionFailed as error:
        name = f"'{model}'" if isinstance(model, str) else f"model '{model.name}'"
        reason = _explain_refusal(error.reason, model) if error.verb == "refused" else error.reason
        text = f"{converter[0].upper()}{converter[1:]} {error.verb} {name} ({kind}): {reason}"
        raise RunFailed(text) from None


class ConversionFailed(Exception):
    """Failure of a converter: there is no file that can be run.

    Attributes:
        verb: Kind of failure: "refused", "crashed on", "hung on", or "made no file that runs of"
            if the written file cannot be run.
        reason: Error message of the converter or the runtime, or the converter's exit status.
    """

    def __init__(self, verb: str, reason: str) -> None:
        super().__init__(verb, reason)
        self.verb, self.reason = verb, reason


def build_timeout_error() -> ConversionFailed:
    """Return the error of a conversion that exceeded the time limit."""
    return ConversionFailed("hung on", f"it did not end within {HANG_SECONDS:g} s and was stopped")


class ConverterClient:
    """Client of the converter process, which starts with the first conversion."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: ServerProcess | None = None
        self._owner = 0

    def ask(self, step: str, arguments: dict[str, Any]) -> Any:
        """Return the answer of `compress.exporting.converter`: None, or the error."""
        with self._lock:
            if self._server is not None and self._owner == os.getpid():
                try:
                    return self._server.ask(step, arguments, seconds=HANG_SECONDS)
                except ProcessEnded:
                    pass  # it ended when idle or was killed; failed conversions are answered
            quiet = {
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "-1",
            }
            server = ServerProcess.start("compress.exporting.converter", environment=quiet)
            self.keep(server)
            return server.ask(step, arguments, seconds=HANG_SECONDS)

    def keep(self, server: ServerProcess) -> None:
        """Use a server process for the conversions of this process."""
        self.close()
        self._server, self._owner = server, os.getpid()

    def close(self) -> None:
        """End the server process, unless it belongs to the parent of a forked process."""
        if self._server is not None and self._owner == os.getpid():
            self._server.close()
        self._server = None


CLIENT = ConverterClient()
atexit.register(CLIENT.close)


def _explain_refusal(text: str, model: keras.Model | str) -> str:
    """Return a converter's reason in plain words, with the layers that it cannot convert."""
    kinds_by_layer: dict[str, dict[str, None]] = {}
    paths = set() if isinstance(model, str) else {path for path, _ in walk_named_layers(model)}
    for match in chain.from_iterable(pattern.finditer(text) for pattern in _NODES):
        path = find_layer_path(strip_calls(match["node"]), paths)
        layer = "an operation" if path == UNNAMED else f"layer '{path}'"
        kinds_by_layer.setdefault(layer, {})[match["kind"]] = None
    if not kinds_by_layer:
        unobserved, broken_rule = _NO_RANGE.search(text), _RULE.search(text)
        if unobserved is not None:
            return (
                f"calibration gives no range for tensor '{unobserved[1]}', and this format "
                "quantizes all: integers such as indices of tokens have none"
            )
        lines = _MLIR.sub("", text).strip().splitlines()
        return (lines or [broken_rule[0] if broken_rule else "no reason given"])[0][:LONGEST]
    parts = [
        f"{layer} needs {', '.join([*kinds][:SHOWN])}" for layer, kinds in kinds_by_layer.items()
    ]
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return f"{'; '.join(parts[:SHOWN])}{more}, which cannot be converted"
