"""The timing loop on a runtime whose times are known: its clock is ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, t

from compress.core.errors import InputError
from compress.measure import formatting, latency, measure_latency
from compress.measure.latency_record import Latency, compute_median_spread, estimate_quantile
from compress.measure.runtimes import RUNTIMES, Session, TensorInfo
from compress.plan import LatencyOptions


@dataclass
class Clock:
    """A clock that only inferences move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeRuntime:
    """Takes `times[file]` seconds a run, the first run of a block ten times as long.

    Instances of one file differ by `spread`, their runs by `noise` (standard deviations).
    """

    clock: Clock
    times: dict[str, float]
    noise: float = 0.0
    spread: float = 0.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    name: str = "fake"
    prepared: list[str] = field(default_factory=list)
    last: str = ""

    def describe(self) -> str:
        return "fake 1.0"

    def prepare(self, path: Path, threads: int) -> Any:
        self.prepared.append(path.name)
        return FakeSession(self, path.name)


class FakeSession(Session):
    inputs = (TensorInfo("x", (1, 2)),)

    def __init__(self, runtime: FakeRuntime, name: str) -> None:
        self.runtime, self.name = runtime, name
        self.factor = 1.0 + runtime.spread * runtime.rng.normal()

    def set_inputs(self, values: Any) -> None:
        assert [x.shape for x in values] == [(1, 2)]

    def invoke(self) -> None:
        runtime = self.runtime
        cold = 10.0 if runtime.last != self.name else 1.0
        runtime.last = self.name
        jitter = 1.0 + runtime.noise * runtime.rng.normal()
        runtime.clock.now += runtime.times[self.name] * self.factor * cold * jitter


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRuntime]:
    clock = Clock()
    runtime = FakeRuntime(clock, {"slow": 2e-3, "fast": 1e-3})
    monkeypatch.setattr(latency.time, "perf_counter", clock)
    RUNTIMES.add("fake", runtime)
    yield runtime
    RUNTIMES.remove("fake")


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


