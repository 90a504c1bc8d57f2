"""The account that a run keeps of its jobs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from compress.core.errors import RunFailed
from compress.core.memory_budget import MemoryBudget
from compress.plan.nesting import from_flat
from search.engines import Display, WorkerRequest, local
from search.engines.jobs import SearchJobs, create_compress_jobs, explain_no_training
from search.pipeline import build_default_folder
from search.plan import SearchPlan
from search.study import study as studies
from search.study.directory import Candidate, SearchFolder
from search.study.study import ask_trial
from tests.search.test_run import paretune


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    made.claim("run", SearchPlan())
    return made


def message(state: str, number: int) -> dict[str, Any]:
    made = Candidate(f"{number:04d}", state, {}, 0, macs=500, params=50, val={"accuracy": 0.5})
    return {"kind": "done", "candidate": made.to_json()}


def test_rejected_trials_do_not_count(folder: SearchFolder) -> None:
    plan = from_flat(SearchPlan, {"trials": 2})
    study = studies.open_study(folder, plan)
    jobs = SearchJobs(folder, plan, study, Display())
    for _ in range(3):
        study.ask()
    first, second = jobs.take_job(), jobs.take_job()
    assert first is not None
    assert second is not None
    assert jobs.take_job() is None, "two of two trials are in hand"
    jobs.on_done(0, first, message("rejected", 0))
    assert jobs.take_job() is not None, "a rejected trial makes room for another"
    jobs.on_done(0, first, message("complete", 1))
    jobs.on_done(0, first, message("failed", 2))
    assert jobs.ended_count == 2
    assert jobs.take_job() is None
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "COMPLETE", "FAIL"]
    with pytest.raises(RunFailed, match="The study has lost candidate 0003, which is finished"):
        jobs.on_done(0, first, message("complete", 3))


def test_rejections_end_somewhere(folder: SearchFolder) -> None:
    plan = from_flat(SearchPlan, {"trials": 1, "max_macs": 1})
    study = studies.open_study(folder, plan)
    jobs = SearchJobs(folder, plan, study, Display())
    given = 0
    while (job := jobs.take_job()) is not None:
        study.ask()
        jobs.on_done(0, job, message("rejected", given))
        given += 1
    assert given == 100
    text = explain_no_training(jobs.candidates, plan)
    assert "All 100 candidates exceed the limits (1 MACs)" in text
    assert "The smallest have 500 MACs" in text
    assert "100 candidates exceeded the limits or repeated others" in jobs.stop_reason


def test_a_dead_worker_is_a_failed_candidate(folder: SearchFolder) -> None:
    plan = from_flat(SearchPlan, {"trials": 1})
    study = studies.open_study(folder, plan)
    jobs = SearchJobs(folder, plan, study, Display())
    job = jobs.take_job()
    assert job is not None
    trial = ask_trial(study, plan)
    trial.suggest_float("x", 0, 1)
    jobs.on_death(0, job, {"number": trial.number, "seed": 3}, "signal SIGSEGV")
    (record,) = folder.read_candidates()
    assert (record.state, record.reason) == ("failed", "its worker died (signal SIGSEGV)")
    assert record.choices == trial.params
    assert study.trials[0].state.name == "FAIL"
    assert jobs.take_job() is None


def test_a_worker_that_dies_after_its_work_loses_nothing(folder: SearchFolder) -> None:
    plan = from_flat(SearchPlan, {"trials": 1})
    study = studies.open_study(folder, plan)
    jobs = SearchJobs(folder, plan, study, Display())
    job = jobs.take_job()
    assert job is not None
    trial = ask_trial(study, plan)
    done = Candidate("0000", "complete", {}, 3, macs=500, params=50, val={"accuracy": 0.5})
    folder.write_candidate(done)
    jobs.on_death(0, job, {"number": trial.number, "seed": 3}, "signal SIGKILL")
    assert folder.read_candidates() == [done]
    assert jobs.candidates == [done]
    assert study.trials[0].values == [0.5, 500.0]


def test_workers_that_cannot_begin_end_the_run(folder: SearchFolder) -> None:
    plan = from_flat(SearchPlan, {"trials": 1})
    jobs = SearchJobs(folder, plan, studies.open_study(folder, plan), Display())
    for _ in range(2):
        job = jobs.take_job()
        assert job is not None
        jobs.on_death(0, job, None, "exit code 1")
    job = jobs.take_job()
    assert job is not None
    with pytest.raises(RunFailed, match="keep dying before they begin a trial"):
        jobs.on_death(0, job, None, "exit code 1")


def test_compression_goes_largest_first_and_collects_failures(folder: SearchFolder) -> None:
    plan = from_flat(SearchPlan, {"sparsity": 0.7, "trials": 9})
    jobs = create_compress_jobs(
        folder, plan, ["0001", "0002", "0003"], [Path("t.keras")], Display(), ()
    )
    given = []
    while (job := jobs.take_job()) is not None:
        given.append(job)
    assert [job["name"] for job in given] == ["0003", "0002", "0001"]
    assert given[0]["command"] == (
        f"paretune compress {folder.get_model_path('0003')} --data digits --sparsity 0.7 "
        "--teacher t.keras"
    )
    jobs.on_done(0, given[0], {"name": "0003", "error": "TrainingDiverged: NaN"})
    jobs.on_death(0, given[1], None, "exit code 1")
    val = {"dense": {"accuracy": 1.0}, "pruned": {"accuracy": 1.0}}
    good = {"name": "0001", "val": val, "finetuned": 12}
    jobs.on_done(0, given[2], good)
    assert jobs.failures == [
        "0003: TrainingDiverged: NaN", "0002: its worker died (exit code 1)",
    ]  # fmt: skip


def test_the_teachers_path_is_never_split(tmp_path: Path) -> None:
    folder, plan = SearchFolder(tmp_path / "a,b"), from_flat(SearchPlan, {"trials": 9})
    teacher = folder.get_model_path("0002")
    jobs = create_compress_jobs(folder, plan, ["0001"], [teacher], Display(), ())
    job = jobs.take_job()
    assert job is not None
    assert job["teachers"] == [str(teacher)]
    words = shlex.split(job["command"])
    text = words[words.index("--teacher") + 1]
    assert from_flat(SearchPlan, {"teacher": text}).distill.teacher.files == (teacher,)


def test_workers_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, gpus, values, expected in (
        (2, 0, {}, (2, 1)),
        (16, 0, {"trials": 100}, (8, 2)),
        (16, 0, {"trials": 3}, (3, 5)),
        (16, 4, {}, (4, 4)),
        (2, 0, {"workers": 5}, (5, 1)),
        (16, 0, {"threads": 3}, (8, 3)),
    ):
        monkeypatch.setattr(local.linux, "count_cores", lambda cores=cores: cores)
        monkeypatch.setattr(local, "count_gpus", lambda device, gpus=gpus: gpus)
        monkeypatch.setattr(MemoryBudget, "measure_free_bytes", lambda self: 10**11)
        crew = local.ENGINE.allocate_workers(WorkerRequest.from_plan(from_flat(SearchPlan, values)))
        assert (crew.count, crew.threads) == expected
        assert crew.gpus == gpus


def test_default_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fashion.npz").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for source, expected in (
        ("digits", "runs/digits-cnn"),
        ("fashion.npz", "runs/fashion-cnn"),
        ("my.module:make", "runs/my.module-make-cnn"),
    ):
        assert build_default_folder(from_flat(SearchPlan, {"data": source})) == expected
    own = from_flat(SearchPlan, {"data": "digits", "space": "tests.search.spaces.own:build"})
    assert build_default_folder(own) == "runs/digits-tests.search.spaces.own-build"


@pytest.mark.slow
def test_data_that_change_are_refused(tmp_path: Path) -> None:
    (tmp_path / "shaky.py").write_text(
        "import numpy as np\n"
        "from compress.data import Dataset, Preprocessing, Split\n"
        "def make():\n"
        "    rng = np.random.default_rng()\n"
        "    def part(n):\n"
        "        return Split(rng.normal(size=(n, 8, 8, 1)).astype('float32'), np.arange(n) % 2)\n"
        "    return Dataset('shaky', part(40), part(10), part(10), ('a', 'b'), Preprocessing())\n"
    )
    done = paretune("search", "--data", "shaky:make", "--trials", 1, "--out", "r", cwd=tmp_path)
    assert done.returncode == 1
    assert "must give the same data each time it is loaded" in done.stderr
    assert RunFailed.exit_code == 1
