"""Output folders of `shrink`: what a refused, repeated, changed or killed call finds there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress.core.errors import FeasibleError, InputError
from compress.data import Dataset
from compress.prune.channels.selection import latency_measurement
from compress.shrinking.compression import compress_model
from compress.shrinking.shrink import ShrinkResult, shrink

QUICK: dict[str, Any] = {
    "no_train": True, "round_to": 2, "latency_budget": 0.3, "seed": 1, "min_kept": 0.2,
    "channel_tries": 0, "formats": ["float32"], "repair": 64,
}  # fmt: skip


class _Killed(Exception):
    pass


@pytest.mark.slow
def test_a_refused_goal_leaves_nothing_and_may_be_corrected(
    trained: Any, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # times of models need not be precise to refuse a thousandth of them
    monkeypatch.setattr(latency_measurement, "LOCAL_SECONDS", 2.0)
    # and no layer is timed, which takes longer
    monkeypatch.setattr(latency_measurement, "measure_calls", None)
    out = tmp_path / "runs" / "out"
    for goal in ({"macs": 0.001}, {"latency": 0.001}, {"size": "1B"}):
        with pytest.raises(FeasibleError):
            shrink(trained, digits, **goal, out=out, **QUICK)
        assert not (tmp_path / "runs").exists()
    out.mkdir(parents=True)
    with pytest.raises(FeasibleError):
        shrink(trained, digits, size="1B", out=out, **QUICK)
    assert not any(out.iterdir())
    assert shrink(trained, digits, macs=0.6, out=out, **QUICK).folder == out
    # results of others stay, whatever is asked for
    before = sorted(out.rglob("*"))
    with pytest.raises(InputError, match="belongs to another run.* Choose another output folder."):
        shrink(trained, digits, macs=0.001, out=out, **QUICK)
    assert sorted(out.rglob("*")) == before


def test_a_refused_compression_leaves_nothing(
    trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(InputError):
        compress_model(
            trained,
            digits,
            channels="0.001x",
            finetune_epochs=0,
            out=tmp_path / "out",
            latency_budget=0.3,
        )
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_default_folders_are_numbered(
    trained: Any, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def call(macs: float) -> ShrinkResult:
        return shrink(trained, digits, macs=macs, **QUICK)

    first, other = call(0.6), call(0.7)
    assert first.folder == Path("runs/shrink-net")
    assert other.folder == Path("runs/shrink-net-2")
    # finished: what is stored is shown
    times = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("ship/*.keras")}
    assert call(0.6).folder == first.folder
    assert call(0.7).folder == other.folder
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("ship/*.keras")} == times
    # files of the user's own are left alone
    Path("runs/shrink-net-3").mkdir()
    Path("runs/shrink-net-3/mine.txt").write_text("mine")

    def killed(text: str, share: float) -> None:
        if Path("runs/shrink-net-4/nets").is_dir():
            raise _Killed

    with pytest.raises(_Killed):
        shrink(trained, digits, macs=0.8, on_progress=killed, **QUICK)
    assert not Path("runs/shrink-net-4/outcome.json").exists()
    # unfinished: the same call resumes
    assert call(0.8).folder == Path("runs/shrink-net-4")
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "shrink-net", "shrink-net-2", "shrink-net-3", "shrink-net-4",
    ]  # fmt: skip


@pytest.mark.parametrize("left", [pytest.param(0.0, marks=pytest.mark.slow), 600.0])
def test_a_budget_is_kept_over_a_restart(
    trained: Any, digits: Dataset, tmp_path: Path, left: float
) -> None:
    out, budget = tmp_path / "out", 601.0
    how = {**QUICK, "no_train": False, "finetune_epochs": 2, "batch_size": 64, "budget": budget}

    def killed(text: str, share: float) -> None:
        if (out / "spent.json").exists():
            raise _Killed

    with pytest.raises(_Killed):
        shrink(trained, digits, macs=0.6, out=out, on_progress=killed, **how)
    stored = json.loads((out / "spent.json").read_text())
    assert stored["seconds"] >= 1.0
    # as if the killed process had worked for longer
    (out / "spent.json").write_text(json.dumps({**stored, "seconds": budget - left}))

    texts: list[str] = []
    if left:
        with pytest.raises(_Killed):
            shrink(trained, digits, macs=0.6, out=out, **how,
                   on_progress=lambda text, share: _until_trained(text, texts))  # fmt: skip
        assert any("fine-tuning" in text for text in texts)
        return

    def noted(text: str, share: float) -> None:
        texts.append(text)

    small = shrink(trained, digits, macs=0.6, out=out, on_progress=noted, **how)
    assert not any("fine-tuning" in text for text in texts)
    (record,) = small.report.compressed
    assert record.finetuned == 0
    assert json.loads((out / "spent.json").read_text())["seconds"] >= budget


def _until_trained(text: str, texts: list[str]) -> None:
    texts.append(text)
    if "fine-tuning" in text:
        raise _Killed
