"""Costs of a candidate, counted or measured before training, and their limits.

Around a trained model, the latency of a sub-network is estimated from latencies of the model's
parts, which are measured once. Exporting and timing each of hundreds of sub-networks would take
three seconds each, next to workers that keep the processor busy.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from compress.core.arguments import convert_json
from compress.core.atomic_files import read_json, write_json
from compress.core.summary import OnProgress
from compress.measure import count_macs, measure_latency
from compress.measure.latency_table import LatencyTable
from compress.model.copies import copy_model
from compress.model.keras_internals import list_layers
from compress.plan import LatencyOptions
from compress.prune.channels.selection.latency_measurement import LatencyMeasurements
from compress.run.directory import LOG
from compress.run.records import Record, read_record
from search.plan import SearchOptions
from search.spaces import SubnetworkSpace
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
        latency_ms: Milliseconds of that file, measured or estimated; None as for `size_bytes`.
        estimated: Names of the costs that are estimates.
    """

    macs: int
    params: int
    unsupported: tuple[str, ...] = ()
    size_bytes: int | None = None
    latency_ms: float | None = None
    estimated: tuple[str, ...] = ()


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
        suffix = " (estimated)" if name in costs.estimated else ""
        texts.append(f"{prefix}{number} {NAMES[name]}{suffix} exceed the limit of {limit:,}")
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


def find_costs(
    model: keras.Model, options: SearchOptions, folder: SearchFolder, latency: float | None = None
) -> Costs:
    """Count the costs of an untrained model and measure those that the plan needs.

    Cheap costs come first, and a model that exceeds a limit is not measured further: a file is
    at least as large as its weights, so a model whose weights exceed the limit is not converted.
    Measurements are cached in the run's folder by architecture.

    Args:
        model: A built, untrained model.
        options: Limits and objectives.
        folder: The folder of the run.
        latency: Estimated milliseconds; None: the file is timed if the plan needs its latency.
    """
    analysis = count_macs(model)
    estimated_costs = () if latency is None else ("latency_ms",)
    costs = Costs(
        analysis.macs,
        analysis.params,
        analysis.unsupported,
        latency_ms=latency,
        estimated=estimated_costs,
    )
    needs_latency = options.needs_cost("latency_ms") and latency is None
    needs_file = needs_latency or options.needs_cost("size_bytes")
    if not needs_file or describe_excesses(costs, options):
        return costs
    file = folder.path / "costs" / f"{hash_architecture(model)}.json"
    stored = convert_json(read_json(file), _MeasuredCosts, f"'{file}'") if file.exists() else {}
    if "size_bytes" not in stored or (needs_latency and "latency_ms" not in stored):
        stored = _measure_file(model, needs_latency)
        file.parent.mkdir(exist_ok=True)
        write_json(file, stored)
    if latency is None:
        latency = stored.get("latency_ms")
    return replace(costs, size_bytes=stored["size_bytes"], latency_ms=latency)


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


@dataclass(frozen=True)
class PartTimes(Record):
    """Latencies of a model's calls, and of some of its sub-networks as whole files.

    Attributes:
        kept: Kept removable units of each group, for each timed sub-network.
        whole: Milliseconds of the timed sub-networks.
        table: Latencies of the calls, as JSON.
    """

    kept: tuple[tuple[int, ...], ...]
    whole: tuple[float, ...]
    table: Any = field(metadata={"shape": dict[str, Any]})

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        if len(self.kept) != len(self.whole):
            return f"kept and whole must be of as many models; received: {self.kept}, {self.whole}"
        return (
            ""
            if min(self.whole, default=0) > 0
            else f"whole must be above 0; received: {self.whole}"
        )

    @classmethod
    def from_timing(cls, timing: LatencyMeasurements) -> PartTimes:
        """Return the record of timed calls."""
        kept = tuple(tuple(int(count) for count in row) for row in timing.kept)
        return cls(kept, tuple(float(ms) for ms in timing.model_ms), timing.table.to_json())


def measure_parts(options: SearchOptions, folder: SearchFolder, on_progress: OnProgress) -> None:
    """Measure the latencies of a model's parts, where the search needs latencies around that model.

    Call it before workers start, while the machine is idle.

    Args:
        options: Space, objectives, limits.
        folder: The folder of the run. An existing record in it is kept.
        on_progress: Callback for progress, called with (text, share).
    """
    space = find_timed_space(options)
    if space is None or folder.part_times.exists():
        return
    timing = space.time_calls(on_progress)
    write_json(folder.part_times, PartTimes.from_timing(timing).to_json())
    LOG.info(
        "latencies of candidates are estimated from %d calls and %d whole sub-networks, timed on "
        "%s (%s)", len(timing.table.calls), len(timing.model_ms), timing.table.runtime,
        timing.table.device,
    )  # fmt: skip


def find_timed_space(options: SearchOptions) -> SubnetworkSpace | None:
    """Return the space if its candidates' latencies are needed and can be estimated from parts."""
    space = options.resolved_space
    return (
        space if isinstance(space, SubnetworkSpace) and options.needs_cost("latency_ms") else None
    )


def build_latency_estimator(
    options: SearchOptions, folder: SearchFolder
) -> Callable[[dict[str, Any]], float] | None:
    """Return a function that estimates a candidate's milliseconds from latencies of parts.

    It is None if latencies are not needed, or if the parts of the model have not been timed.

    Args:
        options: Options of the search.
        folder: The folder of the run.
    """
    space = find_timed_space(options)
    if space is None or not folder.part_times.exists():
        return None
    return _read_latency_estimator(space, folder.part_times)


@lru_cache(maxsize=2)
def _read_latency_estimator(
    space: SubnetworkSpace, path: Path
) -> Callable[[dict[str, Any]], float]:
    record = read_record(path, PartTimes)
    table = LatencyTable.from_json(record.table)
    return space.build_latency_estimator(
        LatencyMeasurements(table, np.array(record.kept, np.int64), np.array(record.whole))
    )
