"""Results of a benchmark: verdicts, JSON, CSV and the plot."""

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
from compress.core.device import cpu_name
from compress.core.quantities import threads_text
from compress.core.summary import Readable, Summary, short
from compress.measure import Latency, formats
from compress.plan.bench import BenchPlan
from compress.plan.fields import to_nested
from compress.report.plot import render_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "openvino", "MNN", "numpy")
MARKERS = "os^DvP*X<>"
LETTERS = 32
"""Of a model's name in the picture."""


@dataclass(frozen=True)
class Timed:
    """One model in one configuration.

    Attributes:
        model: The model's name.
        runtime, format: Names.
        size_bytes: Of the file.
        latency: With threads, interval, ratio.
    """

    model: str
    runtime: str
    format: str
    size_bytes: int
    latency: Latency

    @property
    def configuration(self) -> str:
        """The configuration in words: "litert float32, 1 thread"."""
        return f"{self.runtime} {self.format}, {threads_text(self.latency.threads)}"


def key_of(model: str, runtime: str, format: str, threads: int) -> str:
    """Return the name under which one model in one configuration is timed."""
    return f"{model} {runtime} {format} {threads}"


@dataclass(frozen=True, repr=False)
class BenchResult(Readable):
    """Result of `bench`.

    Attributes:
        models: The models, with MACs and parameters where they are Keras models.
        timed: Every model in every configuration.
        skipped: What was not timed, with reasons.
        plan: What was asked for.
    """

    models: tuple[BenchModel, ...]
    timed: tuple[Timed, ...]
    skipped: tuple[Skipped, ...]
    plan: BenchPlan

    def screen(self) -> Summary:
        """Return a summary for the screen: all times, verdicts and conditions."""
        names = ", ".join(f"'{model.name}'" for model in self.models)
        return Summary(
            f"{len(self.timed)} timings of {names}",
            tuple(self.verdicts()),
            ("Model", "configuration", "latency", "speed-up"),
            tuple(
                (row.model, row.configuration, formats.time(row.latency.median_ms),
                 formats.speedup(row.latency))
                for row in self.timed
            ),
            (
                self.conditions(),
                *(f"{s.model}, {s.runtime} {s.format}: skipped: {s.reason}" for s in self.skipped),
            ),
            "timings",
        )  # fmt: skip

    def verdicts(self) -> list[str]:
        """Return one sentence a configuration of `compare` A, B: is B faster than A?"""
        if not self.plan.compare:
            return []
        a, b = self.plan.compare
        return [
            f"{_compared(old, new)}: {verdict(old, new)}"
            for old, new in self._pairs()
            if (old.model, new.model) == (a, b)
        ]

    def _pairs(self) -> Iterator[tuple[Timed, Timed]]:
        """Yield the baseline of each ratio, and the row with the ratio."""
        rows = {
            key_of(row.model, row.runtime, row.format, row.latency.threads): row
            for row in self.timed
        }
        for row in self.timed:
            if row.latency.baseline in rows:
                yield rows[row.latency.baseline], row

    def conditions(self) -> str:
        """Return the conditions in words: device, runtimes, rounds, stopping."""
        first = self.timed[0].latency
        why = {
            "precision": "every interval was narrow enough",
            "budget": "the time budget was spent",
        }[first.stopped_by]
        runtimes = ", ".join(dict.fromkeys(row.latency.runtime for row in self.timed))
        text = (
            f"Measured on {first.device} ({linux.cores()} cores) at batch 1 with {runtimes}: "
            f"median and {formats.rounds(first)}; stopped when {why}. Ratios are old/new, paired "
            "by round."
        )
        for old, new in self._pairs():
            if old.model != new.model and old.format != new.format:
                text += f" {new.model}: {_compared(old, new)} of {old.model}."
        return " ".join([text, *(f"Warning: {warning}." for warning in first.warnings)])

    def to_json(self) -> dict[str, Any]:
        """Return everything, with versions."""
        return {
            "device": cpu_name(),
            "cores": linux.cores(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in PACKAGES},
            "plan": to_nested(self.plan),
            "models": [{**asdict(item), "path": str(item.path)} for item in self.models],
            "timed": [
                {
                    "model": row.model,
                    "runtime": row.runtime,
                    "format": row.format,
                    "size_bytes": row.size_bytes,
                    "latency": row.latency.to_json(),
                }
                for row in self.timed
            ],
            "skipped": [asdict(item) for item in self.skipped],
            "verdicts": self.verdicts(),
        }


def _compared(old: Timed, new: Timed) -> str:
    """Return the configuration of a comparison: "litert file, 1 thread"."""
    against = "" if old.format == new.format else f" against {old.format}"
    return new.configuration + against


def verdict(old: Timed, new: Timed) -> str:
    """Return in words whether `new` is faster than `old`, the baseline of its ratio."""
    ratio, low, high = new.latency.ratio, new.latency.ratio_low, new.latency.ratio_high
    if low <= 1.0 <= high:
        return (
            f"no difference between {new.model} and {old.model} that this run can detect "
            f"({formats.speedup(new.latency)})"
        )
    word = "faster" if ratio > 1.0 else "slower"
    if ratio < 1.0:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    ends = formats.bounds(new.latency, f"{low:.2f}", f"{high:.2f}")
    return f"{new.model} is {ratio:.2f}x {word} than {old.model} {ends}"


def write_result(result: BenchResult, folder: Path) -> None:
    """Write bench.json, bench.csv and, where a model's MACs are known, bench.png."""
    write_json(folder / "bench.json", result.to_json())
    write_text(folder / "bench.csv", _csv(result))
    if any(model.macs for model in result.models):
        write_bytes(
            folder / "bench.png", render_png((8.5, 5.2), [partial(_latency_panel, result=result)])
        )


def _csv(result: BenchResult) -> str:
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
    for row in rows:
        writer.writerow({key: "" if value is None else value for key, value in row.items()})
    return sink.getvalue()


def _latency_panel(axes: Axes, result: BenchResult) -> None:
    """Draw latency against MACs with intervals, one colour a configuration."""
    import matplotlib

    macs = {model.name: model.macs for model in result.models if model.macs}
    groups: dict[str, list[Timed]] = {}
    for row in result.timed:
        if row.model in macs:
            groups.setdefault(row.configuration, []).append(row)
    colours = matplotlib.colormaps["tab20"]
    for place, (name, rows) in enumerate(groups.items()):
        xs = [float(macs[row.model]) for row in rows]
        ys = [row.latency.median_ms for row in rows]
        below = [row.latency.median_ms - row.latency.low_ms for row in rows]
        above = [row.latency.high_ms - row.latency.median_ms for row in rows]
        axes.errorbar(
            xs, ys, yerr=[below, above], fmt=MARKERS[place % len(MARKERS)],
            color=colours(place % 20), label=name, capsize=3, markersize=6,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    for name, count in macs.items():
        axes.axvline(float(count), color="#e3e6eb", linewidth=0.8, zorder=0)
        axes.annotate(
            f"{short(name, LETTERS)}\n{formats.count(count)} MACs", (float(count), 1.0),
            xycoords=("data", "axes fraction"), xytext=(0, 4), textcoords="offset points",
            ha="center", fontsize=8,
        )  # fmt: skip
    axes.set_xlabel("MACs (counted)")
    axes.set_ylabel(f"ms an inference (measured, {cpu_name()})")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