@pytest.mark.parametrize("lacks", [False, True])
def test_int8_files_are_told_what_a_processor_lacks(
    lacks: bool, fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(latency, "is_vnni_missing", lambda: lacks)
    for name, operator in {
        "float32.onnx": b"DequantizeLinear",
        "int8.onnx": b"QuantizeLinear",
    }.items():
        (tmp_path / name).write_bytes(b"\x0a\x12" + operator)
        fake.times[name] = 1e-3

    def warned(*names: str) -> bool:
        files = {name: tmp_path / name for name in names}
        times = measure_latency(files, LatencyOptions(budget=0.1), runtime="fake")
        return any("no VNNI instructions" in text for text in times[names[0]].warnings)

    assert warned("float32.onnx", "int8.onnx") == lacks
    assert not warned("float32.onnx")


def test_progress_is_that_of_the_rounds_or_of_the_budget(fake: FakeRuntime) -> None:
    shares: list[float] = []
    measure_latency(FILES, LatencyOptions(budget=100.0), runtime="fake", on_progress=shares.append)
    # equal rounds reach any precision: 40 of them are made, and after 20 a half is done
    assert len(shares) == 40
    assert (shares[19], shares[-1]) == pytest.approx((0.5, 1.0))
    fake.noise = 0.2
    began = fake.clock.now
    spent: list[float] = []

    def progress(share: float) -> None:
        shares.append(share)
        spent.append((fake.clock.now - began) / 2.0)

    shares.clear()
    options = LatencyOptions(budget=2.0)
    measure_latency(FILES, options, precision=1e-6, runtime="fake", on_progress=progress)
    # the precision is out of reach, and the budget counts; the clock began before it
    assert shares == sorted(shares)
    np.testing.assert_allclose(shares, np.minimum(1.0, spent), atol=0.05)


def test_budget_ends_a_noisy_run(fake: FakeRuntime) -> None:
    fake.noise = 0.2
    options = LatencyOptions(budget=0.5)
    result = measure_latency(FILES, options, precision=1e-6, runtime="fake")["b"]
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


def test_quiet_times_are_of_rounds_that_nothing_disturbed(fake: FakeRuntime) -> None:
    """A neighbour makes four rounds of five twice as long: the median is its, not the file's."""
    times, rounds = dict(fake.times), []

    def progress(_: float) -> None:
        rounds.append(1)
        for name, value in times.items():
            fake.times[name] = value * (1.0 if len(rounds) % 5 == 0 else 2.0)

    options = LatencyOptions(budget=100.0)
    result = measure_latency(FILES, options, runtime="fake", on_progress=progress)["b"]
    assert (result.median_ms, result.quiet_ms) == pytest.approx((2.0, 1.0))
    assert result.quiet_error_ms == pytest.approx(0.0, abs=1e-9)


def test_the_error_of_a_quantile_is_that_of_order_statistics() -> None:
    rng = np.random.default_rng(0)
    found = np.array([estimate_quantile(rng.random(400), 0.1) for _ in range(400)])
    # of n uniform numbers: variance q (1 - q) / n at a density of 1
    expected = (0.1 * 0.9 / 400) ** 0.5
    assert found[:, 0].std() == pytest.approx(expected, rel=0.1)
    assert found[:, 1].mean() == pytest.approx(expected, rel=0.05)
    assert estimate_quantile([3.0], 0.1) == (3.0, 0.0)


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


def test_interval_equals_scipys_bootstrap_at_expanded_percentiles() -> None:
    values = np.random.default_rng(0).gamma(4.0, size=60)
    got = compute_median_spread(values, np.random.default_rng(1))
    # Student's t with 59 degrees of freedom instead of the normal, sqrt(60 / 59) wider
    level = 1.0 - 2.0 * norm.cdf(-t.ppf(0.975, 59) * np.sqrt(60 / 59))
    assert 0.95 < level < 0.96
    other = bootstrap(
        (values,), np.median, n_resamples=4000, method="percentile", rng=2, confidence_level=level
    ).confidence_interval
    assert got.kind == "interval"
    assert got.median == np.median(values)
    assert (got.low, got.high) == pytest.approx((other.low, other.high), rel=0.03)


@pytest.mark.parametrize("last", [2, 1], ids=["whole", "cut short"])
def test_interval_of_groups_equals_a_bootstrap_written_out(last: int) -> None:
    """Groups drawn, then values within each, one by one; the last group may be smaller."""
    rng = np.random.default_rng(0)
    groups = [0] * 2 + [1] * 2 + [n for n in range(2, 14) for _ in range(2)] + [14] * last
    values = 1.0 + 0.02 * rng.normal(size=15)[groups] + 0.01 * rng.normal(size=len(groups))
    got = compute_median_spread(values, rng, groups=groups)
    held = [values[np.asarray(groups) == group] for group in range(15)]
    medians = []
    for _ in range(6000):
        drawn = [held[index] for index in rng.integers(15, size=15)]
        medians.append(np.median(np.concatenate([rng.choice(part, len(part)) for part in drawn])))
    tail = norm.cdf(-t.ppf(0.975, 14) * np.sqrt(15 / 14))
    expected = np.quantile(medians, [tail, 1.0 - tail])
    assert (got.low, got.high) == pytest.approx(tuple(expected), abs=2e-3)
    alone = compute_median_spread(values, np.random.default_rng(1))
    assert alone.half_width < 0.9 * got.half_width


def test_few_independent_values_have_a_range() -> None:
    nine = [4.0, 1.0, 3.0, 2.0, 9.0, 5.0, 6.0, 8.0, 7.0]
    got = compute_median_spread(nine, np.random.default_rng(0))
    assert (got.median, got.low, got.high, got.kind) == (5.0, 1.0, 9.0, "range")
    assert compute_median_spread([*nine, 10.0], np.random.default_rng(0)).kind == "interval"
    # eighteen rounds of nine instances are nine
    pairs = [group for group in range(9) for _ in range(2)]
    got = compute_median_spread(np.arange(18.0), np.random.default_rng(0), groups=pairs)
    assert (got.low, got.high, got.kind) == (0.0, 17.0, "range")
    one = compute_median_spread([2.0], np.random.default_rng(0))
    assert (one.median, one.low, one.high) == (2.0, 2.0, 2.0)


def coverage(
    fake: FakeRuntime, repeats: int, *, precision: float = 0.02, budget: float = 60.0
) -> tuple[float, float]:
    """Returns the shares of runs whose intervals hold the ratio and the time that are so."""
    held = np.zeros(2)
    for seed in range(repeats):
        fake.rng = np.random.default_rng(seed)
        options = LatencyOptions(budget=budget)
        found = measure_latency(FILES, options, precision=precision, runtime="fake", seed=seed)["b"]
        assert found.spread == "interval"
        held += (found.ratio_low <= 2.0 <= found.ratio_high, found.low_ms <= 1.0 <= found.high_ms)
    return tuple(held / repeats)


@pytest.mark.parametrize(
    "spread", [0.0, *(pytest.param(spread, marks=pytest.mark.slow) for spread in (0.01, 0.02))]
)
def test_intervals_hold_what_is_so(fake: FakeRuntime, spread: float) -> None:
    """The whole loop with its default options: blocks, instances, and when it stops."""
    fake.spread, fake.noise = spread, 0.02
    assert min(coverage(fake, 120)) >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.005, pytest.param(0.1, marks=pytest.mark.matrix)])
