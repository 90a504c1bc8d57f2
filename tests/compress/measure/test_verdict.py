"""Verdicts on test data, and the file that ships: against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from compress.measure.verdict import (
    MET,
    MISSED,
    WITHIN_NOISE,
    FileCandidate,
    MetricLimit,
    Outcome,
    Verdict,
    build_verdict,
    find_worst_state,
    select_cheapest,
    select_file,
)


def right(count: int, wrong: int) -> np.ndarray:  # type: ignore[type-arg]
    """Values of a model that is wrong on the first examples."""
    return np.where(np.arange(count) < wrong, 0.0, 1.0)


def judge(lost: int, count: int, limit: MetricLimit | None) -> Verdict:
    before, after = right(count, 0), right(count, lost)
    return build_verdict(
        "accuracy", float(after.mean()), 1.0, values=after, original=before, examples=count,
        limit=limit,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "count", "state"),
    [
        # of 1,000: -0.2 pp [-0.59, 0.20], -0.5 [-1.0..], -1.1
        (2, 1000, MET),
        (6, 1000, WITHIN_NOISE),
        (10, 1000, WITHIN_NOISE),
        (11, 1000, MISSED),
        # a hundred examples cannot show it, whatever they are
        (0, 100, WITHIN_NOISE),
        (0, 1000, MET),
    ],
)
def test_a_drop_of_a_point(lost: int, count: int, state: str) -> None:
    assert judge(lost, count, MetricLimit(max_drop=0.01)).state == state


def test_the_line_is_before_and_after_interval_and_limit() -> None:
    # 6 lost of 1,000: (1 - 7) / 1002 +- 1.96 sqrt(8 / 1002 - (6 / 1002)^2) / sqrt(1002)
    verdict = judge(6, 1000, MetricLimit(max_drop=0.01))
    middle, half = -6 / 1002, 1.959964 * np.sqrt((8 / 1002 - (6 / 1002) ** 2) / 1002)
    assert (verdict.low, verdict.high) == pytest.approx((middle - half, middle + half))
    assert verdict.line == (
        "test accuracy: 100.00 % -> 99.40 %, -0.60 pp "
        f"[{100 * (middle - half):+.2f}, {100 * (middle + half):+.2f}], limit -1 pp: "
        "met within noise"
    )
    assert judge(6, 1000, None).line.endswith("]")
    assert judge(6, 1000, MetricLimit(floor=0.9)).line.endswith("at least 90.00 %: met")
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_a_floor_is_held_by_the_metrics_own_interval() -> None:
    # Wilson, 940 of 1,000: [0.923, 0.953]
    assert judge(60, 1000, MetricLimit(floor=0.92)).state == MET
    assert judge(60, 1000, MetricLimit(floor=0.93)).state == WITHIN_NOISE
    assert judge(60, 1000, MetricLimit(floor=0.95)).state == MISSED


def test_the_original_itself_loses_nothing() -> None:
    values = right(50, 3)
    verdict = build_verdict(
        "accuracy", 0.94, 0.94, values=values, original=values, examples=50,
        limit=MetricLimit(max_drop=0.0),
    )  # fmt: skip
    assert (verdict.low, verdict.high, verdict.state) == (0.0, 0.0, MET)


def test_without_examples_nothing_is_met_for_sure() -> None:
    for values in (None, right(9, 0)):  # of other data
        verdict = build_verdict(
            "accuracy", 0.9, 0.9, values=values, original=right(10, 0), examples=10,
            limit=MetricLimit(max_drop=0.5),
        )  # fmt: skip
        assert (verdict.low, verdict.state) == (None, WITHIN_NOISE)


def test_errors_have_their_own_unit() -> None:
    verdict = build_verdict(
        "rmse", -2.0, -1.5, values=None, original=None, examples=10,
        limit=MetricLimit(max_drop=1.0),
    )  # fmt: skip
    assert verdict.line == "test rmse: -1.5 -> -2, -0.5, limit -1: met within noise"


def test_the_worst_state_counts() -> None:
    assert find_worst_state([MET, "", WITHIN_NOISE]) == WITHIN_NOISE
    assert find_worst_state([MET, MISSED]) == MISSED
    assert find_worst_state([]) == MET


def test_outcomes_of_older_versions_are_read() -> None:
    old = Outcome.from_json(
        {"goal": "macs 0.5x", "met": False, "chosen": "m.int8", "lines": ["x"], "file": "f"}
    )
    assert (old.title, old.verdict) == ("GOAL MISSED: macs 0.5x", None)
    new = Outcome("g", False, "m", ("x",), "f", (), judge(6, 1000, None), WITHIN_NOISE)
    assert Outcome.from_json(new.to_json()) == new
    assert new.title == "goal met within noise: g"


def test_latencies_within_two_per_cent_are_equal() -> None:
    files = [
        FileCandidate("a", 0.9, {"latency": 1.0, "size": 300.0}),
        FileCandidate("b", 0.9, {"latency": 1.019, "size": 100.0}),
        FileCandidate("c", 0.9, {"latency": 1.021, "size": 50.0}),
    ]
    assert select_cheapest(files).id == "b"
    assert select_cheapest(files[:1]).id == "a"


def test_what_examples_tell_apart_from_the_best_is_not_near() -> None:
    best = FileCandidate("best", 1.0, {"size": 9.0}, right(10_000, 0))
    tie = FileCandidate("tie", 0.9998, {"size": 5.0}, right(10_000, 2))
    worse = FileCandidate("worse", 0.997, {"size": 1.0}, right(10_000, 30))
    assert select_file([best, tie, worse]).id == "tie"
    unknown = FileCandidate("worse", 0.997, {"size": 1.0})
    assert select_file([best, tie, unknown]).id == "worse"  # within half a point
    assert select_file([best, tie, FileCandidate("far", 0.9949, {"size": 1.0})]).id == "tie"
