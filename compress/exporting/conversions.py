"""Conversions in a child process: a converter that crashes or hangs costs only its own file.

A process that has imported TensorFlow once, and never uses it, forks for each conversion
(`compress.exporting.converter`). It is started at the first conversion, or forked from this
process where TensorFlow has not begun to work here (`converter.fork_ahead`), and ends with it.
Why no file was made is told in one line that names the model, the format and the layer.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from compress.core.errors import RunFailed
from compress.core.processes import ProcessEnded, ProcessOverdue, Server
from compress.exporting.traced import UNNAMED, path_of, without_calls
from compress.model.internals import named_layers

if TYPE_CHECKING:
    import keras

HANG_SECONDS = 3600.0
"""A conversion that takes longer hangs: large networks calibrated on 200 images take minutes."""
SHOWN = 3
LONGEST = 300
# LiteRT: error: loc(callsite(fused["Svd:", "functional_1/my_svd_1/Svd@__inference..."
# tf2onnx: Tensorflow op [functional_1/my_svd_1/Svd: Svd] is not supported
_NODES = (
    re.compile(r'error: loc\((?:callsite\()?fused\["(?P<kind>\w+):", "(?P<node>[^"@]+)'),
    re.compile(r"op \[(?P<node>\S+): (?P<kind>\w+)\] is not supported"),
)
_RULE = re.compile(r"'tfl\.\w+' op [^\n]*")
"""What LiteRT's own operations must obey: said where no operation is unknown."""
_NO_RANGE = re.compile(r"Max and min for dynamic tensors should be recorded.*tensor (\S+)")
"""Of tensors that calibration sees no range of: integers, which nothing quantizes."""
_MLIR = re.compile(r"\s*<?unknown>?:0: error: .*", re.DOTALL)


def convert(step: str, **given: Any) -> None:
    """Run a step of `compress.exporting.converter.STEPS` in a process of its own.

    Args:
        step: Its name.
        given: Its arguments: paths, texts and numbers.

    Raises:
        ConversionFailed: The converter refused, crashed or hung.
        MissingDependency: The step needs a package that is not installed.
        OSError: The machine has no space left, or no more files.
    """
    try:
        failure = _CONVERTER.ask(step, given)
    except ProcessOverdue:
        raise hung() from None
    except ProcessEnded as error:
        raise ConversionFailed("crashed on", str(error)) from None
    if failure is not None:
        raise failure


@contextmanager
def explained(converter: str, kind: str, model: keras.Model | str) -> Iterator[None]:
    """Turn a failed conversion into an error that names the model, the format and the reason.

    Args:
        converter: Who converts, as the user knows it ("LiteRT's converter").
        kind: The format.
        model: What is converted; a text where it is a file.

    Raises:
        RunFailed: In place of `ConversionFailed`.
    """
    try:
        yield
    except ConversionFailed as error:
        name = f"'{model}'" if isinstance(model, str) else f"model '{model.name}'"
        why = _refusal(error.reason, model) if error.verb == "refused" else error.reason
        text = f"{converter[0].upper()}{converter[1:]} {error.verb} {name} ({kind}): {why}"
        raise RunFailed(text) from None


class ConversionFailed(Exception):
    """Failure of a converter: no file was made.

    Attributes:
        verb: What the converter did: "refused", "crashed on" or "hung on".
        reason: Its own words, or how it ended.
    """

    def __init__(self, verb: str, reason: str) -> None:
        super().__init__(verb, reason)
        self.verb, self.reason = verb, reason


def hung() -> ConversionFailed:
    """Return the error of a conversion that was stopped."""
    return ConversionFailed("hung on", f"it did not end within {HANG_SECONDS:g} s and was stopped")


def use(server: Server) -> None:
    """Use a process of `converter.serve` for the conversions of this one."""
    _CONVERTER.keep(server)


class _Converter:
    """Process that converts for this one, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._owner = 0

    def ask(self, step: str, given: dict[str, Any]) -> Any:
        """Return the reply of `compress.exporting.converter`: None, or the error."""
        with self._lock:
            if self._server is not None and self._owner == os.getpid():
                try:
                    return self._server.ask(step, given, seconds=HANG_SECONDS)
                except ProcessEnded:
                    pass  # idle for long, or killed: a conversion's own end is an answer
            quiet = {
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "-1",
            }
            server = Server.started("compress.exporting.converter", environment=quiet)
            self.keep(server)
            return server.ask(step, given, seconds=HANG_SECONDS)

    def keep(self, server: Server) -> None:
        """Use a process for the conversions of this one."""
        self.close()
        self._server, self._owner = server, os.getpid()

    def close(self) -> None:
        """End the process, unless a fork has inherited it: then its parent ends it."""
        if self._server is not None and self._owner == os.getpid():
            self._server.close()
        self._server = None


_CONVERTER = _Converter()


atexit.register(_CONVERTER.close)


def _refusal(text: str, model: keras.Model | str) -> str:
    """Return a converter's reason in words, with the layers that it cannot convert."""
    found: dict[str, dict[str, None]] = {}
    paths = set() if isinstance(model, str) else {path for path, _ in named_layers(model)}
    for match in chain.from_iterable(pattern.finditer(text) for pattern in _NODES):
        path = path_of(without_calls(match["node"]), paths)
        layer = "an operation" if path == UNNAMED else f"layer '{path}'"
        found.setdefault(layer, {})[match["kind"]] = None
    if not found:
        unseen, broken = _NO_RANGE.search(text), _RULE.search(text)
        if unseen is not None:
            return (
                f"calibration gives no range for tensor '{unseen[1]}', and this format quantizes "
                "all: integers such as indices of tokens have none"
            )
        lines = _MLIR.sub("", text).strip().splitlines()
        return (lines or [broken[0] if broken else "no reason given"])[0][:LONGEST]
    parts = [f"{layer} needs {', '.join([*kinds][:SHOWN])}" for layer, kinds in found.items()]
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return f"{'; '.join(parts[:SHOWN])}{more}, which cannot be converted"
