"""When a search is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.core.errors import InputError
from compress.core.pareto import measure_hypervolume
from compress.plan.nesting import from_flat
from search.plan import SearchPlan
from search.study.directory import Candidate, SearchFolder
from search.study.front import GROWTH, Budget, compute_losses, measure_progress, sort_by_end

OBJECTIVES = ("accuracy", "macs")


def candidate(number: int, accuracy: float, macs: int, state: str = "complete") -> Candidate:
    return Candidate(f"{number:04d}", state, {}, 0, macs=macs, params=1,
                     val={"accuracy": accuracy})  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    made.claim("run", SearchPlan())
    return made


def over(folder: SearchFolder, done: list[Candidate], running: int = 0, **flat: object) -> str:
    return Budget(folder, from_flat(SearchPlan, flat)).find_stop_reason(done, running)


def test_trials_in_hand_count_and_untrained_ones_do_not(folder: SearchFolder) -> None:
    done = [candidate(0, 0.5, 10), candidate(1, 0, 10, "rejected"),
            candidate(2, 0.5, 10, "duplicate"), candidate(3, 0.4, 10, "stopped"),
            candidate(4, 0, 10, "failed")]  # fmt: skip
    assert [item.is_trial for item in done] == [True, False, False, True, True]
    assert over(folder, done, trials=5) == ""
    assert over(folder, done, running=2, trials=5) == "5 trials"


def test_time_of_interrupted_runs_counts(folder: SearchFolder) -> None:
    plan = from_flat(SearchPlan, {"max_minutes": 1.0})
    with mock.patch("time.monotonic", side_effect=[100.0, 140.0, 140.0]):
        budget = Budget(folder, plan)
        budget.save()
        assert budget.find_stop_reason([]) == ""
    with mock.patch("time.monotonic", side_effect=[1000.0, 1019.0, 1020.0]):
        budget = Budget(folder, plan)
        assert budget.find_stop_reason([]) == ""
        assert budget.find_stop_reason([]) == "1 minutes are over"


def by_definition(candidates: list[Candidate]) -> int:
    """After how many trials the front last grew: every hypervolume of all rows, anew."""
    trials = sort_by_end(candidates)
    rows = [compute_losses(item, OBJECTIVES) for item in trials]
    finished = np.array([row for row in rows if row is not None])
    if len(finished) < 2:
        return 0
    spread = np.ptp(finished, axis=0)
    scaled = (finished - finished.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    last, grown = 0, 0.0
    for number in range(1, len(rows) + 1):
        count = sum(row is not None for row in rows[:number])
        volume = measure_hypervolume(scaled[:count], (1.1, 1.1))
        if volume > grown * (1 + GROWTH):
            last, grown = number, volume
    return last


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.integers(1, 6), st.integers(0, 9),
            st.sampled_from(["complete", "complete", "stopped", "rejected", "failed"]),
        ),
        max_size=14,
    ),
    st.sampled_from([0, 1, 2]),
)  # fmt: skip
@settings(deadline=None)
def test_the_last_growth_equals_the_definition(
    made: list[tuple[int, int, int, str]], untimed: int
) -> None:
    """In any order, of whatever kind, with end times or without."""
    done: list[Candidate] = []
    for number, (accuracy, cost, ended, state) in enumerate(made):
        item = candidate(number, accuracy / 5, 10**cost, state)
        known = untimed == 0 or (untimed == 1 and number > 3)
        done.append(replace(item, ended=float(ended) if known else None))
    progress = measure_progress(done, OBJECTIVES)
    assert (0 if progress is None else progress.last_growth) == by_definition(done)


@pytest.mark.parametrize("text", ['{"seconds": "x"}', '{"seconds": [1]}', "{}", "[]", "{"])
def test_seconds_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "search_seconds.json").write_text(text)
    with pytest.raises(InputError, match=r"search_seconds\.json'"):
        Budget(SearchFolder(tmp_path), SearchPlan())
