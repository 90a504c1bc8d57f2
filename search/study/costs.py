"""Costs of a candidate, counted or measured before training, and their limits."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from compress.core.arguments import convert_json
from compress.core.atomic_files import read_json, write_json
from compress.measure import count_macs, measure_latency
from compress.model.copies import copy_model
from compress.model.keras_internals import list_layers
from compress.plan import LatencyOptions
from search.plan import SearchOptions
from search.study.directory import SearchFolder

if TYPE_CHECKING:
    import keras
    import optuna

NAMES = {
    "macs": "MACs",
    "params": "parameters",
    "size_bytes": "bytes of .tflite",
    "latency_ms": "ms on LiteRT",
}
"""Costs by field name -> unit in messages."""


@dataclass(frozen=True)
class Costs:
    """Costs of one candidate, under the names of `search.study.directory.Candidate`.

    Attributes:
        macs: Multiply-accumulates of one example.
        params: Number of parameters.
        unsupported: Names of the operations that `macs` does not include.
        size_bytes: Bytes of the float32 .tflite file of the trained model; None where no limit or
            objective needs it, or where a cheaper limit is already exceeded.
        latency_ms: Milliseconds of that file; None as for `size_bytes`.
    """

    macs: int
    params: int
    unsupported: tuple[str, ...] = ()
    size_bytes: int | None = None
    latency_ms: float | None = None


def get_limits(options: SearchOptions) -> dict[str, float]:
    """Return the hard limits of a plan by cost."""
    options_by_cost = {
        "macs": options.max_macs,
        "params": options.max_params,
        "size_bytes": options.max_size,
        "latency_ms": options.max_latency,
    }
    return {name: limit for name, limit in options_by_cost.items() if limit is not None}


def find_excesses(costs: Costs, options: SearchOptions) -> Iterator[tuple[str, float, float]]:
    """Yield (cost, value, limit) for each exceeded limit.

    Args:
        costs: Costs of a candidate.
        options: Options of the search, with the limits.
    """
    for name, limit in get_limits(options).items():
        value = getattr(costs, name)
        if name == "size_bytes" and value is None:
            value = 4 * costs.params  # the weights alone: no .tflite file is smaller
        if value is not None and value > limit:
            yield name, value, limit


def describe_excesses(costs: Costs, options: SearchOptions) -> str:
    """Return a description of the limits that a model exceeds; empty: none.

    Args:
        costs: Costs of a candidate.
        options: Options of the search, with the limits.
    """
    texts = []
    for name, value, limit in find_excesses(costs, options):
        number = f"{value:,.{2 if name == 'latency_ms' else 0}f}"
        prefix = "at least " if getattr(costs, name) is None else ""
        texts.append(f"{prefix}{number} {NAMES[name]} exceed the limit of {limit:,}")
    return "; ".join(texts)


def report_excess(trial: optuna.Trial, costs: Costs, options: SearchOptions) -> None:
    """Report the relative excess over each limit to the sampler as a constraint of the trial.

    Samplers then avoid similar choices.

    Args:
        trial: The trial of the candidate.
        costs: Costs of the candidate.
        options: Options of the search, with the limits.
    """
    for name, value, limit in find_excesses(costs, options):
        trial.set_constraint(name, value / limit - 1)


def find_costs(model: keras.Model, options: SearchOptions, folder: SearchFolder) -> Costs:
    """Count the costs of an untrained model and measure those that the plan needs.

    Cheap costs come first, and a model that exceeds a limit is not measured further: a file is
    at least as large as its weights, so a model whose weights exceed the limit is not converted.
    Measurements are cached in the run's folder by architecture.

    Args:
        model: A built, untrained model.
        options: Limits and objectives.
        folder: The folder of the run.
    """
    analysis = count_macs(model)
    costs = Costs(analysis.macs, analysis.params, analysis.unsupported)
    needs_latency = options.needs_cost("latency_ms")
    needs_file = needs_latency or options.needs_cost("size_bytes")
    if not needs_file or describe_excesses(costs, options):
        return costs
    file = folder.path / "costs" / f"{hash_architecture(model)}.json"
    stored = convert_json(read_json(file), _MeasuredCosts, f"'{file}'") if file.exists() else {}
    if "size_bytes" not in stored or (needs_latency and "latency_ms" not in stored):
        stored = _measure_file(model, needs_latency)
        file.parent.mkdir(exist_ok=True)
        write_json(file, stored)
    return replace(costs, size_bytes=stored["size_bytes"], latency_ms=stored.get("latency_ms"))


class _MeasuredCosts(TypedDict, total=False):
    size_bytes: int
    latency_ms: float


def _measure_file(model: keras.Model, needs_latency: bool) -> dict[str, Any]:
    """Return a float32 .tflite file's bytes and, if needed, its median ms on one thread."""
    from compress.exporting.litert import export_litert

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "untrained.tflite"
        export_litert(_with_distinct_weights(model), path)
        costs: dict[str, Any] = {"size_bytes": path.stat().st_size}
        if needs_latency:
            latencies = measure_latency(
                {"model": path}, LatencyOptions(threads=1, budget=2.0), precision=0.03
            )
            costs["latency_ms"] = latencies["model"].median_ms
    return costs


def _with_distinct_weights(model: keras.Model) -> keras.Model:
    """Return a copy of a model with random weights, whose file has the size of a trained one.

    The converter stores equal arrays once and omits biases that are all zero.
    """
    copy = copy_model(model)
    rng = np.random.default_rng(0)
    # the weights must be positive, because some are variances
    copy.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in copy.get_weights()])
    return copy


def hash_architecture(model: keras.Model) -> str:
    """Return a hash of a model's architecture, which depends on layer order but not on names."""
    numbers = {layer.name: f"#{index}" for index, layer in enumerate(list_layers(model))}
    quoted = re.compile(r'"((?:[^"\\]|\\.)*)"')
    text = quoted.sub(lambda match: f'"{numbers.get(match[1], match[1])}"', model.to_json())
    return hashlib.sha256(text.encode()).hexdigest()[:20]
