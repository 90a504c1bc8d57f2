"""What a lost node had in hand runs again elsewhere, and counts once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from compress.plan.nesting import from_flat
from search.engines import MAX_LOST, NODE_LOST, Display
from search.engines.jobs import create_compress_jobs, create_final_jobs
from search.plan import SearchPlan
from search.study import study as studies
from search.study.directory import Candidate, SearchFolder, TrialGivenUp
from tests.search.engines.test_machine_faults import Pool


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    made.claim("run", SearchPlan())
    return made


def lose(pool: Pool, job: dict[str, Any], trial: Any, *, claimed: bool = True) -> None:
    said = {"number": trial.number, "seed": trial.user_attrs["seed"]} if claimed else None
    pool.jobs.on_death(0, job, said, NODE_LOST)


def test_its_trial_runs_again_with_its_choices_and_seed(folder: SearchFolder) -> None:
    pool = Pool(folder, 2)
    first, second = pool.begin(), pool.begin()
    assert first is not None
    assert second is not None
    lose(pool, *first)
    again = pool.begin()
    assert again is not None, "others may run beside it"
    assert again[1].number == 2
    assert again[1].params == first[1].params
    assert again[1].user_attrs["seed"] == first[1].user_attrs["seed"]
    # the node was only out of reach, and its worker is done now
    late = Candidate("0000", "complete", first[1].params, 1, macs=9, params=1,
                     val={"accuracy": 0.9})  # fmt: skip
    with pytest.raises(TrialGivenUp):
        folder.write_candidate(late)
    pool.end(*again)
    pool.end(*second)
    assert pool.begin() is None
    assert sorted(item.id for item in folder.read_candidates()) == ["0001", "0002"]
    assert [trial.state for trial in pool.study.trials] == [
        TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE,
    ]  # fmt: skip


def test_a_record_in_time_counts(folder: SearchFolder) -> None:
    """The node was lost between the record and the message."""
    pool = Pool(folder, 1)
    given = pool.begin()
    assert given is not None
    done = Candidate("0000", "complete", given[1].params, 1, macs=9, params=1,
                     val={"accuracy": 0.5})  # fmt: skip
    folder.write_candidate(done)
    lose(pool, *given)
    assert pool.begin() is None
    assert pool.jobs.candidates == [done]
    assert pool.study.trials[0].values == [0.5, 9.0]


def test_what_takes_nodes_down_fails_in_the_end(folder: SearchFolder) -> None:
    pool = Pool(folder, 1)
    for _ in range(MAX_LOST):
        given = pool.begin()
        assert given is not None
        lose(pool, *given)
    (failed,) = folder.read_candidates()
    assert failed.state == "failed"
    assert f"its node was lost, {MAX_LOST} times" in failed.reason
    assert pool.begin() is None


def test_losses_are_counted_over_interruptions(folder: SearchFolder) -> None:
    pool = Pool(folder, 1)
    for _ in range(MAX_LOST - 1):
        given = pool.begin()
        assert given is not None
        lose(pool, *given)
    assert pool.begin() is not None  # the last try; now the run is killed
    again = Pool(folder, 1)
    studies.close_orphans(again.study, folder, again.plan)
    given = again.begin()
    assert given is not None
    lose(again, *given)
    assert [item.state for item in folder.read_candidates()] == ["failed"]


def test_nodes_that_are_lost_before_they_begin_end_nothing(folder: SearchFolder) -> None:
    pool = Pool(folder, 1)
    for _ in range(10):
        given = pool.begin()
        assert given is not None
        lose(pool, *given, claimed=False)
    assert pool.begin() is not None


@pytest.mark.parametrize("kind", ["final", "compress"])
def test_later_jobs_run_again_too(kind: str, folder: SearchFolder) -> None:
    plan = from_flat(SearchPlan, {"final_epochs": 1, "trials": 9})
    names = ["0001", "0002"]
    jobs = (
        create_final_jobs(folder, plan, names, Display())
        if kind == "final"
        else create_compress_jobs(folder, plan, names, [], Display(), ())
    )
    for _ in range(MAX_LOST - 1):
        job = jobs.take_job()
        assert job is not None
        assert job["name"] == "0002"
        jobs.on_death(0, job, None, NODE_LOST)
        assert jobs.failures == []
        assert jobs.done == 0
    job = jobs.take_job()
    assert job is not None
    jobs.on_death(0, job, None, NODE_LOST)
    assert len(jobs.failures) == 1
    assert f"its worker died ({NODE_LOST})" in jobs.failures[0]
    rest = jobs.take_job()
    assert rest is not None
    assert rest["name"] == "0001"
