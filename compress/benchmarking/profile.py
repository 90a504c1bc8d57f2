"""Which layer takes how much of an inference, by ONNX Runtime's own profiler.

LiteRT's Python package has no profiler, so the shares are ONNX Runtime's. It runs a convolution
or dense layer with the normalization and activation behind it as one kernel, named by the last of
them: its time counts for the layer that multiplies.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import MissingDependency
from compress.exporting.traced import path_of
from compress.measure.rules import rule_of
from compress.measure.runtimes.onnx import INSTALL
from compress.model.program import Node
from compress.model.recording import record

if TYPE_CHECKING:
    import keras

WARMUP = 5

_PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Profile:
    """Time by layer.

    Attributes:
        seconds: Median over runs of the time in each layer's nodes, by layer name.
        runtime, threads, runs: How it was measured.
    """

    seconds: dict[str, float]
    runtime: str
    threads: int
    runs: int

    def share(self, layer: str) -> float:
        """Returns a layer's share of the time in all nodes, in [0, 1]."""
        total = sum(self.seconds.values())
        return self.seconds.get(layer, 0.0) / total if total else 0.0


def profile_layers(
    file: Path, layers: Mapping[str, str], *, threads: int = 1, runs: int = 50, seed: int = 0
) -> Profile:
    """Runs an ONNX file with the profiler on.

    Args:
        file: From `compress.exporting.onnx`, so that nodes carry layers' names.
        layers: From `multipliers`.
        threads: CPU threads.
        runs: Inferences that count; a few more come first.
        seed: Of the input.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency(INSTALL) from None
    from compress.measure.runtimes import RUNTIMES

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        (given,) = session.get_inputs()
        x = np.random.default_rng(seed).normal(size=given.shape).astype(np.float32)
        for _ in range(WARMUP + runs):
            session.run(None, {given.name: x})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return Profile(_by_layer(events, layers), RUNTIMES["onnx"].describe(), threads, runs)


def _by_layer(events: list[dict[str, Any]], layers: Mapping[str, str]) -> dict[str, float]:
    """Returns the median seconds of each layer; an event is one node in one run."""
    nodes: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            nodes.setdefault(name, []).append(event["dur"] / 1e6)
            kinds[name] = str(event.get("args", {}).get("op_name", ""))
    found: dict[str, float] = {}
    for name, seconds in nodes.items():
        layer = path_of(name, layers)
        if any(product in kinds[name] for product in _PRODUCTS):
            layer = layers.get(layer, layer)
        found[layer] = found.get(layer, 0.0) + float(np.median(seconds[WARMUP:]))
    return found


def multipliers(model: keras.Model) -> dict[str, str]:
    """Returns for each layer the one that multiplies what it is fed: itself, or before it.

    From an activation back through layers of one input to the nearest one with a counting
    rule; a layer behind a merge stands for itself.
    """
    found: dict[str, str] = {}

    def call(node: Node, before: list[str]) -> list[str]:
        name = node.operation.name
        inherits = rule_of(node.operation) is None and len(before) == 1 and before[0]
        found[name] = before[0] if inherits else name
        return [found[name]] * len(node.outputs)

    program = record(model)
    program.interpret(call, [""] * len(program.inputs))
    return found


def profiled(model: keras.Model, *, threads: int = 1, runs: int = 50) -> Profile:
    """Exports a model to ONNX in a temporary file and profiles it.

    Raises:
        MissingDependency: ONNX's packages are not installed.
        RunFailed: The converter refused the model.
    """
    from compress.exporting.onnx import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, Path(folder) / "profiled.onnx")
        return profile_layers(
            Path(folder) / "profiled.onnx", multipliers(model), threads=threads, runs=runs
        )
