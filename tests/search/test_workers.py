"""Nets of a `shrink` that worker processes train beside each other."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.core.errors import InputError, RunFailed, TrainingDiverged
from compress.data import Dataset
from compress.plan.nesting import from_flat
from compress.plan.shrink import ShrinkPlan
from compress.shrinking.candidate import REPAIRED, TRAINED, Candidate, ShrinkFolder
from compress.shrinking.shrink import ShrinkResult, shrink
from search.engines import MAX_LOST, NODE_LOST, Display
from search.workers import ShrinkJobs, ShrinkTrainers, Workers
from tests.compress.shrinking.conftest import learnt
from tests.search.test_run import paretune

QUICK: dict[str, Any] = {
    "round_to": 2, "latency_budget": 0.5, "seed": 1, "min_kept": 0.2, "channel_tries": 2,
    "finetune_epochs": 2, "size": "0.3x", "threads": 1, "device": "cpu", "repair": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(digits: Dataset, cpu: Any) -> Any:
    return learnt(digits, cpu, (16, 24), epochs=6)


def kept(result: ShrinkResult) -> dict[str, list[Any]]:
    from compress.model.io import load_model

    place = result.folder / "candidates"
    return {net.name: load_model(place / f"{net.name}.keras").get_weights() for net in nets(result)}


def nets(result: ShrinkResult) -> list[Candidate]:
    folder = ShrinkFolder(result.folder)
    return [
        folder.load_candidate(path.stem) for path in sorted(folder.candidate_records.glob("*.json"))
    ]


@pytest.mark.slow
def test_workers_train_what_one_process_trains(
    trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    each = [
        shrink(trained, digits, workers=Workers(count), out=tmp_path / str(count), **QUICK)
        for count in (1, 2)
    ]
    made, others = (kept(result) for result in each)
    assert [net.stage for net in nets(each[1])] == [TRAINED, TRAINED]
    for name, weights in made.items():
        for value, other in zip(weights, others[name], strict=True):
            np.testing.assert_array_equal(value, other)
    log = (each[1].folder / "log.txt").read_text()
    assert log.count("trained by worker") == 2
    assert not (each[1].folder / "unfinished").exists()
    assert not (each[1].folder / ".shared").exists()
    # and again, without anybody: all is there
    again = shrink(trained, digits, out=tmp_path / "2", **QUICK)
    assert again.outcome == each[1].outcome


@pytest.mark.matrix
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_workers_of_a_cluster(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.save(tmp_path / "m.keras")
    words = (
        "--data", "digits", "--size", "0.3x", "--finetune-epochs", 2, "--latency-budget", 0.5,
        "--channel-tries", 2, "--round-to", 2, "--out", tmp_path / "out", "--threads", 1,
    )  # fmt: skip
    on = ("--engine", "ray", "--workers", 2)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    done = paretune("shrink", tmp_path / "m.keras", *words, *on, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "models are trained on a Ray cluster of 1 node(s)" in log
    assert log.count("trained by worker") == 2
    assert {net.stage for net in nets(SimpleNamespace(folder=tmp_path / "out"))} == {TRAINED}  # type: ignore[arg-type]


@pytest.fixture
def case(digits: Dataset, tmp_path: Path) -> Any:
    plan = from_flat(ShrinkPlan, {"macs": "0.5x", "teacher": "t.keras"})
    context = SimpleNamespace(data=digits, on_progress=lambda text, share: None)
    return SimpleNamespace(
        path=tmp_path / "m.keras", plan=plan, context=context,
        teachers=(SimpleNamespace(path=tmp_path / "t.keras"),),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> ShrinkFolder:
    made = ShrinkFolder(tmp_path / "out")
    made.candidate_records.mkdir(parents=True)
    for name, share in (("small", 0.2), ("large", 0.7)):
        write(made, name, share, REPAIRED, 0)
    return made


def write(folder: ShrinkFolder, name: str, share: float, stage: str, epochs: int) -> None:
    from compress.core.atomic_files import write_json

    val = {"float32": {"accuracy": 0.5}}
    net = Candidate(
        name, "float32", ("float32",), {}, {}, 1, 1, share, False, (), 1, stage, val, val,
        epochs=epochs,
    )  # fmt: skip
    write_json(folder.get_record_path(name), net.to_json())


BOTH = {"small": 3, "large": 2}


def test_the_largest_net_first(case: Any, folder: ShrinkFolder) -> None:
    handler = ShrinkJobs(case, folder, BOTH, Display())
    first, second = handler.take_job(), handler.take_job()
    assert first is not None
    assert second is not None
    assert (first["name"], first["epochs"]) == ("large", 2)
    assert (second["name"], second["epochs"]) == ("small", 3)
    assert handler.take_job() is None
    assert first["teachers"] == [str(case.teachers[0].path.resolve())]


def test_why_a_net_was_not_trained(case: Any, folder: ShrinkFolder) -> None:
    handler = ShrinkJobs(case, folder, BOTH, Display())
    large, small = handler.take_job(), handler.take_job()
    assert large is not None
    assert small is not None
    handler.on_done(0, large, {"name": "large", "error": "loss is NaN", "diverged": True})
    handler.on_death(1, small, None, "signal SIGKILL")
    assert handler.take_job() is None
    assert isinstance(handler.errors["large"], TrainingDiverged)
    assert "loss is NaN" in str(handler.errors["large"])
    assert isinstance(handler.errors["small"], RunFailed)
    assert "its worker died (signal SIGKILL)" in str(handler.errors["small"])


def test_a_net_whose_node_was_lost_is_trained_again(case: Any, folder: ShrinkFolder) -> None:
    handler = ShrinkJobs(case, folder, {"small": 3}, Display())
    for _ in range(MAX_LOST - 1):
        job = handler.take_job()
        assert job is not None
        handler.on_death(0, job, None, NODE_LOST)
        assert not handler.errors
    job = handler.take_job()
    assert job is not None
    handler.on_death(0, job, None, NODE_LOST)
    assert handler.take_job() is None
    assert "was not trained" in str(handler.errors["small"])


def test_workers_stand_behind_the_process_itself(case: Any, folder: ShrinkFolder) -> None:
    shown: list[tuple[int, str]] = []

    class Shown(Display):
        def update_worker(self, index: int, text: str, share: float) -> None:
            shown.append((index, text))

    told: list[str] = []
    case.context.on_progress = lambda text, share: told.append(text)
    pool: Any = None
    handler = ShrinkJobs(case, folder, BOTH, ShrinkTrainers(case, folder, pool, 2, Shown()))
    job = handler.take_job()
    assert job is not None
    handler.on_message(0, job, {"kind": "progress", "text": "epoch 1", "share": 0.5})
    write(folder, "large", 0.7, TRAINED, 2)
    handler.on_done(0, job, {"name": "large"})
    assert shown[0] == (1, "epoch 1")
    assert told == ["training 2 net(s)"]
    assert not handler.errors


def test_how_many_and_where() -> None:
    with pytest.raises(InputError, match="workers must be at least 1. Received: 0"):
        Workers(0)
    with pytest.raises(InputError, match="cpus_per_worker must come with the engine of a cluster"):
        Workers(2, cpus_per_worker=4)
    with pytest.raises(InputError, match="ngine"):
        Workers(2, engine="slurm")


def test_a_gpu_of_this_machine_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.workers.count_gpus", lambda device: 1)
    with pytest.raises(
        InputError, match="workers must be of a Ray cluster where models are trained"
    ):
        Workers(2).check(from_flat(ShrinkPlan, {"macs": "0.5x"}))


class _Stream(Dataset):
    pass


def test_data_that_workers_cannot_get(case: Any, folder: ShrinkFolder) -> None:
    workers = Workers(2)
    workers.check(case.plan)
    own = {"output": SimpleNamespace(loss="x")}
    data = case.context.data
    case.context.data = replace(data, compiled=own)
    with (
        pytest.raises(InputError, match="must be evaluated by a task"),
        workers.open_trainers(case, folder, True),
    ):
        pytest.fail("it was refused")
    case.context.data = _Stream(**{name: getattr(data, name) for name in data.__dataclass_fields__})
    with (
        pytest.raises(RunFailed, match="Received: no arrays. Name a file"),
        workers.open_trainers(case, folder, True),
    ):
        pytest.fail("it was refused")
