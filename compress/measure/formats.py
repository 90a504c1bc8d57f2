"""How figures are written for people: MACs, bytes, milliseconds, intervals."""

from __future__ import annotations

from compress.data.tasks import is_share
from compress.measure.latency_record import FEWEST, INTERVAL, Latency


def count(value: float | None) -> str:
    """Return a count in three significant digits: 950, 12.3 k, 4.56 M."""
    if value is None:
        return "-"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{_three(value / limit)} {unit}"
    return f"{value:.0f}"


def size(value: float | None) -> str:
    """Return bytes in kB or MB (powers of 1000)."""
    if value is None:
        return "-"
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"


def share(value: float | None) -> str:
    """Return a quality in [0, 1] as a percentage with two decimals."""
    return "-" if value is None else f"{value * 100:.2f} %"


def quality(name: str, value: float | None) -> str:
    """Return a metric in [0, 1] as a percentage; an error in its own unit, R2 as a number."""
    return share(value) if value is None or is_share(name) else f"{value:.4g}"


def change(name: str, value: float, *, unit: bool = True, short: bool = False) -> str:
    """Return a difference of a quality: "-0.25 pp" (percentage points) of shares.

    Args:
        name: Of the quality.
        value: The difference, new minus old.
        unit: Whether the unit is written.
        short: Whether zeros at the end are left out: "-1 pp".
    """
    value += 0.0  # no minus before a zero
    if not is_share(name):
        return f"{value:+.4g}"
    number = f"{100 * value:+g}" if short else f"{100 * value:+.2f}"
    return f"{number} pp" if unit else number


def percent(value: float) -> str:
    """Return a share as whole per cent, below 1 % with one decimal: "80 %", "0.4 %"."""
    return f"{value * 100:.0f} %" if value == 0 or value >= 0.00995 else f"{value * 100:.1f} %"


def interval(name: str, ends: tuple[float, float] | None) -> str:
    """Return a quality's interval, "[91.05, 96.01]" in per cent; empty where there is none."""
    if ends is None:
        return ""
    low, high = (f"{end * 100:.2f}" if is_share(name) else f"{end:.4g}" for end in ends)
    return f"[{low}, {high}]"


def time(milliseconds: float) -> str:
    """Return a time with three significant digits, in ms or, below 1 ms, in us."""
    value, unit = (milliseconds, "ms") if milliseconds >= 1 else (milliseconds * 1e3, "us")
    return f"{_three(value)} {unit}"


def latency(value: Latency | None) -> str:
    """Return the median with its 95 % interval or range: `123 us [121, 125]`."""
    if value is None:
        return "not timed"
    factor = 1 if value.median_ms >= 1 else 1e3
    low, high = _three(value.low_ms * factor), _three(value.high_ms * factor)
    return f"{time(value.median_ms)} {bounds(value, low, high)}"


def bounds(value: Latency, low: str, high: str) -> str:
    """Return the ends of an interval as `[1, 2]`; a range, which is none, as `[range 1 to 2]`."""
    return f"[{low}, {high}]" if value.spread == INTERVAL else f"[range {low} to {high}]"


def rounds(value: Latency) -> str:
    """Return a phrase about rounds and the bounds that follow: a 95 % interval, or a range."""
    counts = f"{value.rounds} rounds, {value.instances} instances a file"
    if value.spread == INTERVAL:
        return f"95 % interval of {counts}"
    return f"range of {counts}: fewer than {FEWEST} instances make no 95 % interval"


def _three(value: float) -> str:
    """Return a number in three significant digits, trailing zeros kept (5.50)."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def speedup(value: Latency | None) -> str:
    """Return the ratio to the baseline with its interval or range: `1.52x [1.49, 1.55]`."""
    if value is None:
        return "-"
    ends = bounds(value, f"{value.ratio_low:.2f}", f"{value.ratio_high:.2f}")
    return f"{value.ratio:.2f}x {ends}"


def cost(name: str, value: float) -> str:
    """Return a cost by its field's name, in its unit where it has one."""
    return {"size_bytes": size, "latency_ms": time}.get(name, count)(value)


def plain(value: object) -> str:
    """Return a sampled choice as text; floats in three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
