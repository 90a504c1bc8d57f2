"""Estimates of the time left, by hand."""

from __future__ import annotations

import pytest

from benchmarks.time_left import list_estimates, replay


def test_estimates_at_half_time_are_those_of_the_recent_speed() -> None:
    events = [
        # steady: at 5 s of 10 s a half is done
        *((float(second), f"one {second}", second / 10) for second in range(10)),
        # the last half takes three times as long: at 20 s of 40 s, half the share after 10 s
        (10.0, "two", 0.0), (20.0, "two", 0.5), (30.0, "two", 0.75), (40.0, "two", 0.9),
        # nothing is reported before half time
        (50.0, "three", 0.0), (58.0, "three", 0.9),
    ]  # fmt: skip
    first, second, third = replay(events, 60.0)
    assert (first["stage"], first["seconds"], first["ratio"]) == ("one 0", 10.0, 1.0)
    # at 30 s: a quarter of the share took the last 10 s, and so would the last one; there were 20
    assert (second["stage"], second["seconds"]) == ("two", 40.0)
    assert second["ratio"] == pytest.approx(10 / 20)
    assert (third["stage"], third["seconds"], third["ratio"]) == ("three", 10.0, None)


def test_short_stages_are_left_out_of_the_table() -> None:
    stages = [{"stage": "short", "seconds": 4.9, "ratio": 9.0},
              {"stage": "long", "seconds": 5.0, "ratio": None}]  # fmt: skip
    lines = list_estimates({"cases": {"shrink": stages}}).splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["long"]
