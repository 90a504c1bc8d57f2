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
from compress.core.pareto import ParetoFront, measure_hypervolume
from compress.plan.fields import from_flat
from search.plan import SearchPlan
from search.study.directory import Candidate, SearchFolder
from search.study.front import GROWTH, Budget, Convergence, compute_losses, sort_by_end

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


def test_a_target_needs_all_of_its_conditions(folder: SearchFolder) -> None:
    target = {"target": "accuracy>=0.92,macs<=2e6"}
    near = [candidate(0, 0.93, 3_000_000), candidate(1, 0.91, 10),
            candidate(2, 0.93, 10, "stopped")]  # fmt: skip
    assert over(folder, near, **target) == ""
    met = [*near, candidate(3, 0.92, 2_000_000)]
    assert over(folder, met, **target) == "candidate 0003 meets accuracy>=0.92,macs<=2M"


def test_convergence_by_hypervolume(folder: SearchFolder) -> None:
    done = [candidate(0, 0.5, 1000), candidate(1, 0.6, 1000)]  # grows
    done += [candidate(2, 0.55, 2000), candidate(3, 0.2, 900, "stopped"),
             candidate(4, 0.1, 500, "rejected")]  # fmt: skip
    # dominated, stopped; the rejected one is no trial
    assert stale(done) == 2
    assert over(folder, done, converged_after=3) == ""
    text = over(folder, done, converged_after=2)
    assert text == "converged: the front has not grown for 2 trials"
    # cheaper than all: the front grows again
    assert stale([*done, candidate(5, 0.4, 100)]) == 0
    assert stale(done[:1]) == 0


def stale(done: list[Candidate]) -> int:
    return Convergence(OBJECTIVES).count_stale_trials(done)


def by_definition(candidates: list[Candidate]) -> int:
    """How many trials ended since the front grew: every hypervolume of all rows, anew."""
    trials, _ = sort_by_end(candidates)
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
    return len(rows) - last


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5), st.integers(1, 6), st.integers(0, 9), st.booleans(),
            st.sampled_from(["complete", "complete", "stopped", "rejected", "failed"]),
        ),
        max_size=14,
    ),
    st.sampled_from([0, 1, 2]),
)  # fmt: skip
@settings(deadline=None)
def test_convergence_as_trials_end_equals_the_definition(
    made: list[tuple[int, int, int, bool, str]], untimed: int
) -> None:
    """In any order, of whatever kind, with times or without: as if all were looked at again."""
    convergence = Convergence(OBJECTIVES)
    done: list[Candidate] = []
    for number, (accuracy, cost, ended, looked, state) in enumerate(made):
        item = candidate(number, accuracy / 5, 10**cost, state)
        known = untimed == 0 or (untimed == 1 and number > 3)
        done.append(replace(item, ended=float(ended) if known else None))
        if looked:
            assert convergence.count_stale_trials(done) == by_definition(done)


def test_a_job_does_not_cost_more_the_longer_a_search_is(
    folder: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted: rows that the front is shown, and rows of it that each is held against."""
    shown, compared = 0, 0
    add = ParetoFront.add

    def counting(self: ParetoFront, row: object) -> None:
        nonlocal shown, compared
        shown, compared = shown + 1, compared + len(self.rows)
        add(self, row)  # type: ignore[arg-type]

    monkeypatch.setattr(ParetoFront, "add", counting)
    budget = Budget(folder, from_flat(SearchPlan, {"trials": 9999, "converged_after": 9999}))
    rng = np.random.default_rng(0)
    extremes = [candidate(0, 0.0, 10**9), candidate(1, 1.0, 10**8), candidate(2, 0.1, 1)]
    done = [replace(item, ended=float(number)) for number, item in enumerate(extremes)]
    for number in range(3, 3000):
        assert budget.find_stop_reason(done) == ""
        item = candidate(number, rng.uniform(0.0, 0.99), int(10 ** rng.uniform(1, 8)))
        done.append(replace(item, ended=float(number)))
    # each once, and each against the front, which is much smaller than the history
    assert shown == 2999
    assert compared < 30 * shown
    # a new best: all again, once
    done.append(replace(candidate(3000, 1.5, 1), ended=3000.0))
    budget.find_stop_reason(done)
    budget.find_stop_reason(done)
    assert shown == 2999 + 3001


def test_trials_with_new_extremes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random trials: a best or a worst comes ever more rarely, so the work stays linear."""
    shown = 0
    add = ParetoFront.add

    def counting(self: ParetoFront, row: object) -> None:
        nonlocal shown
        shown += 1
        add(self, row)  # type: ignore[arg-type]

    monkeypatch.setattr(ParetoFront, "add", counting)
    rng, done, convergence = np.random.default_rng(1), [], Convergence(OBJECTIVES)
    for number in range(1500):
        item = candidate(number, rng.uniform(), int(10 ** rng.uniform(3, 8)))
        done.append(replace(item, ended=float(number)))
        convergence.count_stale_trials(done)
    # 4 / n is how likely the n-th is an extreme: 5 looks a trial are expected, not 750
    assert shown < 12 * 1500


@pytest.mark.parametrize("text", ['{"seconds": "x"}', '{"seconds": [1]}', "{}", "[]", "{"])
def test_seconds_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "search_seconds.json").write_text(text)
    with pytest.raises(InputError, match=r"search_seconds\.json'"):
        Budget(SearchFolder(tmp_path), SearchPlan())
