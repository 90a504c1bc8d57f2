"""The costs of a candidate, counted or measured before it is trained, and their limits.

Around a trained model the latency of a sub-network is estimated from times of the model's parts,
measured once: a file of each of hundreds of sub-networks would have to be written and timed,
three seconds each, beside workers that keep the processor busy.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from compress.core.arguments import conform
from compress.core.atomic_files import read_json, write_json
from compress.core.summary import OnProgress
from compress.measure import count_macs, measure_latency
from compress.measure.latency_table import LatencyTable
from compress.model.copies import copy_model
from compress.model.internals import layers_inside
from compress.plan import LatencyOptions
from compress.prune.channels.selection.measured_times import Timed
from compress.run.directory import LOG
from compress.run.records import Record, read_record
from search.plan import SearchOptions
from search.spaces import Around
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


@dataclass(frozen=True)
class Costs:
    """Costs of one candidate.

    Attributes:
        macs, params: Counted; `unsupported` names what `macs` leaves out.
        size_bytes: Of the float32 .tflite file that the trained model will have; None where
            nothing asks for it, or where a cheaper limit was broken already.
        latency_ms: Measured on that file, or estimated; None likewise.
        estimated: Names of those that are estimates.
    """

    macs: int
    params: int
    unsupported: tuple[str, ...] = ()
    size_bytes: int | None = None
    latency_ms: float | None = None
    estimated: tuple[str, ...] = ()


def limits(options: SearchOptions) -> dict[str, float]:
    """Return the hard limits of a plan by cost."""
    given = {
        "macs": options.max_macs,
        "params": options.max_params,
        "size_bytes": options.max_size,
        "latency_ms": options.max_latency,
    }
    return {name: limit for name, limit in given.items() if limit is not None}


def excesses(costs: Costs, options: SearchOptions) -> Iterator[tuple[str, float, float]]:
    """Yield (cost, value, limit) of each limit that is broken."""
    for name, limit in limits(options).items():
        value = getattr(costs, name)
        if name == "size_bytes" and value is None:
            value = 4 * costs.params  # the weights alone: no .tflite file is smaller
        if value is not None and value > limit:
            yield name, value, limit


def over_limit(costs: Costs, options: SearchOptions) -> str:
    """Describe the limits that a model breaks; empty: none."""
    found = []
    for name, value, limit in excesses(costs, options):
        number = f"{value:,.{2 if name == 'latency_ms' else 0}f}"
        least = "at least " if getattr(costs, name) is None else ""
        how = " (estimated)" if name in costs.estimated else ""
        found.append(f"{least}{number} {NAMES[name]}{how} exceed the limit of {limit:,}")
    return "; ".join(found)


def report_excess(trial: optuna.Trial, costs: Costs, options: SearchOptions) -> None:
    """Tell the sampler by how much limits are broken: it draws away from such choices."""
    for name, value, limit in excesses(costs, options):
        trial.set_constraint(name, value / limit - 1)


def report_preferences(
    trial: optuna.Trial, values: Mapping[str, float | None], options: SearchOptions
) -> None:
    """Tell the sampler by how much soft limits are kept or broken, as far as that is known."""
    for condition in options.prefer:
        value = values.get(condition.name)
        if value is not None:
            trial.set_constraint(f"prefer {condition.name}", condition.violation(value))


def find_costs(
    model: keras.Model, options: SearchOptions, folder: SearchFolder, latency: float | None = None
) -> Costs:
    """Count the costs of an untrained model, and measure those that the plan asks for.

    Cheap things come first, and what breaks a limit is not measured further: a file is not
    smaller than its weights, so one whose weights alone exceed the limit is not converted.
    Measurements are kept in the run's folder by architecture, for repeats.

    Args:
        model: Built, untrained.
        options: Limits and objectives.
        folder: The run's folder.
        latency: Milliseconds, where they are estimated; None: a file is measured.
    """
    analysis = count_macs(model)
    known = () if latency is None else ("latency_ms",)
    costs = Costs(
        analysis.macs, analysis.params, analysis.unsupported, latency_ms=latency, estimated=known
    )
    timing = options.needs("latency_ms") and latency is None
    measuring = timing or options.needs("size_bytes")
    if not measuring or over_limit(costs, options):
        return costs
    file = folder.path / "costs" / f"{fingerprint(model)}.json"
    stored = conform(read_json(file), _Measured, f"'{file}'") if file.exists() else {}
    if "size_bytes" not in stored or (timing and "latency_ms" not in stored):
        stored = _measured(model, timing)
        file.parent.mkdir(exist_ok=True)
        write_json(file, stored)
    if latency is None:
        latency = stored.get("latency_ms")
    return replace(costs, size_bytes=stored["size_bytes"], latency_ms=latency)


class _Measured(TypedDict, total=False):
    size_bytes: int
    latency_ms: float


def _measured(model: keras.Model, timing: bool) -> dict[str, Any]:
    from compress.exporting.litert import export_litert

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "untrained.tflite"
        export_litert(_with_distinct_weights(model), path)
        found: dict[str, Any] = {"size_bytes": path.stat().st_size}
        if timing:
            how = LatencyOptions(threads=1, precision=0.03, budget=2.0)
            found["latency_ms"] = measure_latency({"model": path}, how)["model"].median_ms
    return found


def _with_distinct_weights(model: keras.Model) -> keras.Model:
    """Return a copy with random weights: the file of an untrained model is too small.

    The converter stores equal arrays once, and biases that are all zero not at all.
    """
    copy = copy_model(model)
    rng = np.random.default_rng(0)
    # positive: variances are among them
    copy.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in copy.get_weights()])
    return copy


def fingerprint(model: keras.Model) -> str:
    """Return a hash of a model's architecture; names do not matter, the order does."""
    numbers = {layer.name: f"#{place}" for place, layer in enumerate(layers_inside(model))}
    quoted = re.compile(r'"((?:[^"\\]|\\.)*)"')
    text = quoted.sub(lambda found: f'"{numbers.get(found[1], found[1])}"', model.to_json())
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class PartTimes(Record):
    """Times of a model's calls, and of some of its sub-networks as whole files.

    Attributes:
        kept: Removable units kept in each group by the sub-networks.
        whole: Milliseconds of these.
        table: Of calls, as JSON.
    """

    kept: tuple[tuple[int, ...], ...]
    whole: tuple[float, ...]
    table: Any = field(metadata={"shape": dict[str, Any]})

    def flaw(self) -> str:
        """See `Record.flaw`."""
        if len(self.kept) != len(self.whole):
            return f"kept and whole must be of as many nets; received: {self.kept}, {self.whole}"
        return "" if min(self.whole) > 0 else f"whole must be above 0; received: {self.whole}"

    @classmethod
    def of(cls, found: Timed) -> PartTimes:
        """Return the record of timed calls."""
        kept = tuple(tuple(int(count) for count in row) for row in found.kept)
        return cls(kept, tuple(float(ms) for ms in found.whole), found.table.to_json())


