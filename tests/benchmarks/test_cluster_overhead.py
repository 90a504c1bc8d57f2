"""The simulation of many workers, against what can be worked out by hand."""

from __future__ import annotations

import pytest

from benchmarks.cluster_overhead import many, simulated


def test_workers_that_never_wait() -> None:
    assert simulated(100, 10.0, 0.0, 0.0, 2000) == pytest.approx(1.0, abs=0.02)


def test_a_server_that_bears_too_little() -> None:
    """One trial a second for a hundred workers whose trials take ten: a tenth of them works."""
    assert simulated(100, 10.0, 1.0, 0.0, 2000) == pytest.approx(0.10, abs=0.005)


def test_what_a_trial_takes_when_nobody_else_asks() -> None:
    """One second of eleven."""
    assert simulated(10, 10.0, 1e-6, 1.0, 2000) == pytest.approx(10 / 11, abs=0.01)


def test_the_table_of_many() -> None:
    race = {"trials": 1000, "wall": 10.0, "processes": 1, "calls": 1, "cpu": 0, "problems": 0}
    result = {"found": {"busy, journal, 1": race, "sampler, journal, 100": {}}}
    # 100 trials a second: 1,000 workers of 10 s ask just that, and of 60 s a sixth
    made = many(result)
    assert made is not None
    row = next(line for line in made.splitlines() if "1,000" in line)
    shares = [int(cell.strip(" %")) for cell in row.strip("|").split("|")[2:]]
    assert min(shares) >= 95
    assert many({"found": {}}) is None
