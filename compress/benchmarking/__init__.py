"""Benchmarks: `bench` measures the latency of models and files against each other.

`profile_layers` measures each layer's share of an inference with ONNX Runtime's profiler, because
LiteRT's Python package has none. ONNX Runtime fuses a convolution or dense layer with the
normalization and activation behind it, and names the kernel after the last of them. The time of
such a kernel counts for the layer with the weights.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from compress.benchmarking.models import (
    FILE,
    BenchModel,
    ModelOrFile,
    PreparedFile,
    Skipped,
    collect_models,
    prepare_models,
    require_runtime,
)
from compress.benchmarking.result import BenchResult, Timing, build_key, write_result
from compress.core.arguments import check_arguments
from compress.core.atomic_files import create_folder
from compress.core.errors import InputError
from compress.exporting.tracing import find_layer_path
from compress.measure import Entry, time_entries
from compress.measure.rules import find_rule
from compress.measure.runtimes.onnx import RUNTIME
from compress.model.file_formats import count_file_bytes
from compress.model.program import Node
from compress.model.recording import record_program
from compress.plan.bench import BenchPlan
from compress.plan.keywords import BENCH

if TYPE_CHECKING:
    import keras

    from compress.plan.settings import BenchSettings

__all__ = ["BenchPlan", "BenchResult", "Skipped", "BenchModel", "Timing", "bench"]


@check_arguments(options=BENCH)
def bench(
    *models: ModelOrFile | Sequence[ModelOrFile] | BenchPlan,
    plan: BenchPlan | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[BenchSettings],
) -> BenchResult:
    """Measure the latency of models and files against each other, in interleaved blocks.

    Keras models and SavedModels are converted for each runtime and format. A `.tflite`, `.onnx` or
    `.mnn` file is timed as it is. Each ratio compares with the first model (or the first of
    `compare`) in the same configuration (runtime, format, threads). The format inside a file is
    unknown, so a file is compared with the first available format. With a single model, ratios
    compare with its first configuration.

    Args:
        *models: Keras models (named as in Keras), files and SavedModel folders, or a list of them.
            The last argument may be a plan.
        plan: Runtimes, formats, threads, precision, budget. Keyword arguments take precedence.
        on_progress: Called with (current step, fraction that is done).
        **settings: Fields of `BenchPlan`: runtimes, formats, threads, compare, budget, ...

    Returns:
        All timings, and the skipped combinations with reasons.

    Raises:
        InputError: A file is missing, corrupt or of an unknown format, a model has open sizes, a
            name in `compare` is not among the models, or all combinations were skipped.
        MissingDependency: None of the runtimes is installed.

    Example:
        >>> result = bench(model, folder / "model.keras", threads=[1, 2], budget=0.5)
        >>> len(result.timed), result.timed[0].latency.median_ms > 0
        (4, True)

    Reference:
        Paired blocks in random order, bootstrap over rounds: see docs/results/latency.md.
    """
    if models and isinstance(models[-1], BenchPlan):
        plan, models = models[-1], models[:-1]
    plan = BENCH.apply_to(plan or BenchPlan(), settings)
    report_progress = on_progress or (lambda text, share: None)  # noqa: ARG005
    with ExitStack() as stack:
        # files are written to temporary folders: a failed bench leaves nothing in `out`
        models_folder, work_folder = (
            Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)
        )
        bench_models = collect_models(models[0] if len(models) == 1 else models, models_folder)
        names = [model.name for model in bench_models]
        for name in plan.compare:
            if name not in names:
                raise InputError(
                    f"compare must name models of this bench: {', '.join(names)}. Received: {name}."
                )
        require_runtime(plan)
        folder = stack.enter_context(create_folder(plan.out)) if plan.out else None
        report_progress("converting", 0.0)
        counted, prepared, skipped = prepare_models(bench_models, plan, work_folder)
        if not prepared:
            reasons = "; ".join(dict.fromkeys(item.reason for item in skipped))
            raise InputError(
                "bench must have something to time. Received: "
                f"{reasons}.{_suggest_tensorflow(bench_models, plan)}"
            )
        keyed = {
            build_key(item.model, item.runtime, item.format, threads): (item, threads)
            for threads in plan.threads
            for item in prepared
        }
        report_progress("timing", 0.0)
        latency = time_entries(
            {
                key: Entry(item.path, item.runtime, threads)
                for key, (item, threads) in keyed.items()
            },
            precision=plan.precision,
            budget=plan.budget,
            baselines=_choose_baselines(keyed, plan),
            seed=plan.seed,
            on_progress=lambda share: report_progress("timing", share),
        )
        timed = tuple(
            Timing(item.model, item.runtime, item.format, count_file_bytes(item.path), latency[key])
            for key, (item, _) in keyed.items()
        )
        # temporary files of in-memory models are reported by their file name only
        reported_models = tuple(
            replace(item, path=Path(item.path.name)) if models_folder in item.path.parents else item
            for item in counted
        )
        result = BenchResult(reported_models, timed, tuple(skipped), plan)
        if folder is not None:
            for file in sorted(work_folder.iterdir()):
                shutil.move(file, folder / file.name)
            write_result(result, folder)
    return result


def _suggest_tensorflow(models: Sequence[BenchModel], plan: BenchPlan) -> str:
    """Return the hint to run a SavedModel with TensorFlow, or ""."""
    if "tensorflow" in plan.runtimes or not any(model.path.is_dir() for model in models):
        return ""
    return " Give --runtimes tensorflow, which runs a SavedModel as it is."


def _choose_baselines(
    keyed: dict[str, tuple[PreparedFile, int]], plan: BenchPlan
) -> dict[str, str]:
    """Return the baseline key of each key, see `bench`."""
    if len({item.model for item, _ in keyed.values()}) == 1:
        return dict.fromkeys(keyed, next(iter(keyed)))
    ranked_keys = sorted(keyed, key=lambda key: keyed[key][0].model != (*plan.compare, "")[0])

    def is_comparable(first: str, other: str) -> bool:
        (a, a_threads), (b, b_threads) = keyed[first], keyed[other]
        has_same_format = a.format == b.format or FILE in (a.format, b.format)
        return has_same_format and (a.runtime, a_threads) == (b.runtime, b_threads)

    return {key: next(other for other in ranked_keys if is_comparable(key, other)) for key in keyed}


WARMUP = 5
"""Number of inferences before the measured ones."""
_PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Profile:
    """Time by layer.

    Attributes:
        seconds: By layer name, the sum over the layer's kernels of their median time over runs.
        runtime, threads, runs: Name of the runtime, CPU threads, number of measured runs.
    """

    seconds: dict[str, float]
    runtime: str
    threads: int
    runs: int

    def compute_share(self, layer: str) -> float:
        """Return a layer's share of the time of all kernels, in [0, 1]."""
        total = sum(self.seconds.values())
        return self.seconds.get(layer, 0.0) / total if total else 0.0


