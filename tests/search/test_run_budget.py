"""Runs with a time budget: what they leave where they are interrupted and killed."""

from __future__ import annotations

import json
import math
import os
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.core.atomic_files import write_json
from compress.plan.nesting import from_flat, list_forbidden_changes
from compress.report.html import build_title
from search.engines import Display
from search.engines.scheduled_jobs import ScheduledJobs
from search.engines.steps import StepRunner, name_size
from search.pipeline import restore_plan
from search.plan import SearchPlan
from search.report import load_report
from search.scheduler.log import ScheduleLog
from search.scheduler.records import PRUNE, Step
from search.scheduler.scheduler import SHARES, Scheduler
from search.study.directory import COMPLETE, Candidate, SearchFolder
from tests.patience import PATIENCE, wait_for
from tests.search.test_run import paretune, records, start

WORDS = ("run", "--data", "digits", "--space", "mlp", "--epochs", 4, "--workers", 2, "--budget",
         "20m", "--latency-budget", 1, "--out", "r")  # fmt: skip


def steps_of(folder: Path, event: str = "ended") -> list[dict[str, Any]]:
    file = folder / "schedule.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [item for line in lines if (item := json.loads(line))["event"] == event]


def list_trained_further(folder: Path) -> list[str]:
    """Return the candidates that further training made better."""
    begun = {step["number"]: step for step in steps_of(folder, "begun")}
    return [
        item["model"]
        for item in steps_of(folder)
        if begun[item["number"]]["kind"] == "continue" and item["sizes"]
    ]