@pytest.mark.parametrize("spread", [pytest.param(0.0, marks=pytest.mark.matrix), 0.02])
def test_intervals_hold_what_is_so_in_long(fake: FakeRuntime, spread: float, noise: float) -> None:
    fake.spread, fake.noise = spread, noise
    assert min(coverage(fake, 300)) >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.02])
@pytest.mark.parametrize(
    "options",
    [pytest.param({"precision": 0.01}, marks=pytest.mark.matrix), {"budget": 1.1}],
    ids=["stops late", "cut short"],
)
def test_intervals_hold_wherever_the_loop_stops(
    fake: FakeRuntime, spread: float, options: dict[str, float]
) -> None:
    fake.spread, fake.noise = spread, 0.05
    assert min(coverage(fake, 300, **options)) >= 0.94


def test_a_short_run_gives_a_range_and_says_so(fake: FakeRuntime) -> None:
    """A budget for some rounds: fewer than ten instances, whatever the number of rounds."""
    fake.spread = 0.02
    found = measure_latency(FILES, LatencyOptions(budget=0.5), runtime="fake")["b"]
    assert 10 <= found.rounds < 20
    assert found.instances < 10
    assert (found.spread, found.stopped_by) == ("range", "budget")
    assert found.low_ms < found.median_ms < found.high_ms
    assert found.to_json()["spread"] == "range"
    # records of older versions do not say
    stored = {key: value for key, value in found.to_json().items() if key != "spread"}
    assert Latency.from_json(stored).spread == "interval"
    shown = replace(found, median_ms=0.25, low_ms=0.2, high_ms=0.3)
    assert formatting.format_latency(shown) == "250 us [range 200 to 300]"
    assert formatting.format_latency(replace(shown, spread="interval")) == "250 us [200, 300]"
    assert formatting.format_speedup(found) == (
        f"{found.ratio:.2f}x [range {found.ratio_low:.2f} to {found.ratio_high:.2f}]"
    )
    assert formatting.describe_rounds(found) == (
        f"range of {found.rounds} rounds, {found.instances} instances a file: fewer than 10 "
        "instances make no 95 % interval"
    )