def _sum_by_layer(events: list[dict[str, Any]], layers: Mapping[str, str]) -> dict[str, float]:
    """Return the median seconds of each layer; an event is one kernel in one run."""
    nodes: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            nodes.setdefault(name, []).append(event["dur"] / 1e6)
            kinds[name] = str(event.get("args", {}).get("op_name", ""))
    seconds_by_layer: dict[str, float] = {}
    for name, seconds in nodes.items():
        path, is_product = find_layer_path(name, layers), any(p in kinds[name] for p in _PRODUCTS)
        layer = layers.get(path, path) if is_product else path
        seconds_by_layer[layer] = seconds_by_layer.get(layer, 0.0) + float(
            np.median(seconds[WARMUP:])
        )
    return seconds_by_layer


def map_kernel_layers(model: keras.Model) -> dict[str, str]:
    """Return the layer with a kernel to which each layer's time is assigned, by layer name.

    Layers with a single input inherit the layer before them, back to the nearest one with a
    counting rule. A layer behind a merge is assigned to itself.

    Args:
        model: The model.
    """
    kernel_layers: dict[str, str] = {}

    def call(node: Node, before: list[str]) -> list[str]:
        name = node.operation.name
        inherits = find_rule(node.operation) is None and len(before) == 1 and before[0]
        kernel_layers[name] = before[0] if inherits else name
        return [kernel_layers[name]] * len(node.outputs)

    program = record_program(model)
    program.interpret(call, [""] * len(program.inputs))
    return kernel_layers


def profile_layers(model: keras.Model, *, threads: int = 1, runs: int = 50) -> Profile:
    """Measure the time in each layer with ONNX Runtime's profiler, on a temporary ONNX export.

    Args:
        model: A model with one input.
        threads: Number of CPU threads.
        runs: Number of measured inferences, after `WARMUP` others.

    Raises:
        MissingDependency: The ONNX packages are not installed.
        RunFailed: The model could not be converted.
    """
    from compress.exporting.onnx import export_onnx

    onnxruntime = RUNTIME.load_library()
    layers = map_kernel_layers(model)
    with tempfile.TemporaryDirectory() as folder:
        # nodes of our ONNX files are named after layers
        export_onnx(model, Path(folder) / "profiled.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(
            f"{folder}/profiled.onnx", options, providers=["CPUExecutionProvider"]
        )
        (model_input,) = session.get_inputs()
        x = np.random.default_rng(0).normal(size=model_input.shape).astype(np.float32)
        for _ in range(WARMUP + runs):
            session.run(None, {model_input.name: x})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return Profile(_sum_by_layer(events, layers), RUNTIME.describe(), threads, runs)
