"""How benchmarks print a stored latency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compress.measure.stats import RANGE

if TYPE_CHECKING:
    from compress.measure.latency import Latency

INTERVAL = "instances, then rounds"
"""What is resampled. Records that do not say so were made when rounds that share an instance were
resampled as if they were independent: their intervals are too narrow and are not shown."""


def stored_latency(latency: Latency) -> dict[str, Any]:
    """Returns a latency as it is stored."""
    return {**latency.to_json(), "interval": INTERVAL}


def told_latency(latency: Mapping[str, Any] | None) -> list[str]:
    """Returns the cells "202 us" and "2.56x [2.55, 2.58]", empty where nothing was timed."""
    if latency is None:
        return ["", ""]
    median = latency["median_ms"]
    time = f"{1e3 * median:.3g} us" if median < 1 else f"{median:.3g} ms"
    ratio = latency.get("ratio")
    if ratio is None:
        return [time, ""]
    text = f"{ratio:.2f}x"
    low, high = latency.get("ratio_low"), latency.get("ratio_high")
    if latency.get("interval") == INTERVAL and low is not None and high is not None:
        text += f" {bounds(latency, f'{low:.2f}', f'{high:.2f}')}"
        text += " (a tie)" if low <= 1.0 <= high else ""
    return [time, text]


def bounds(row: Mapping[str, Any], low: str, high: str) -> str:
    """Returns the ends of an interval as "[1, 2]"; of a range, which is none, as such."""
    return f"[range {low} to {high}]" if row.get("spread") == RANGE else f"[{low}, {high}]"
