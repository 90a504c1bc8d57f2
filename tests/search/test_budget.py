"""When a search is over."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from compress.options import from_flat
from compress.records import Candidate
from compress.runfolder import RunFolder
from search.budget import Budget, since_growth
from search.plan import SearchPlan

OBJECTIVES = ("accuracy", "macs")


def candidate(number: int, accuracy: float, macs: int, state: str = "complete") -> Candidate:
    return Candidate(f"{number:04d}", state, {}, 0, macs=macs, params=1,
                     val={"accuracy": accuracy})  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.claim("run", SearchPlan())
    return made


def over(folder: RunFolder, done: list[Candidate], running: int = 0, **flat: object) -> str:
    return Budget(folder, from_flat(SearchPlan, flat)).over(done, running)


def test_trials_in_hand_count_and_untrained_ones_do_not(folder: RunFolder) -> None:
    done = [candidate(0, 0.5, 10), candidate(1, 0, 10, "rejected"),
            candidate(2, 0.5, 10, "duplicate"), candidate(3, 0.4, 10, "stopped"),
            candidate(4, 0, 10, "failed")]  # fmt: skip
    assert [item.is_trial for item in done] == [True, False, False, True, True]
    assert over(folder, done, trials=5) == ""
    assert over(folder, done, running=2, trials=5) == "5 trials"


def test_time_of_interrupted_runs_counts(folder: RunFolder) -> None:
    plan = from_flat(SearchPlan, {"max_minutes": 1.0})
    with mock.patch("time.monotonic", side_effect=[100.0, 140.0, 140.0]):
        budget = Budget(folder, plan)
        budget.save()
        assert budget.over([]) == ""
    with mock.patch("time.monotonic", side_effect=[1000.0, 1019.0, 1020.0]):
        budget = Budget(folder, plan)
        assert budget.over([]) == ""
        assert budget.over([]) == "1 minutes are over"


def test_a_target_needs_all_of_its_conditions(folder: RunFolder) -> None:
    target = {"target": "accuracy>=0.92,macs<=2e6"}
    near = [candidate(0, 0.93, 3_000_000), candidate(1, 0.91, 10),
            candidate(2, 0.93, 10, "stopped")]  # fmt: skip
    assert over(folder, near, **target) == ""
    met = [*near, candidate(3, 0.92, 2_000_000)]
    assert over(folder, met, **target) == "candidate 0003 meets accuracy>=0.92,macs<=2e6"


def test_convergence_by_hypervolume(folder: RunFolder) -> None:
    done = [candidate(0, 0.5, 1000), candidate(1, 0.6, 1000)]  # grows
    done += [candidate(2, 0.55, 2000), candidate(3, 0.2, 900, "stopped"),
             candidate(4, 0.1, 500, "rejected")]  # fmt: skip
    # dominated, stopped; the rejected one is no trial
    assert since_growth(done, OBJECTIVES) == 2
    assert over(folder, done, converged_after=3) == ""
    text = over(folder, done, converged_after=2)
    assert text == "converged: the front has not grown for 2 trials"
    # cheaper than all: the front grows again
    assert since_growth([*done, candidate(5, 0.4, 100)], OBJECTIVES) == 0
    assert since_growth(done[:1], OBJECTIVES) == 0
