"""Reports of very many trials show some of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.report import SearchReport, importance
from search.report.charts import build_charts, limit_candidates
from search.report.importance import compute_importances
from search.report.search_report import SearchFacts
from search.study.directory import COMPLETE, STOPPED, Candidate


def many(count: int) -> list[Candidate]:
    """Returns candidates whose quality hangs on `width` alone; every second one was stopped."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        width, noise = int(rng.integers(1, 9)), float(rng.random())
        quality = 0.5 + width / 20
        history = tuple({"epoch": epoch, "val": {"accuracy": quality}} for epoch in (1, 2))
        found.append(
            Candidate(
                f"{number:04d}", STOPPED if number % 2 else COMPLETE,
                {"width": width, "noise": noise}, number, macs=1000 * width,
                val={"accuracy": quality}, history=history,
            )
        )  # fmt: skip
    return found


def test_the_front_and_others_at_equal_distances() -> None:
    candidates = many(100)
    kept = [int(item.id) for item in limit_candidates(candidates, {"0003", "0098"}, max_count=10)]
    assert len(kept) == 10
    assert kept == sorted(kept)
    assert {3, 98} <= set(kept)
    others = np.diff([number for number in kept if number not in (3, 98)])
    assert others.min() >= 12
    assert others.max() <= 13
    assert limit_candidates(candidates, set(), max_count=100) == candidates


def test_more_on_the_front_than_lines() -> None:
    candidates = many(20)
    front = {item.id for item in candidates[:15]}
    assert {item.id for item in limit_candidates(candidates, front, max_count=10)} == front


def test_of_very_many_trials_some_tell_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "MAX_TRIALS", 60)
    quality, cost = compute_importances(many(400), ("accuracy", "macs"))
    assert quality.trials == cost.trials == 60
    for found in (quality, cost):
        assert found.shares["width"].value > 0.9
        assert found.shares["noise"].value < 0.05


def test_of_a_thousand_curves_three_hundred_are_drawn(tmp_path: Path) -> None:
    """A cross where a trial was stopped, the front thick, 300 lines and no more."""
    candidates = many(1000)
    report = SearchReport(
        tmp_path, {"plan": {"search": {}}}, {}, (), (), candidates=tuple(candidates),
        front=("0000",),
    )  # fmt: skip
    (chart,) = build_charts(report, SearchFacts(None, 0, None, ()))
    assert chart.id == "curves"
    assert len(chart.traces) == 300
    states = {item.id: item.state for item in candidates}
    for trace in chart.traces:
        stopped = states[trace["meta"]["model"]] == STOPPED
        assert (trace["marker"]["symbol"] == "x") == stopped
        # at its last epoch alone
        assert [size > 0 for size in trace["marker"]["size"]] == [False, True]
    (front,) = [trace for trace in chart.traces if trace["meta"]["model"] == "0000"]
    assert front["line"]["width"] > max(
        trace["line"]["width"] for trace in chart.traces if trace is not front
    )
    assert chart.layout["xaxis"]["dtick"] == 1
