"""Runtimes by name, one file each behind the protocol in `_base`."""

from __future__ import annotations

from pathlib import Path

from compress.errors import InputError
from compress.measure.runtimes._base import Runtime, Session
from compress.measure.runtimes.litert import LiteRT, LiteRTSession
from compress.measure.runtimes.mnn import MNN, MNNSession
from compress.measure.runtimes.onnx import OnnxRuntime, OnnxSession
from compress.measure.runtimes.openvino import OpenVino, OpenVinoSession
from compress.measure.runtimes.tensorflow import TensorFlow, TensorFlowSession
from compress.registry import Registry

RUNTIMES: Registry[Runtime] = Registry("runtime")
RUNTIMES.add("litert", LiteRT())
RUNTIMES.add("mnn", MNN())
RUNTIMES.add("onnx", OnnxRuntime())
RUNTIMES.add("openvino", OpenVino())
RUNTIMES.add("tensorflow", TensorFlow())

__all__ = [
    "LiteRT",
    "LiteRTSession",
    "MNN",
    "MNNSession",
    "OnnxRuntime",
    "OnnxSession",
    "OpenVino",
    "OpenVinoSession",
    "RUNTIMES",
    "Runtime",
    "Session",
    "TensorFlow",
    "TensorFlowSession",
    "runtime_for",
    "session_for",
]


def runtime_for(path: Path) -> Runtime:
    """Returns the first runtime that runs files of this suffix.

    Raises:
        InputError: None does.
    """
    for name in RUNTIMES.names():
        if path.suffix in RUNTIMES[name].suffixes:
            return RUNTIMES[name]
    known = [suffix for name in RUNTIMES.names() for suffix in RUNTIMES[name].suffixes]
    raise InputError(
        f"A model file must end in {', '.join(dict.fromkeys(known))}. Received: '{path}'."
    )


def session_for(path: Path, threads: int = 1) -> Session:
    """Prepares a file with the first runtime that runs files of its suffix.

    Raises:
        InputError: There is none, or it cannot run the file.
        MissingDependency: It is not installed.
    """
    return runtime_for(path).prepare(path, threads)
