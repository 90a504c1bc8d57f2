"""Result of a benchmark: verdicts, JSON, CSV and plot."""

from __future__ import annotations

import csv
import io
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.benchmarking.models import BenchModel, Skipped
from compress.core import linux
from compress.core.atomic_files import write_bytes, write_json, write_text
from compress.core.device import read_cpu_name
from compress.core.quantities import format_threads
from compress.core.summary import DisplayableResult, Summary, truncate_end
from compress.measure import Latency, formatting
from compress.plan.bench import BenchPlan
from compress.plan.nesting import to_nested
from compress.report.plot import render_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_ZEROS = 0.01
"""Minimum share of zeros to report, because biases of any model may be zero."""
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "openvino", "MNN", "numpy")
MARKERS = "os^DvP*X<>"
MAX_LETTERS = 32
"""Maximum length of a model name in the plot."""


@dataclass(frozen=True)
class Timing:
    """Latency of one model in one configuration.

    Attributes:
        model: Name of the model.
        runtime, format: Names of the runtime and of the file format.
        size_bytes: Size of the file.
        latency: Measured latency, with threads, interval and ratio.
    """

    model: str
    runtime: str
    format: str
    size_bytes: int
    latency: Latency

    @property
    def configuration(self) -> str:
        """Configuration as text: "litert float32, 1 thread"."""
        return f"{self.runtime} {self.format}, {format_threads(self.latency.threads)}"


def build_key(model: str, runtime: str, format: str, threads: int) -> str:
    """Return the key of one model in one configuration."""
    return f"{model} {runtime} {format} {threads}"


@dataclass(frozen=True, repr=False)
class BenchResult(DisplayableResult):
    """Result of `bench`.

    Attributes:
        models: The models, with MACs and parameters if these could be counted.
        timed: Timings of every model in every configuration.
        skipped: Combinations that were not timed, with reasons.
        plan: The benchmark's plan.
    """

    models: tuple[BenchModel, ...]
    timed: tuple[Timing, ...]
    skipped: tuple[Skipped, ...]
    plan: BenchPlan

    def build_summary(self) -> Summary:
        """Return a summary for one screen: times, verdicts and conditions."""
        names = ", ".join(f"'{model.name}'" for model in self.models)
        return Summary(
            f"{len(self.timed)} timing{'' if len(self.timed) == 1 else 's'} of {names}",
            tuple(self.verdicts()),
            ("Model", "configuration", "latency", "speed-up", "file", "MACs", "p95", "min"),
            tuple(self._format_row(row) for row in self.timed),
            (self.conditions(), *self._list_notes()),
            "timings",
            fields=self._list_files(),
        )

    def _format_row(self, row: Timing) -> tuple[str, ...]:
        """Return a timing's cells: model, configuration, latency, ratio, bytes, MACs, p95, min."""
        macs = next(model.macs for model in self.models if model.name == row.model)
        return (
            row.model,
            row.configuration,
            formatting.format_latency(row.latency),
            formatting.format_speedup(row.latency),
            formatting.format_size(row.size_bytes),
            formatting.format_count(macs),
            formatting.format_time(row.latency.p95_ms),
            formatting.format_time(row.latency.min_ms),
        )

    def _list_notes(self) -> Iterator[str]:
        """Yield the notes: skipped timings, shares of zeros, uncounted layers, notes of models."""
        for item in self.skipped:
            yield f"{item.model}, {item.runtime} {item.format}: skipped: {item.reason}"
        for model in self.models:
            if model.zeros >= MIN_ZEROS:
                share = formatting.format_percent(model.zeros)
                yield f"{model.name}: {share} of all parameters are zero"
            if model.unsupported:
                yield f"{model.name}: MACs leave out {'; '.join(model.unsupported)}"
            yield from (f"{model.name}: {note}" for note in model.notes)

    def _list_files(self) -> tuple[tuple[str, str], ...]:
        if self.plan.out is None:
            return ()
        paths = (self.plan.out / f"bench.{suffix}" for suffix in ("json", "csv", "png"))
        return tuple(("Saved", str(path)) for path in paths if path.exists())

    def verdicts(self) -> list[str]:
        """Return one sentence per configuration: whether B is faster than A, for `compare` A, B."""
        if not self.plan.compare:
            return []
        a, b = self.plan.compare
        return [
            f"{_describe_comparison(old, new)}: {describe_speedup(old, new)}"
            for old, new in self._iterate_pairs()
            if (old.model, new.model) == (a, b)
        ]

    def _iterate_pairs(self) -> Iterator[tuple[Timing, Timing]]:
        """Yield the baseline of each ratio, and the timing with the ratio."""
        rows = {
            build_key(row.model, row.runtime, row.format, row.latency.threads): row
            for row in self.timed
        }
        for row in self.timed:
            if row.latency.baseline in rows:
                yield rows[row.latency.baseline], row

    def conditions(self) -> str:
        """Return the measurement conditions as text: device, runtimes, rounds, stopping."""
        first = self.timed[0].latency
        reason = {
            "precision": "every interval was narrow enough",
            "budget": "the time budget was spent",
        }[first.stopped_by]
        runtimes = ", ".join(dict.fromkeys(row.latency.runtime for row in self.timed))
        text = (
            f"Measured on {first.device} ({linux.count_cores()} cores) at batch 1 with {runtimes}: "
            f"median and {formatting.describe_rounds(first)}; stopped when {reason}. Ratios are "
            "old/new, paired by round."
        )
        for old, new in self._iterate_pairs():
            if old.model != new.model and old.format != new.format:
                text += f" {new.model}: {_describe_comparison(old, new)} of {old.model}."
        return " ".join([text, *(f"Warning: {warning}." for warning in first.warnings)])

    def to_json(self) -> dict[str, Any]:
        """Return the whole result with package versions."""
        return {
            "device": read_cpu_name(),
            "cores": linux.count_cores(),
            "python": platform.python_version(),
            "versions": {name: _find_version(name) for name in PACKAGES},
            "plan": to_nested(self.plan),
            "models": [{**asdict(item), "path": str(item.path)} for item in self.models],
            "timed": [asdict(row) for row in self.timed],
            "skipped": [asdict(item) for item in self.skipped],
            "verdicts": self.verdicts(),
        }