def check_result(folder: Path) -> dict[str, Any]:
    """Checks a finished run, and returns its report."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    begun = {step["number"]: step for step in steps_of(folder, "begun")}
    # nothing is done twice, but for the export of a model that was trained further
    ended = [(begun[item["number"]], item) for item in steps_of(folder)]
    done = Counter(
        (step["kind"], step["model"], step["share"]) for step, _ in ended if step["kind"] != "trial"
    )
    assert {"export", "continue"} <= {kind for kind, _, _ in done}
    trained_further = {
        step["model"]: (item["sizes"][0]["quality"], math.ceil(item["epochs"]))
        for step, item in ended
        if step["kind"] == "continue" and item["sizes"]
    }
    assert trained_further
    for (kind, model, _), count in done.items():
        assert count <= 1 + (kind == "export" and model in trained_further)
    # what was trained further is what is recorded, even if it was not exported before the end
    for item in report["compressed"]:
        if item["model"] in trained_further:
            (original,) = [
                row for row in report["files"]
                if row["model"] == item["model"]
                and (row["variant"], row["format"]) == ("dense", "float32")
            ]  # fmt: skip
            expected, epochs = trained_further.pop(item["model"])
            candidate = json.loads((folder / "candidates" / f"{item['model']}.json").read_text())
            assert item["dense_epochs"] == len(candidate["history"]) + epochs
            assert original["val"]["accuracy"] == pytest.approx(expected, abs=0.005)  # one image
            assert f"/{item['model']}-continued/" in original["file"]
    assert not trained_further, "no model that was trained further is recorded"
    # every recorded model was exported, and the report tells what the time was spent on
    assert {item["model"] for item in report["compressed"]} <= {model for _, model, _ in done}
    assert len(report["schedule"]) == len(steps_of(folder))
    for row in report["files"]:
        assert (folder / row["file"]).stat().st_size > 0
        assert row["latency"]["median_ms"] > 0
        assert row["test"]["accuracy"] > 0.5
    # any recorded size may ship, so each has its model
    for item in report["compressed"]:
        for name in item["each"]:
            assert (folder / "candidates" / f"{name}.keras").exists()
    shipped = [path for path in (folder / "ship").iterdir() if path.suffix == ".tflite"]
    assert len(shipped) == 1
    assert not list(folder.rglob(".*.tmp"))
    return report


@pytest.mark.slow
def test_killed_interrupted_and_continued(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    process = start(*WORDS, cwd=tmp_path)
    wait_for(lambda: len(steps_of(folder)) >= 8 or process.poll() is not None)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    known, models = steps_of(folder), records(folder)
    files = {path: path.read_bytes() for path in folder.glob("shrunk/*/exports/[!.]*.tflite")}
    assert len(known) >= 8

    # the same command continues; Ctrl-C then leaves the best files so far
    process = start(*WORDS, cwd=tmp_path)
    wait_for(lambda: list_trained_further(folder) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert steps_of(folder)[: len(known)] == known
    assert {name: records(folder)[name] for name in models} == models
    assert {path: path.read_bytes() for path in files} == files
    check_result(folder)
    log = (folder / "log.txt").read_text()
    assert "interrupted: what is finished is recorded" in log
    assert "The workers spent" in log


def test_a_budget_belongs_to_a_whole_run(tmp_path: Path) -> None:
    done = paretune("search", "--data", "digits", "--budget", "1m", cwd=tmp_path)
    assert done.returncode == 2
    assert "budget must be left out in paretune search" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("objectives", "of_trials", "of_files"),
    [
        (None, ("accuracy", "macs"), "latency_ms"),
        ("r2", ("r2", "macs"), "latency_ms"),
        ("accuracy,macs", ("accuracy", "macs"), "macs"),
        ("accuracy,params,macs", ("accuracy", "params", "macs"), "params"),
    ],
)
def test_files_cost_latency_unless_another_cost_is_named(
    objectives: str | None, of_trials: tuple[str, ...], of_files: str, tmp_path: Path
) -> None:
    options = {"space": "mlp", "budget": "10m"}
    plan = from_flat(SearchPlan, options | ({"objectives": objectives} if objectives else {}))
    assert plan.search.resolved_objectives == of_trials
    assert plan.front_cost == of_files
    folder = SearchFolder(tmp_path / "r")
    folder.claim("run", restore_plan(plan, folder))
    # the same cost where the command that goes on names none
    restored_plan = restore_plan(from_flat(SearchPlan, options), folder)
    assert restored_plan.front_cost == of_files
    # what the scheduler is told of a file
    file = tmp_path / "m.tflite"
    file.write_bytes(b"12345")
    cnn, runner = SimpleNamespace(macs=70, params=30), SimpleNamespace(_plan=plan)
    if of_files != "latency_ms":
        costs = StepRunner._measure_costs(runner, None, cnn, {"int8": file}, None)  # type: ignore[arg-type]
        assert costs == {"int8": {"macs": 70.0, "params": 30.0}[of_files]}


@pytest.mark.parametrize(("end", "count"), [(0.0, 1), (math.inf, len(SHARES))])
def test_sizes_are_pruned_while_there_is_time(end: float, count: int) -> None:
    """The first one in any case."""
    builder = SimpleNamespace(
        original_files=SimpleNamespace(first="float32", val={"float32": {}, "int8": {}}),
        counted=SimpleNamespace(macs=100),
        build=lambda name, _, __, formats: (name, formats),
    )
    # what is counted is the same in every format; what is timed is not
    for cost, formats in (("latency_ms", ("float32", "int8")), ("macs", ("float32",))):
        runner = SimpleNamespace(
            _describe=lambda _, built, share, __: {"built": built, "share": share},
            _plan=SimpleNamespace(front_cost=cost),
        )
        sizes = StepRunner._prune(runner, builder, "0003", None, end)  # type: ignore[arg-type]
        assert [size["share"] for size in sizes] == list(SHARES[:count])
        assert sizes[0]["built"] == (name_size("0003", SHARES[0]), formats)


def test_a_pruning_leaves_time_to_fine_tune_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = from_flat(SearchPlan, {"space": "mlp", "budget": "10m"})
    folder = SearchFolder(tmp_path / "r")
    folder.claim("run", plan)
    scheduler = Scheduler(("float32",), 0.1, 10, seconds=600.0)
    jobs = ScheduledJobs(folder, plan, None, Display(), [], scheduler, (), 0.0, lambda: None)
    monkeypatch.setattr(ScheduledJobs, "seconds", 500.0)
    step = Step(1, PRUNE, "0000", seconds=60.0, reserved=20.0)
    monkeypatch.setattr(scheduler, "choose", lambda *_, **__: step)
    job = jobs.take_job()
    assert job is not None
    assert job["training_seconds"] == 600 - 500 - 20


@pytest.mark.parametrize("is_named_first", [True, False])
def test_the_default_cost_may_be_named_when_a_search_goes_on(
    is_named_first: bool, tmp_path: Path
) -> None:
    folder = SearchFolder(tmp_path / "r")
    plans = [from_flat(SearchPlan, {"objectives": names}) for names in ("r2,macs", "r2")]
    first, second = plans if is_named_first else plans[::-1]
    stored = restore_plan(first, folder)
    folder.claim("search", stored)
    assert list_forbidden_changes(stored, restore_plan(second, folder)) == []
    other = restore_plan(from_flat(SearchPlan, {"objectives": "r2,params"}), folder)
    assert len(list_forbidden_changes(stored, other)) == 1


def test_a_continued_run_keeps_the_training_that_fitted(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "r")
    options = {"space": "mlp", "budget": "10m"}
    fitted = {**options, "epochs": 1, "epoch_examples": 640, "optimizers": ("adam",)}
    folder.claim("run", from_flat(SearchPlan, fitted))
    plan = restore_plan(from_flat(SearchPlan, options), folder)
    assert (plan.search.epochs, plan.finetune.epoch_examples) == (1, 640)
    assert plan.search.optimizers == ("adam",)


def test_a_trial_that_the_log_does_not_have_is_learned_once(tmp_path: Path) -> None:
    """Its record was written, and the run was killed before the log was."""
    plan = from_flat(SearchPlan, {"space": "mlp", "budget": "10m"})
    folder = SearchFolder(tmp_path / "r")
    folder.claim("run", plan)
    candidate = Candidate(
        "0000", COMPLETE, {}, 0, macs=1000, val={"accuracy": 0.9}, seconds=3.0,
        history=({"share": 0.25},),
    )  # fmt: skip
    reports: list[str] = []
    for _ in range(3):  # each process reads what those before it left
        scheduler = Scheduler(("float32",), 0.1, 10, 600.0)
        ScheduledJobs(
            folder, plan, None, Display(), [candidate], scheduler, (), -100.0,
            lambda: reports.append("written"),
        )  # fmt: skip
        assert list(scheduler.models) == ["0000"]
        # its time limit ended the training after a quarter of an epoch, of 3 seconds
        assert scheduler.models["0000"].epoch_seconds == 12.0
        assert len(scheduler.ended) == 1
    assert reports == ["written"]  # after the one new step, more than a minute after the start
    assert len(ScheduleLog(folder.path).list_ended()) == 1


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({}, "paretune run: digits, 1 trial"),
        ({"budget": "2m"}, "paretune run: digits, 2 min, 1 trial"),
    ],
)
def test_the_title_tells_the_extent(options: dict[str, Any], title: str, tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "r")
    folder.claim("run", from_flat(SearchPlan, {"space": "mlp", **options}))
    write_json(folder.data, {"source": "digits"})
    folder.write_candidate(
        Candidate("0000", COMPLETE, {}, 0, macs=1000, val={"accuracy": 0.9}, seconds=3.0)
    )
    assert build_title(load_report(folder.path)) == title
