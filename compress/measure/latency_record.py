"""Records of a measured latency, and statistics of medians over rounds.

With enough rounds a median has a 95 % interval; with fewer the range of the values is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.core.statistics import Floats
from compress.run.records import Record

RESAMPLES = 2000
CONFIDENCE = 0.95
MIN_GROUPS = 10
"""Minimum number of independent values for an interval."""
INTERVAL, RANGE = "interval", "range"
QUIET = 0.1
"""Quantile of short blocks that estimates the undisturbed time of a call. Other processes, also
those of other users of a shared machine, make some blocks up to twice as long, above all those of
short calls, and never shorter. Medians of single calls vary by a factor of up to 1.9 between
measurements."""
STOPPED_BY = ("precision", "budget")


@dataclass(frozen=True)
class Latency(Record):
    """Measured time of one inference at batch size 1.

    Attributes:
        median_ms, low_ms, high_ms: Median over rounds of the block medians, and its bootstrap 95 %
            interval (or range, see `spread`).
        p95_ms, min_ms: 95th percentile and minimum of all single runs.
        quiet_ms, quiet_error_ms: 10 % quantile of the block medians, and its standard error: the
            time without disturbance by other processes (see `QUIET`), used for latency tables. 0 in
            records of older versions.
        ratio, ratio_low, ratio_high: Time of the baseline / time of this file, paired by round
            (above 1: faster than the baseline), with its 95 % interval (or range).
        baseline: Name of the file that the ratio compares with.
        rounds, instances, runs: Number of rounds, of prepared sessions and of single runs.
        threads, device, runtime: CPU threads, name of the processor, runtime with version.
        stopped_by: "precision" or "budget".
        warnings: Conditions that may have disturbed the measurement.
        spread: Kind of the bounds: "interval" (95 %), or "range" (minimum and maximum over
            rounds) if there were fewer than ten instances.
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

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        if self.stopped_by not in STOPPED_BY:
            return f"stopped_by must be one of {', '.join(STOPPED_BY)}"
        low = [name for name in ("median_ms", "ratio", "threads") if getattr(self, name) <= 0]
        return f"{low[0]} must be above 0; received: {getattr(self, low[0])}" if low else ""


@dataclass(frozen=True)
class Spread:
    """A median with its interval or range.

    Attributes:
        median: Median of all values.
        low, high: Ends of the 95 % interval, or the minimum and maximum.
        kind: "interval" or "range".
    """

    median: float
    low: float
    high: float
    kind: str

    @property
    def half_width(self) -> float:
        """Half the distance between the ends, relative to the median."""
        return (self.high - self.low) / 2.0 / self.median


def compute_median_spread(
    values: Sequence[float] | Floats,
    rng: np.random.Generator,
    *,
    groups: Sequence[int] | None = None,
) -> Spread:
    """Return the median of a sample with its bootstrap 95 % interval.

    Values of one group (rounds that share an instance of a file) have correlated errors and only
    groups are independent. So groups are resampled first, then the values within each group. The
    percentiles are expanded by Student's t for the number of groups, because plain percentiles are
    too narrow for small samples. With fewer than `MIN_GROUPS` groups the ends are the minimum and
    the maximum.

    Args:
        values: One value per round, (rounds,), at least one.
        rng: Random generator for the resampling.
        groups: Group of each value, (rounds,); values of one group are adjacent. Default: each
            value is its own group.

    Reference:
        Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8
        (resampling groups, then within them); Hesterberg 2015, "What Teachers Should Know
        About the Bootstrap" (expanded percentile interval).
    """
    sample = np.asarray(values, np.float64)
    middle = float(np.median(sample))
    labels = np.arange(len(sample)) if groups is None else np.asarray(groups)
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    if len(starts) < MIN_GROUPS:
        return Spread(middle, float(sample.min()), float(sample.max()), RANGE)
    from scipy.special import ndtr, stdtrit

    sizes = np.diff(np.r_[starts, len(sample)])
    medians = _resample_medians(sample, starts, sizes, rng)
    quantile = stdtrit(len(starts) - 1, (1.0 + CONFIDENCE) / 2.0)
    # probability of each tail, expanded for few groups
    tail = float(ndtr(-quantile * np.sqrt(len(starts) / (len(starts) - 1))))
    low, high = np.quantile(medians, [tail, 1.0 - tail])
    return Spread(middle, float(low), float(high), INTERVAL)


def estimate_quantile(values: Sequence[float] | Floats, share: float) -> tuple[float, float]:
    """Return a quantile of a sample and its standard error; the error of one value is 0.

    The error is half the distance between the quantiles one standard deviation of a rank below and
    above. This holds for any distribution.

    Args:
        values: At least one value, (n,).
        share: Probability of the quantile, in (0, 1).

    Reference:
        David & Nagaraja 2003, "Order Statistics", section 7.1.
    """
    off = (share * (1.0 - share) / len(values)) ** 0.5
    low, quantile, high = np.quantile(values, np.clip([share - off, share, share + off], 0.0, 1.0))
    return float(quantile), float(high - low) / 2.0


def _resample_medians(
    sample: Floats,
    starts: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> Floats:
    """Return the medians of `RESAMPLES` samples: resampled groups, then values in each."""
    count, largest = len(starts), int(sizes.max())
    # limits the resampled values in memory to about two million
    step = max(1, 2_000_000 // (count * largest))
    medians = []
    for done in range(0, RESAMPLES, step):
        shape = (min(step, RESAMPLES - done), count)
        sampled_groups = rng.integers(count, size=shape)
        within = (rng.random((*shape, largest)) * sizes[sampled_groups][..., None]).astype(np.int64)
        picked = sample[starts[sampled_groups][..., None] + within]
        if (sizes == largest).all():
            medians.append(np.median(picked.reshape(len(picked), -1), axis=1))
            continue
        # the last group may be cut short: mask the values that it lacks
        is_present = np.arange(largest) < sizes[sampled_groups][..., None]
        rows = np.sort(np.where(is_present, picked, np.inf).reshape(len(picked), -1), axis=1)
        counts = is_present.sum(axis=(1, 2))
        row = np.arange(len(rows))
        medians.append((rows[row, (counts - 1) // 2] + rows[row, counts // 2]) / 2.0)
    return np.concatenate(medians)