def _describe_comparison(old: Timing, new: Timing) -> str:
    """Return the configuration of a comparison: "litert file, 1 thread"."""
    return new.configuration + ("" if old.format == new.format else f" against {old.format}")


def describe_speedup(old: Timing, new: Timing) -> str:
    """Return a sentence on whether `new` is faster than `old`, the baseline of its ratio."""
    ratio, low, high = new.latency.ratio, new.latency.ratio_low, new.latency.ratio_high
    if low <= 1.0 <= high:
        return (
            f"no difference between {new.model} and {old.model} that this run can detect "
            f"({formatting.format_speedup(new.latency)})"
        )
    direction = "faster" if ratio > 1.0 else "slower"
    if ratio < 1.0:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    ends = formatting.format_bounds(new.latency, f"{low:.2f}", f"{high:.2f}")
    return f"{new.model} is {ratio:.2f}x {direction} than {old.model} {ends}"


def write_result(result: BenchResult, folder: Path) -> None:
    """Write bench.json, bench.csv and, if the MACs of a model are known, bench.png.

    Args:
        result: The result.
        folder: An existing folder.
    """
    write_json(folder / "bench.json", result.to_json())
    write_text(folder / "bench.csv", _format_csv(result))
    if any(model.macs for model in result.models):
        write_bytes(
            folder / "bench.png",
            render_png((8.5, 5.2), [partial(_draw_latency_panel, result=result)]),
        )


def _format_csv(result: BenchResult) -> str:
    """Return the text of bench.csv, one line per timing; requires at least one."""
    by_name = {model.name: model for model in result.models}
    rows = [
        {
            "model": row.model,
            "runtime": row.runtime,
            "format": row.format,
            "macs": by_name[row.model].macs,
            "params": by_name[row.model].params,
            "size_bytes": row.size_bytes,
            **{key: value for key, value in row.latency.to_json().items() if key != "warnings"},
        }
        for row in result.timed
    ]
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _draw_latency_panel(axes: Axes, result: BenchResult) -> None:
    """Draw latency against MACs with intervals, one colour per configuration."""
    import matplotlib

    macs = {model.name: model.macs for model in result.models if model.macs}
    groups: dict[str, list[Timing]] = {}
    for row in result.timed:
        if row.model in macs:
            groups.setdefault(row.configuration, []).append(row)
    colours = matplotlib.colormaps["tab20"]
    for index, (name, rows) in enumerate(groups.items()):
        xs = [float(macs[row.model]) for row in rows]
        ys = [row.latency.median_ms for row in rows]
        below = [row.latency.median_ms - row.latency.low_ms for row in rows]
        above = [row.latency.high_ms - row.latency.median_ms for row in rows]
        axes.errorbar(
            xs, ys, yerr=[below, above], fmt=MARKERS[index % len(MARKERS)],
            color=colours(index % 20), label=name, capsize=3, markersize=6,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, count in macs.items():
        axes.axvline(float(count), color="#e3e6eb", linewidth=0.8, zorder=0)
        axes.annotate(
            f"{truncate_end(name, MAX_LETTERS)}\n{formatting.format_count(count)} MACs",
            (float(count), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_xlabel("MACs (counted)")
    axes.set_ylabel(f"ms an inference (measured, {read_cpu_name()})")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _find_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
