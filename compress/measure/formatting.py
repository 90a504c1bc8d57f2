"""Formatting of figures for people: MACs, bytes, milliseconds, metrics, intervals."""

from __future__ import annotations

from compress.data.tasks import is_share
from compress.measure.latency_record import INTERVAL, MIN_GROUPS, Latency

ROUNDS_UP = 0.9995
"""Share of a unit from which three significant digits show the whole unit."""


def format_count(value: float | None) -> str:
    """Return a count with three significant digits: 950, 12.3 k, 4.56 M."""
    if value is None:
        return "-"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * ROUNDS_UP:
            return f"{_format_three_digits(value / limit)} {unit}"
    return f"{value:.0f}"


def format_size(value: float | None) -> str:
    """Return bytes in kB or MB (powers of 1000)."""
    if value is None:
        return "-"
    return f"{value / 1e6:.2f} MB" if value >= 999_950 else f"{value / 1e3:.1f} kB"


def format_share(value: float | None) -> str:
    """Return a metric in [0, 1] as a percentage with two decimals."""
    return "-" if value is None else f"{value * 100:.2f} %"


def format_metric(name: str, value: float | None) -> str:
    """Return a metric in [0, 1] as a percentage, an error in its own unit, and R2 as a number."""
    return format_share(value) if value is None or is_share(name) else f"{value:.4g}"


def format_change(name: str, value: float, *, unit: bool = True, short: bool = False) -> str:
    """Return the change of a metric: "-0.25 pp" (percentage points) for shares.

    Args:
        name: Name of the metric.
        value: Difference, new minus old.
        unit: Whether to append the unit.
        short: Whether to drop trailing zeros: "-1 pp".
    """
    value += 0.0  # turns -0.0 into 0.0
    if not is_share(name):
        return f"{value:+.4g}"
    number = f"{100 * value:+g}" if short else f"{100 * value:+.2f}"
    return f"{number} pp" if unit else number


def format_percent(value: float) -> str:
    """Return a share as a whole percentage, with one decimal below 1 %: "80 %", "0.4 %"."""
    return f"{value * 100:.0f} %" if value == 0 or value >= 0.00995 else f"{value * 100:.1f} %"


def format_interval(name: str, ends: tuple[float, float] | None) -> str:
    """Return the interval of a metric, "[91.05, 96.01]" in percent; empty if there is none."""
    if ends is None:
        return ""
    low, high = (f"{end * 100:.2f}" if is_share(name) else f"{end:.4g}" for end in ends)
    return f"[{low}, {high}]"


def format_time(milliseconds: float) -> str:
    """Return a time with three significant digits, in ms or, below 1 ms, in us."""
    value, unit = (milliseconds, "ms") if milliseconds >= ROUNDS_UP else (milliseconds * 1e3, "us")
    return f"{_format_three_digits(value)} {unit}"


def format_latency(value: Latency | None) -> str:
    """Return the median with its 95 % interval or range: `123 us [121, 125]`."""
    if value is None:
        return "not timed"
    factor = 1 if value.median_ms >= ROUNDS_UP else 1e3
    low, high = (
        _format_three_digits(value.low_ms * factor),
        _format_three_digits(value.high_ms * factor),
    )
    return f"{format_time(value.median_ms)} {format_bounds(value, low, high)}"


def format_bounds(value: Latency, low: str, high: str) -> str:
    """Return an interval as `[1, 2]` and a range of values as `[range 1 to 2]`."""
    return f"[{low}, {high}]" if value.spread == INTERVAL else f"[range {low} to {high}]"


def describe_rounds(value: Latency) -> str:
    """Return a phrase about the rounds and their bounds: a 95 % interval, or a range."""
    counts = f"{value.rounds} rounds, {value.instances} instances a file"
    if value.spread == INTERVAL:
        return f"95 % interval of {counts}"
    return f"range of {counts}: fewer than {MIN_GROUPS} instances make no 95 % interval"


def _format_three_digits(value: float) -> str:
    """Return a number with three significant digits and trailing zeros (5.50)."""
    if value >= 100 * ROUNDS_UP:
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 * ROUNDS_UP else f"{value:.1f}"


def format_speedup(value: Latency | None) -> str:
    """Return the speed-up over the baseline with its interval or range: `1.52x [1.49, 1.55]`."""
    if value is None:
        return "-"
    ends = format_bounds(value, f"{value.ratio_low:.2f}", f"{value.ratio_high:.2f}")
    return f"{value.ratio:.2f}x {ends}"


def format_cost(name: str, value: float) -> str:
    """Return a cost in the unit of its field.

    Args:
        name: "size_bytes", "latency_ms", or another field, which is formatted as a count.
        value: Value of the cost.
    """
    return {"size_bytes": format_size, "latency_ms": format_time}.get(name, format_count)(value)


def format_choice(value: object) -> str:
    """Return a sampled hyperparameter as text; floats have three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
