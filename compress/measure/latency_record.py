"""A measured latency as records hold it, and what a median over rounds is worth.

Of enough rounds a median has a 95 % interval, of too few values their range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.core.statistics import Floats
from compress.run.records import Record

RESAMPLES = 2000
LEVEL = 0.95
FEWEST = 10
"""Fewer independent values than these make no interval."""
INTERVAL, RANGE = "interval", "range"
QUIET = 0.1
"""The quantile of short blocks that tells a time alone. What else a machine does, or a neighbour
on a shared one, makes some blocks up to twice as long, short calls more than long ones, and no
block shorter: of single calls a median lies now here, now there, up to 1.9 times apart."""
STOPPED_BY = ("precision", "budget")


@dataclass(frozen=True)
class Latency(Record):
    """Measured time of one inference at batch size 1.

    Attributes:
        median_ms, low_ms, high_ms: Median over rounds of the blocks' medians, and its
            bootstrap 95 % interval (or range, see `spread`).
        p95_ms, min_ms: Over all single runs.
        quiet_ms, quiet_error_ms: The 10 % quantile of the blocks' medians, and its standard error:
            what it takes when nothing else disturbs (`QUIET`). Tables of single calls are
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


@dataclass(frozen=True)
class Spread:
    """A median and what lies around it.

    Attributes:
        median: Of all values.
        low, high: Ends of the 95 % interval, or the least and largest value.
        kind: "interval" or "range": which of the two.
    """

    median: float
    low: float
    high: float
    kind: str

    @property
    def half_width(self) -> float:
        """Half the distance of the ends, relative to the median."""
        return (self.high - self.low) / 2.0 / self.median


def median_spread(
    values: Sequence[float] | Floats,
    rng: np.random.Generator,
    *,
    groups: Sequence[int] | None = None,
) -> Spread:
    """Return the median of a sample with its bootstrap 95 % interval.

    Values of one group (rounds that share an instance of a file) err alike, so groups are what
    is independent: they are resampled first, then the values within each. The percentiles are
    those of Student's t with as many groups, since plain ones are too narrow for few. With
    fewer than `FEWEST` groups the ends are the least and the largest value: their range.

    Args:
        values: One a round, (rounds,), at least one.
        rng: Source of the resampling.
        groups: Of each value; those of one group stand together. Default: each value is one.

    Reference:
        Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8
        (resampling groups, then within them); Hesterberg 2015, "What Teachers Should Know
        About the Bootstrap" (expanded percentile interval).
    """
    sample = np.asarray(values, np.float64)
    middle = float(np.median(sample))
    labels = np.arange(len(sample)) if groups is None else np.asarray(groups)
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    if len(starts) < FEWEST:
        return Spread(middle, float(sample.min()), float(sample.max()), RANGE)
    from scipy.special import ndtr, stdtrit

    sizes = np.diff(np.r_[starts, len(sample)])
    medians = _resampled_medians(sample, starts, sizes, rng)
    quantile = stdtrit(len(starts) - 1, (1.0 + LEVEL) / 2.0)
    # the share of resampled medians to leave out on either side
    tail = float(ndtr(-quantile * np.sqrt(len(starts) / (len(starts) - 1))))
    low, high = np.quantile(medians, [tail, 1.0 - tail])
    return Spread(middle, float(low), float(high), INTERVAL)


def quantile_and_error(values: Sequence[float] | Floats, share: float) -> tuple[float, float]:
    """Return a quantile of a sample, and its standard error; 0 where there is one value alone.

    The error is half the way from the quantile one standard deviation of a rank below to that
    above, whatever the distribution.

    Args:
        values: At least one.
        share: Of the values that lie below, in (0, 1).

    Reference:
        David & Nagaraja 2003, "Order Statistics", section 7.1.
    """
    off = (share * (1.0 - share) / len(values)) ** 0.5
    low, found, high = np.quantile(values, np.clip([share - off, share, share + off], 0.0, 1.0))
    return float(found), float(high - low) / 2.0


def _resampled_medians(
    sample: Floats,
    starts: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> Floats:
    """Return the medians of `RESAMPLES` samples: groups drawn, then values in each."""
    count, largest = len(starts), int(sizes.max())
    # so many values are in memory at one time
    step = max(1, 2_000_000 // (count * largest))
    medians = []
    for done in range(0, RESAMPLES, step):
        shape = (min(step, RESAMPLES - done), count)
        drawn = rng.integers(count, size=shape)
        within = (rng.random((*shape, largest)) * sizes[drawn][..., None]).astype(np.int64)
        picked = sample[starts[drawn][..., None] + within]
        if (sizes == largest).all():
            medians.append(np.median(picked.reshape(len(picked), -1), axis=1))
            continue
        # a smaller group (the last one, cut short) gives fewer values
        given = np.arange(largest) < sizes[drawn][..., None]
        rows = np.sort(np.where(given, picked, np.inf).reshape(len(picked), -1), axis=1)
        held = given.sum(axis=(1, 2))
        row = np.arange(len(rows))
        medians.append((rows[row, (held - 1) // 2] + rows[row, held // 2]) / 2.0)
    return np.concatenate(medians)
