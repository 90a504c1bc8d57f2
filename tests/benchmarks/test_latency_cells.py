"""How stored latencies are printed: an interval as one, a range as one, an old one not at all."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks._common import told_latency
from compress.measure.latency_record import INTERVAL, RANGE

STORED = {
    "median_ms": 0.2021, "low_ms": 0.2012, "high_ms": 0.2034,
    "ratio": 2.567, "ratio_low": 2.551, "ratio_high": 2.576,
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "ratio"),
    [
        ({}, "2.57x"),
        ({"spread": INTERVAL}, "2.57x [2.55, 2.58]"),
        ({"spread": RANGE}, "2.57x [range 2.55 to 2.58]"),
        ({"spread": INTERVAL, "ratio": 1.0, "ratio_low": 0.99}, "1.00x [0.99, 2.58] (a tie)"),
    ],
)  # fmt: skip
def test_cells(more: dict[str, Any], ratio: str) -> None:
    assert told_latency(STORED | more) == ["202 us", ratio]


def test_the_baseline_has_no_interval() -> None:
    itself = {"spread": INTERVAL, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
    assert told_latency(STORED | itself) == ["202 us", "1"]


def test_milliseconds_and_nothing() -> None:
    slow = {"median_ms": 2.604, "low_ms": 2.441, "high_ms": 2.638, "spread": INTERVAL}
    assert told_latency(slow) == ["2.6 ms", ""]
    assert told_latency(None) == ["", ""]
