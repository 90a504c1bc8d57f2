"""The figures of an exported file, and what each of them means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compress.data.tasks import meaning
from compress.report.rows import Report, Row


@dataclass(frozen=True)
class Column:
    """One figure of an exported file.

    Attributes:
        key: Field name in JSON and CSV.
        title: Heading.
        unit: Unit, empty for a share.
        kind: "measured" or "counted" (exact, from shapes and bytes).
        how: What the figure is, in one sentence.
        get: Row -> value; None where it was not measured.
    """

    key: str
    title: str
    unit: str
    kind: str
    how: str
    get: Callable[[Row], float | None]


def _timed(name: str) -> Callable[[Row], float | None]:
    return lambda row: getattr(row.latency, name) if row.latency else None


def _test(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.artifact.test.get(name)


_RATIO = "the time of this model's dense baseline file / this file's, paired by round"
COSTS = (
    Column("macs", "MACs", "", "counted",
           "Multiply-accumulates of one forward pass at batch 1; zeros count.",
           lambda row: row.artifact.macs),
    Column("flops", "FLOPs", "", "counted", "2 x MACs.", lambda row: 2 * row.artifact.macs),
    Column("sparse_macs", "Sparse MACs", "", "counted",
           "MACs whose weight is not zero: what a runtime that skips zeros would do.",
           lambda row: row.artifact.sparse_macs),
    Column("params", "Parameters", "", "counted", "All weights, zero or not.",
           lambda row: row.artifact.params),
    Column("nonzero", "Non-zero", "", "counted", "Parameters of the Keras model that are not zero.",
           lambda row: row.artifact.nonzero),
    Column("zeros", "Zeros", "", "counted", "Share of all parameters that are zero.",
           lambda row: row.artifact.zeros),
    Column("sparsity", "Sparsity", "", "counted",
           "Share of zeros in the kernels that were pruned, which are a part of all parameters.",
           lambda row: row.artifact.sparsity),
    Column("size_bytes", "File", "B", "counted", "Size of the file.",
           lambda row: row.artifact.size_bytes),
    Column("gzip_bytes", "Gzipped", "B", "counted", "Size of the file after gzip -9.",
           lambda row: row.artifact.gzip_bytes),
    Column("zstd_bytes", "Zstd", "B", "counted", "Size of the file after zstd -19.",
           lambda row: row.artifact.zstd_bytes),
    Column("arena_bytes", "Memory", "B", "measured",
           "What LiteRT's built-in kernels set aside for activations (its arena), at batch 1.",
           lambda row: row.artifact.arena_bytes),
    Column("latency_ms", "Latency", "ms", "measured", "Median of one inference at batch 1.",
           _timed("median_ms")),
    Column("latency_low_ms", "low", "ms", "measured",
           "Lower end of the median's 95 % interval or range.",
           _timed("low_ms")),
    Column("latency_high_ms", "high", "ms", "measured",
           "Upper end of the median's 95 % interval or range.",
           _timed("high_ms")),
    Column("latency_p95_ms", "p95", "ms", "measured", "95th percentile of single runs.",
           _timed("p95_ms")),
    Column("speedup", "Speed-up", "x", "measured", f"old/new: {_RATIO}.", _timed("ratio")),
    Column("speedup_low", "low", "x", "measured", "Lower end of its 95 % interval or range.",
           _timed("ratio_low")),
    Column("speedup_high", "high", "x", "measured", "Upper end of its 95 % interval or range.",
           _timed("ratio_high")),
)  # fmt: skip


def columns(report: Report) -> tuple[Column, ...]:
    """Returns all figures of a file: qualities, then costs."""
    made = [
        Column(name, meaning(name)[0], "", "measured",
               f"{meaning(name)[1]}, of the exported file itself, on the test part.",
               _test(name))
        for name in report.qualities
    ]  # fmt: skip
    return (*made, *COSTS)


def values(report: Report, row: Row) -> dict[str, float | None]:
    """Returns all figures of a row by column key."""
    return {column.key: column.get(row) for column in columns(report)}
