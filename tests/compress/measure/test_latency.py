"""The timing loop on a runtime whose times are known: its clock is ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from compress.errors import InputError
from compress.measure import latency, measure_latency
from compress.measure.runtimes import RUNTIMES
from compress.measure.runtimes._base import timed_here
from compress.measure.stats import median_interval
from compress.plan import LatencyOptions


@dataclass
class Clock:
    """A clock that only inferences move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeRuntime:
    """Takes `times[file]` seconds a run, the first run of a block ten times as long."""

    clock: Clock
    times: dict[str, float]
    noise: float = 0.0
    name: str = "fake"
    prepared: list[str] = field(default_factory=list)
    last: str = ""

    def describe(self) -> str:
        return "fake 1.0"

    def prepare(self, path: Path, threads: int) -> Any:
        self.prepared.append(path.name)
        return FakeSession(self, path.name)


class FakeSession:
    input_shape = (1, 2)

    def __init__(self, runtime: FakeRuntime, name: str) -> None:
        self.runtime, self.name = runtime, name
        self.rng = np.random.default_rng(len(runtime.prepared))

    def set_input(self, x: np.ndarray) -> None:
        assert x.shape == (1, 2)

    def invoke(self) -> None:
        runtime = self.runtime
        cold = 10.0 if runtime.last != self.name else 1.0
        runtime.last = self.name
        jitter = 1.0 + runtime.noise * self.rng.normal()
        runtime.clock.now += runtime.times[self.name] * cold * jitter

    def timed(self, count: int) -> list[float]:
        return timed_here(self.invoke, count)

    def output(self) -> np.ndarray:
        return np.zeros((1, 1), np.float32)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    clock = Clock()
    runtime = FakeRuntime(clock, {"slow": 2e-3, "fast": 1e-3})
    monkeypatch.setattr(latency.time, "perf_counter", clock)
    monkeypatch.setitem(RUNTIMES._members, "fake", runtime)
    return runtime


FILES = {"a": "slow", "b": "fast"}


def test_known_times_give_the_known_ratio(fake: FakeRuntime) -> None:
    result = measure_latency(FILES, LatencyOptions(budget=100.0), runtime="fake")
    slow, fast = result["a"], result["b"]
    # the cold first run of every block is dropped: the p95 is the warm time
    assert (slow.median_ms, slow.p95_ms) == pytest.approx((2.0, 2.0))
    assert (fast.median_ms, fast.min_ms) == pytest.approx((1.0, 1.0))
    assert (fast.ratio, fast.ratio_low, fast.ratio_high) == pytest.approx((2.0, 2.0, 2.0))
    assert (slow.ratio, slow.baseline, fast.baseline) == (1.0, "a", "a")
    assert fast.stopped_by == "precision"
    assert fast.rounds == latency.MIN_ROUNDS
    # prepared once, then anew after every 2 of 40 rounds but the last
    assert fast.instances == 20
    assert fake.prepared.count("fast") == 20
    assert fast.runs == fast.rounds * (latency.MIN_RUNS - 1)
    assert (fast.runtime, fast.threads) == ("fake 1.0", 1)


def test_budget_ends_a_noisy_run(fake: FakeRuntime) -> None:
    fake.noise = 0.2
    options = LatencyOptions(budget=0.5, precision=1e-6)
    result = measure_latency(FILES, options, runtime="fake")["b"]
    assert result.stopped_by == "budget"
    assert result.ratio_low < 2.0 < result.ratio_high
    assert result.ratio_low < result.ratio < result.ratio_high


def test_drift_does_not_reach_the_ratio(fake: FakeRuntime, monkeypatch: Any) -> None:
    """A machine that slows down by half over the run: paired rounds cancel it."""
    times, rounds = dict(fake.times), []

    def progress(_: float) -> None:
        rounds.append(1)
        for name, value in times.items():
            fake.times[name] = value * (1 + 0.05 * len(rounds))

    options = LatencyOptions(budget=100.0)
    result = measure_latency(FILES, options, runtime="fake", on_progress=progress)
    assert result["b"].stopped_by == "precision"
    assert result["b"].ratio == pytest.approx(2.0)
    assert result["b"].high_ms / result["b"].low_ms > 1.1


def test_baselines_and_refusals(fake: FakeRuntime) -> None:
    options = LatencyOptions(budget=100.0)
    result = measure_latency(FILES, options, baselines={"a": "b", "b": "b"}, runtime="fake")
    assert result["a"].ratio == pytest.approx(0.5)
    with pytest.raises(InputError, match="baseline of 'a' must be among the files"):
        measure_latency(FILES, options, baselines={"a": "c"}, runtime="fake")
    with pytest.raises(InputError, match="at least one file"):
        measure_latency({}, options, runtime="fake")
    with pytest.raises(InputError, match="Unknown runtime 'no'"):
        measure_latency(FILES, options, runtime="no")


def test_interval_equals_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(4.0, size=60)
    middle, low, high = median_interval(values, np.random.default_rng(1))
    other = scipy_stats.bootstrap(
        (values,), np.median, n_resamples=4000, method="percentile", rng=2
    ).confidence_interval
    assert middle == np.median(values)
    assert (low, high) == pytest.approx((other.low, other.high), rel=0.03)
