"""The comparison of runs by the files that they end with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import optuna
import pytest

from benchmarks import run_front
from benchmarks.peers import front_net
from compress.measure import count_macs
from search.scheduler.forecast import FileResult
from search.scheduler.log import ScheduleLog
from search.scheduler.records import EXPORT, PRUNE, TRIAL, TUNE, SizeResult, Step, StepResult


def test_the_hypervolume_is_a_share_of_the_box() -> None:
    # half of the height from 0.5 to 1, two of the five decades from 10 ms to 0.1 us
    assert run_front.volume([{"accuracy": 0.75, "ms": 0.1}]) == pytest.approx(0.2)
    assert run_front.volume([]) == 0
    assert run_front.volume([{"accuracy": 0.4, "ms": 0.1}]) == 0
    better = [{"accuracy": 0.75, "ms": 0.1}, {"accuracy": 1.0, "ms": 1.0}]
    # above 0.75 one decade counts
    assert run_front.volume(better) == pytest.approx(0.2 + 0.5 * 0.2)


def test_kernels_count_as_everywhere() -> None:
    trial = optuna.trial.FixedTrial({**front_net.baseline, "separable1": True})
    model = front_net.build_net(trial, (28, 28, 1), 10, keras)
    dense = 32 * 10
    kernels = 28 * 28 * 9 * 16 + 28 * 28 * 9 * 16 * 32 + 14 * 14 * (9 * 32 + 32 * 32)
    kernels += 7 * 7 * 9 * 32 * 32
    assert front_net.count_net_macs(model) == kernels + dense
    # the whole count has normalizations and pooling besides, if at all
    assert count_macs(model).macs >= kernels + dense


def test_a_table_gets_dense_layers() -> None:
    trial = optuna.trial.FixedTrial(front_net.baseline)
    model = front_net.build_net(trial, (22,), 5, keras)
    kernels = 22 * 128 + 128 * 128 + 128 * 128 + 128 * 5
    assert front_net.count_net_macs(model) == kernels
    assert model.output_shape == (None, 5)


def test_files_are_those_of_the_report_where_there_is_one(tmp_path: Path) -> None:
    for name in ("files/1.int8.tflite", "run/shrunk/7/exports/7.float32.tflite"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "files" / ".half.tflite").touch()
    assert [path.name for path in run_front.list_files(tmp_path)] == [
        "1.int8.tflite", "7.float32.tflite",
    ]  # fmt: skip
    rows = {"files": [{"file": "shrunk/7/exports/7.float32.tflite"}]}
    (tmp_path / "run" / "report.json").write_text(json.dumps(rows))
    assert [path.name for path in run_front.list_files(tmp_path)] == ["7.float32.tflite"]


def test_every_way_has_a_row() -> None:
    def seed(gain: float) -> dict[str, Any]:
        files = [{"file": "a", "accuracy": 0.7 + gain, "ms": 0.1}]
        return {
            "budget": {"seconds": 300.0, "files": files},
            "hand": {"seconds": 310.0, "files": [{**files[0], "accuracy": 0.6 + gain}]},
            "search": {"seconds": 290.0, "files": []},
        }

    told = run_front.front({"minutes": 5, "seeds": {str(n): seed(n / 100) for n in range(3)}})
    rows = {line.split("|")[1].strip(): line for line in told.splitlines()[2:]}
    assert rows.keys() == {"budget", "hand", "search"}
    # 0.1 of accuracy in a box of 0.5, over two of five decades
    assert "+8.00" in rows["hand"]
    assert "none" in rows["search"]
    assert "72.00 % at 100 us" in rows["budget"]


def test_forecasts_are_shown_beside_their_results(tmp_path: Path) -> None:
    """Model 0001 is dominated: its 10 s, and 7 s of a size that is too slow, lead nowhere."""
    assert run_front.summarize_schedule(tmp_path) == {}
    (tmp_path / "run").mkdir()
    log = ScheduleLog(tmp_path / "run")

    def write(step: Step, seconds: float, *sizes: SizeResult) -> None:
        log.write("begun", step.to_json())
        result = StepResult(step.model or f"000{step.number}", seconds, sizes)
        log.write("ended", {"number": step.number, "at": 1.0, "gain": 0.0, **result.to_json()})

    def size(share: float, quality: float, cost: float) -> SizeResult:
        return SizeResult(share, quality, 1e6 * share, (FileResult("float32", quality, cost),))

    write(Step(0, TRIAL), 20.0, SizeResult(1.0, 0.9, 1e6))
    write(Step(1, TRIAL), 10.0, SizeResult(1.0, 0.7, 1e6))
    write(Step(2, EXPORT, "0000"), 4.0, size(1.0, 0.9, 1.0))
    write(Step(3, PRUNE, "0000"), 5.0, size(0.6, 0.8, 1.0), size(0.2, 0.6, 0.3))
    write(Step(4, TUNE, "0000", 0.2, quality=0.84), 6.0, size(0.2, 0.85, 0.3))
    write(Step(5, TUNE, "0000", 0.6, quality=0.86), 7.0, size(0.6, 0.83, 1.0))
    found = run_front.summarize_schedule(tmp_path)
    assert found == {
        "forecast": [0.84, 0.86], "result": [0.85, 0.83], "seconds": 52.0,
        "useful_seconds": 20.0 + 4 + 5 + 6,
    }  # fmt: skip
    told = run_front.list_forecasts({"seeds": {"0": {"budget": {"schedule": found}}}})
    assert told is not None
    assert "-1.00 pp" in told
    assert "2.00 pp" in told
    assert "35 of 52 s" in told
    assert run_front.list_forecasts({"seeds": {"0": {"budget": {}}}}) is None


def test_a_checkout_that_lacks_a_package_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.txt"
    monkeypatch.setattr(run_front, "run_paretune", lambda *_: None)
    log.write_text("candidate 0001: validation accuracy 0.79\n")
    run_front.spend("before", 300, 0, "digits", tmp_path)
    log.write_text("0001 failed: No module named 'zstandard'\n")
    with pytest.raises(SystemExit, match="lacks a package: No module named 'zstandard'"):
        run_front.spend("before", 300, 0, "digits", tmp_path)
