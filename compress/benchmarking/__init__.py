"""Benchmarks: `bench` times models and files against each other, runtime by runtime.

`profiled` measures each layer's share of an inference by ONNX Runtime's own profiler: LiteRT's
Python package has none. ONNX Runtime runs a convolution or dense layer with the normalization and
activation behind it as one kernel, named by the last of them. Its time counts for the layer with
the weights.
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
    Prepared,
    Skipped,
    models_of,
    prepare,
    require_a_runtime,
)
from compress.benchmarking.result import BenchResult, Timed, key_of, write_result
from compress.core.arguments import check_arguments
from compress.core.atomic_files import new_folder
from compress.core.errors import InputError
from compress.exporting.traced import path_of
from compress.measure import Entry, time_entries
from compress.measure.rules import rule_of
from compress.measure.runtimes.onnx import RUNTIME
from compress.model.kinds import bytes_of
from compress.model.program import Node
from compress.model.recording import record
from compress.plan.bench import BenchPlan
from compress.plan.keywords import BENCH

if TYPE_CHECKING:
    import keras

    from compress.plan.settings import BenchSettings

__all__ = ["BenchPlan", "BenchResult", "Skipped", "BenchModel", "Timed", "bench"]


@check_arguments(options=BENCH)
def bench(
    *models: ModelOrFile | Sequence[ModelOrFile] | BenchPlan,
    plan: BenchPlan | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[BenchSettings],
) -> BenchResult:
    """Time models and files against each other, everything in one run of blocks.

    Keras models and SavedModels are converted for each runtime and format; a `.tflite`, `.onnx`
    or `.mnn` file is timed as it is. Each ratio is against the first model (the first of
    `compare`) in the same configuration (runtime, format, threads); what format a file holds is
    not known, so it is compared with any, the first that there is. Where one model is given,
    ratios are against its first configuration.

    Args:
        *models: Keras models (named as they are in Keras), files and folders of SavedModels, or
            a list of them; a plan may stand behind them.
        plan: Runtimes, formats, threads, precision, budget; keywords go over it.
        on_progress: Called with (what is done, share of it).
        **settings: Fields of `BenchPlan`: runtimes, formats, threads, compare, budget, ...

    Returns:
        Everything that was measured, and what was not with reasons.

    Raises:
        InputError: A file is missing, broken or of no known kind, a model's sizes are open, a
            name of `compare` is none of the models, or nothing is left to be timed.

    Example:
        >>> result = bench(model, folder / "model.keras", threads=[1, 2], budget=0.5)
        >>> len(result.timed), result.timed[0].latency.median_ms > 0
        (4, True)

    Reference:
        Paired blocks in random order, bootstrap over rounds: see docs/latency.md.
    """
    if models and isinstance(models[-1], BenchPlan):
        plan, models = models[-1], models[:-1]
    plan = BENCH.over(plan or BenchPlan(), settings)
    tell = on_progress or (lambda text, share: None)  # noqa: ARG005
    with ExitStack() as stack:
        # models and files are made elsewhere: of a bench that fails nothing stays
        saved, place = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        given = models_of(models[0] if len(models) == 1 else models, saved)
        names = [model.name for model in given]
        for name in plan.compare:
            if name not in names:
                raise InputError(
                    f"compare must name models of this bench: {', '.join(names)}. Received: {name}."
                )
        require_a_runtime(plan)
        folder = stack.enter_context(new_folder(plan.out)) if plan.out else None
        tell("converting", 0.0)
        counted, prepared, skipped = prepare(given, plan, place)
        if not prepared:
            reasons = "; ".join(dict.fromkeys(item.reason for item in skipped))
            raise InputError(
                f"bench must have something to time. Received: {reasons}.{_remedy(given, plan)}"
            )
        keyed = {
            key_of(item.model, item.runtime, item.format, threads): (item, threads)
            for threads in plan.threads
            for item in prepared
        }
        tell("timing", 0.0)
        latency = time_entries(
            {
                key: Entry(item.path, item.runtime, threads)
                for key, (item, threads) in keyed.items()
            },
            precision=plan.precision,
            budget=plan.budget,
            baselines=_baselines(keyed, plan),
            seed=plan.seed,
            on_progress=lambda share: tell("timing", share),
        )
        timed = tuple(
            Timed(item.model, item.runtime, item.format, bytes_of(item.path), latency[key])
            for key, (item, _) in keyed.items()
        )
        # of a model that was no file there is none afterwards
        known = tuple(
            replace(item, path=Path(item.path.name)) if saved in item.path.parents else item
            for item in counted
        )
        result = BenchResult(known, timed, tuple(skipped), plan)
        if folder is not None:
            for file in sorted(place.iterdir()):
                shutil.move(file, folder / file.name)
            write_result(result, folder)
    return result


def _remedy(given: Sequence[BenchModel], plan: BenchPlan) -> str:
    """Return the hint to run a SavedModel by TensorFlow, or ""."""
    if "tensorflow" in plan.runtimes or not any(model.path.is_dir() for model in given):
        return ""
    return " Give --runtimes tensorflow, which runs a SavedModel as it is."


def _baselines(keyed: dict[str, tuple[Prepared, int]], plan: BenchPlan) -> dict[str, str]:
    """Return the baseline of each entry, see `bench`."""
    if len({item.model for item, _ in keyed.values()}) == 1:
        return dict.fromkeys(keyed, next(iter(keyed)))
    ahead = sorted(keyed, key=lambda key: keyed[key][0].model != (*plan.compare, "")[0])

    def alike(one: str, other: str) -> bool:
        (a, a_threads), (b, b_threads) = keyed[one], keyed[other]
        same = a.format == b.format or FILE in (a.format, b.format)
        return same and (a.runtime, a_threads) == (b.runtime, b_threads)

    return {key: next(other for other in ahead if alike(key, other)) for key in keyed}


WARMUP = 5
"""Inferences that come before those that count."""
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
        """Return a layer's share of the time in all nodes, in [0, 1]."""
        total = sum(self.seconds.values())
        return self.seconds.get(layer, 0.0) / total if total else 0.0


def _by_layer(events: list[dict[str, Any]], layers: Mapping[str, str]) -> dict[str, float]:
    """Return the median seconds of each layer; an event is one node in one run."""
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
    """Return the layer with a kernel that each layer's time counts for: itself, or one before it.

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
    """Export a model to ONNX in a temporary file and measure the time in each layer.

    Args:
        model: Of one input.
        threads: CPU threads.
        runs: Inferences that count; `WARMUP` more come first.

    Raises:
        MissingDependency: ONNX's packages are not installed.
        RunFailed: The converter refused the model.
    """
    from compress.exporting.onnx import export_onnx

    onnxruntime = RUNTIME.load_library()
    layers = multipliers(model)
    with tempfile.TemporaryDirectory() as folder:
        # nodes of our files carry layers' names
        export_onnx(model, Path(folder) / "profiled.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(
            f"{folder}/profiled.onnx", options, providers=["CPUExecutionProvider"]
        )
        (given,) = session.get_inputs()
        x = np.random.default_rng(0).normal(size=given.shape).astype(np.float32)
        for _ in range(WARMUP + runs):
            session.run(None, {given.name: x})
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return Profile(_by_layer(events, layers), RUNTIME.describe(), threads, runs)
