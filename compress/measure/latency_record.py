"""A measured latency, as records hold it."""

from __future__ import annotations

from dataclasses import dataclass

from compress.measure.stats import INTERVAL
from compress.run.records import Record

STOPPED_BY = ("precision", "budget")


@dataclass(frozen=True)
class Latency(Record):
    """Measured time of one inference at batch size 1.

    Attributes:
        median_ms, low_ms, high_ms: Median over rounds of the blocks' medians, and its
            bootstrap 95 % interval (or range, see `spread`).
        p95_ms, min_ms: Over all single runs.
        quiet_ms, quiet_error_ms: The 10 % quantile of the blocks' medians, and its standard error:
            what it takes when nothing else disturbs (`stats.QUIET`). Tables of single calls are
            made of it. 0 in records of older versions.
        ratio, ratio_low, ratio_high: Baseline's time / this one's, paired by round
            (above 1: faster than the baseline), with its 95 % interval (or range).
        baseline: What the ratio is against.
        rounds, instances, runs: How much was measured.
        threads, device, runtime: On what.
        stopped_by: "precision" or "budget".
        warnings: What may have disturbed the measurement.
        spread: What the lows and highs are: "interval" (95 %), or "range" of the rounds,
            where there were fewer than ten instances.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    p95_ms: float
    min_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    baseline: str
    rounds: int
    instances: int
    runs: int
    threads: int
    device: str
    runtime: str
    stopped_by: str
    warnings: tuple[str, ...]
    spread: str = INTERVAL
    quiet_ms: float = 0.0
    quiet_error_ms: float = 0.0

    def flaw(self) -> str:
        """See `Record.flaw`."""
        if self.stopped_by not in STOPPED_BY:
            return f"stopped_by must be one of {', '.join(STOPPED_BY)}"
        low = [name for name in ("median_ms", "ratio", "threads") if getattr(self, name) <= 0]
        return f"{low[0]} must be above 0; received: {getattr(self, low[0])}" if low else ""