def measure_parts(options: SearchOptions, folder: SearchFolder, on_progress: OnProgress) -> None:
    """Time the parts of the model that a search is around, where its latency is asked for.

    To be called while the machine is quiet: before workers are.

    Args:
        options: Space, objectives, limits.
        folder: Where the record goes; one that is there stays.
        on_progress: Told how far it is.
    """
    space = timed_space(options)
    if space is None or folder.part_times.exists():
        return
    found = space.timed(on_progress)
    write_json(folder.part_times, PartTimes.of(found).to_json())
    LOG.info(
        "latencies of candidates are estimated from %d calls and %d whole sub-networks, timed on "
        "%s (%s)", len(found.table.calls), len(found.whole), found.table.runtime,
        found.table.device,
    )  # fmt: skip


def timed_space(options: SearchOptions) -> Around | None:
    """Return the space, if latencies of its candidates follow from times of a model's parts."""
    space = options.made_space
    return space if isinstance(space, Around) and options.needs("latency_ms") else None


def latency_of(
    options: SearchOptions, folder: SearchFolder
) -> Callable[[dict[str, Any]], float] | None:
    """Return a function that estimates a candidate's milliseconds; None: its file is measured.

    Args:
        options: Of the run.
        folder: The run's.
    """
    space = timed_space(options)
    if space is None or not folder.part_times.exists():
        return None
    return _read(space, folder.part_times)


@lru_cache(maxsize=2)
def _read(space: Around, path: Path) -> Callable[[dict[str, Any]], float]:
    record = read_record(path, PartTimes)
    table = LatencyTable.from_json(record.table)
    return space.latency(Timed(table, np.array(record.kept, np.int64), np.array(record.whole)))
