"""How benchmarks print a stored latency (`Latency.to_json`).

Records without "spread" were made when rounds that share an instance were resampled as if they
were independent: their intervals are too narrow and are not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.measure.latency_record import RANGE


def told_latency(latency: Mapping[str, Any] | None) -> list[str]:
    """Returns the cells "202 us" and "2.56x [2.55, 2.58]", empty where nothing was timed."""
    if latency is None:
        return ["", ""]
    time = _time(latency["median_ms"])
    ratio = latency.get("ratio")
    if ratio is None:
        return [time, ""]
    text = f"{ratio:.2f}x"
    if "spread" in latency:
        low, high = latency["ratio_low"], latency["ratio_high"]
        if ratio == low == high == 1.0:  # it is what the others are compared with
            return [time, "1"]
        text += f" {bounds(latency, f'{low:.2f}', f'{high:.2f}')}"
        text += " (a tie)" if low <= 1.0 <= high else ""
    return [time, text]


def told_time(latency: Mapping[str, Any]) -> str:
    """Returns "635 us [613, 646]"."""
    median = latency["median_ms"]
    if "spread" not in latency:
        return _time(median)
    scale, digits = (1e3, ".0f") if median < 1 else (1.0, ".2f")
    low, high = (f"{scale * latency[key]:{digits}}" for key in ("low_ms", "high_ms"))
    return f"{_time(median)} {bounds(latency, low, high)}"


def bounds(row: Mapping[str, Any], low: str, high: str) -> str:
    """Returns the ends of an interval as "[1, 2]"; of a range, which is none, as such."""
    return f"[range {low} to {high}]" if row.get("spread") == RANGE else f"[{low}, {high}]"


def _time(median: float) -> str:
    return f"{1e3 * median:.3g} us" if median < 1 else f"{median:.3g} ms"
