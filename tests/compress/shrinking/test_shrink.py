"""`shrink` from a model to ship/, on digits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.core.errors import FeasibleError, InputError
from compress.data import Dataset
from compress.measure.runtimes import prepare_session
from compress.model.io import load_model
from compress.report import load_report
from compress.shrinking import variations
from compress.shrinking.shrink import ShrinkResult, shrink

QUICK: dict[str, Any] = {
    "no_train": True, "round_to": 2, "latency_budget": 0.5, "seed": 1, "min_kept": 0.2,
    "channel_tries": 2, "repair": 128,
}  # fmt: skip
Build = Callable[..., Any]


@pytest.fixture(scope="module")
def halved(trained: Any, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> ShrinkResult:
    place = tmp_path_factory.mktemp("halved") / "out"
    return shrink(trained, digits, macs=0.5, out=place, **QUICK)


@pytest.mark.matrix
def test_a_goal_of_macs_is_met_without_training(halved: ShrinkResult, trained: Any) -> None:
    from compress.measure import count_macs

    assert halved.met
    before, after = count_macs(trained).macs, count_macs(halved.model).macs
    assert 0.45 * before < after <= 0.5 * before
    assert set(halved.files) == {"float32", "int8"}
    for row in halved.report.rows:
        assert row.artifact.val
        assert row.latency is not None
    shown = str(halved)
    assert "Goal met: MACs 0.5x" in shown
    assert str(halved.file) in shown.replace("\n", "")


@pytest.mark.slow
def test_the_file_to_ship_is_chosen_by_validation_data(halved: ShrinkResult) -> None:
    files = [row.artifact for row in halved.report.rows if row.artifact.variant == "pruned"]
    best = max(item.val["accuracy"] for item in files)
    chosen = next(item for item in files if item.id == halved.outcome.chosen)
    assert chosen.val["accuracy"] >= best - 0.005
    page = (halved.folder / "report.html").read_text()
    assert "Goal met" in page
    assert "Chosen for the goal" in page
    stored = json.loads((halved.folder / "report.json").read_text())
    assert stored["goal"]["chosen"] == chosen.id


def test_the_verdict_is_of_test_data_and_the_same_everywhere(
    halved: ShrinkResult, digits: Dataset
) -> None:
    def right(file: Path) -> Any:
        session = prepare_session(file)
        found = []
        for row, label in zip(digits.inputs("test"), digits.test.y, strict=True):
            session.set_inputs([row[None]])
            session.invoke()
            found.append(session.results()[0][0].argmax() == label)
        return np.array(found)

    before = right(halved.folder / "exports" / "net.float32.tflite")
    after = right(halved.file)
    verdict = halved.outcome.verdict
    assert verdict is not None
    assert (verdict.before, verdict.after) == (before.mean(), after.mean())
    lost, won, count = (before & ~after).sum(), (after & ~before).sum(), len(before)
    middle = (won - lost) / (count + 2)
    half = 1.959964 * np.sqrt(((won + lost + 2) / (count + 2) - middle**2) / (count + 2))
    assert (verdict.low, verdict.high) == pytest.approx((middle - half, middle + half))
    line = verdict.line
    assert line in halved.outcome.lines
    assert line in " ".join(str(halved).split())
    assert f"- {line}" in (halved.file.parent / "README.md").read_text()
    assert line in unescape((halved.folder / "report.html").read_text())
    assert line in json.loads((halved.folder / "report.json").read_text())["goal"]["lines"]


def told_by_feeding(result: ShrinkResult, data: Dataset) -> tuple[list[float], list[float], str]:
    """Returns what feed.py prints, what the file answers when we feed it, and the label."""
    ran = subprocess.run(
        [sys.executable, "feed.py"],
        cwd=result.file.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    session = prepare_session(result.file)
    session.set_inputs([data.preprocess(data.val.x[:1])])
    session.invoke()
    (wanted,) = session.results()
    numbers = ran.stdout.partition("[")[2].partition("]")[0]
    label = data.class_names[int(wanted[0].argmax())]
    assert ran.stdout.rstrip().endswith(f"= {label}")
    return [float(number) for number in numbers.split()], wanted[0].tolist(), label


def test_the_shipped_script_runs_the_file_alone(halved: ShrinkResult, digits: Dataset) -> None:
    made, wanted, _ = told_by_feeding(halved, digits)
    np.testing.assert_allclose(made, wanted, atol=1e-4)
    source = (halved.file.parent / "feed.py").read_text()
    assert {line.split()[1] for line in source.splitlines() if line.startswith("import")} == {
        "sys",
        "numpy",
    }


def test_the_card_tells_the_memory_of_both(halved: ShrinkResult) -> None:
    (row,) = [
        line for line in (halved.file.parent / "README.md").read_text().splitlines()
        if line.startswith("| resident memory")
    ]  # fmt: skip
    assert row.count("MB") == 2


def test_the_record_is_of_the_net_that_is_shipped(halved: ShrinkResult) -> None:
    (record,) = halved.report.compressed
    chosen = next(
        row.artifact for row in halved.report.rows if row.artifact.id == halved.outcome.chosen
    )
    assert record.compressed_name == chosen.id.rpartition(".")[0]
    assert record.val["pruned"]["accuracy"] == max(
        row.artifact.val["accuracy"]
        for row in halved.report.rows
        if row.artifact.id.startswith(record.compressed_name)
    )


def test_the_shipped_net_is_the_keras_model(halved: ShrinkResult, digits: Dataset) -> None:
    (kept,) = halved.file.parent.glob("*.keras")
    x = digits.preprocess(digits.val.x[:8])
    np.testing.assert_allclose(
        load_model(kept)(x, training=False), halved.model(x, training=False), atol=1e-6
    )
    card = (halved.file.parent / "README.md").read_text()
    for text in (
        'license: "unknown"',
        "Latency is measured: LiteRT",
        "repaired on 128",
        "| MACs |",
    ):
        assert text in card


def test_a_copy_of_what_is_shipped(halved: ShrinkResult, tmp_path: Path) -> None:
    file = halved.save(tmp_path / "product")
    assert file.read_bytes() == halved.file.read_bytes()
    assert {path.name for path in file.parent.iterdir()} == {
        path.name for path in halved.file.parent.iterdir()
    }
    # a copy onto itself is no loss
    assert halved.save(halved.file.parent) == halved.file
    assert halved.file.stat().st_size > 0


def test_the_same_call_reads_what_was_done(
    halved: ShrinkResult, trained: Any, digits: Dataset
) -> None:

    def written() -> dict[Path, int]:
        places = (halved.folder / "candidates", halved.folder / "exports", halved.file.parent)
        return {path: path.stat().st_mtime_ns for place in places for path in place.iterdir()}

    before = written()
    again = shrink(trained, digits, macs=0.5, out=halved.folder, **QUICK)
    assert again.outcome == halved.outcome
    assert written() == before


class _Killed(Exception):
    pass


STEPS = (
    "compress.shrinking.candidate_builder.write_json",
    "compress.shrinking.candidate_builder.prune_channels",
    "compress.shrinking.ship.save_model",
    "compress.shrinking.final_evaluation.write_json",
    "compress.shrinking.candidate.write_json",
    "compress.shrinking.final_evaluation.evaluate_artifacts",
    "compress.shrinking.final_evaluation.measure_stage",
)


@pytest.mark.parametrize(
    "place",
    [
        STEPS[0],
        *(pytest.param(item, marks=pytest.mark.slow) for item in STEPS[1:4]),
        *(pytest.param(item, marks=pytest.mark.matrix) for item in STEPS[4:]),
    ],
)
def test_killed_at_a_step_and_started_again(
    halved: ShrinkResult,
    trained: Any,
    digits: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise _Killed

    with monkeypatch.context() as patched:
        patched.setattr(place, killed)
        with pytest.raises(_Killed):
            shrink(trained, digits, macs=0.5, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out" / "outcome.json").exists()
    again = shrink(trained, digits, macs=0.5, out=tmp_path / "out", **QUICK)
    # notes name the folder
    assert replace(again.outcome, notes=()) == replace(halved.outcome, notes=())
    for one, two in zip(again.model.get_weights(), halved.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert not list((tmp_path / "out").glob(".ship-*"))


def test_a_goal_out_of_reach_is_refused_before_training(
    trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(FeasibleError, match=r"MACs \(asked for"):
        shrink(trained, digits, macs=0.001, out=tmp_path / "out", **QUICK)


@pytest.mark.slow
def test_a_size_is_met_by_the_file_that_is_shipped(
    trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    result = shrink(
        trained,
        digits,
        size="8KB",
        max_drop=30.0,
        out=tmp_path / "out",
        formats=["float32"],
        **QUICK,
    )
    assert result.met
    # small files come in steps; the whole one has 17 kB
    assert 6500 < result.file.stat().st_size <= 8000


@pytest.mark.slow
def test_memory_is_met_by_the_file_that_is_shipped(
    trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    from compress.measure.footprint import measure_arena_bytes

    result = shrink(
        trained, digits, peak_memory=0.6, out=tmp_path / "out", formats=["float32"], **QUICK
    )
    assert result.met
    dense = measure_arena_bytes(result.folder / "exports" / "net.float32.tflite")
    assert 0.4 * dense < measure_arena_bytes(result.file) <= 0.6 * dense
    assert "| arena |" in (result.file.parent / "README.md").read_text()


@pytest.mark.slow
def test_a_format_that_meets_the_goal_alone_keeps_every_channel(
    trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    result = shrink(trained, digits, size="12KB", out=tmp_path / "out", formats=["int8"], **QUICK)
    assert result.met
    assert result.outcome.chosen == "net.int8"
    assert result.file.stat().st_size <= 12000
    assert "nothing was removed" in (result.file.parent / "README.md").read_text()
    (record,) = result.report.compressed
    assert (record.compressed_name, record.channels, record.finetuned) == ("net", None, 0)
    # integers are stored by scale and zero point: the script's arithmetic is ours
    made, wanted, _ = told_by_feeding(result, digits)
    np.testing.assert_allclose(made, wanted, atol=1e-4)


@pytest.mark.matrix
def test_examples_without_labels_are_enough(trained: Any, digits: Dataset, tmp_path: Path) -> None:
    x = digits.preprocess(digits.train.x)
    result = shrink(trained, x, params=0.6, out=tmp_path / "out", formats=["float32"], **QUICK)
    assert result.met
    assert result.report.main == "agreement"


@pytest.mark.slow
def test_a_net_is_taught_by_the_original(trained: Any, digits: Dataset, tmp_path: Path) -> None:
    quick = {
        **QUICK,
        "no_train": False,
        "finetune_epochs": 3,
        "batch_size": 64,
        "formats": ["float32"],
    }
    result = shrink(trained, digits, macs=0.3, max_drop=3.0, out=tmp_path / "out", **quick)
    (record,) = result.report.compressed
    assert record.finetuned == 3
    assert record.teacher == "net"
    assert "distilled from net" in (result.file.parent / "README.md").read_text()
    assert not (result.folder / "unfinished").exists()


@pytest.mark.slow
def test_a_budget_bounds_it(trained: Any, digits: Dataset, tmp_path: Path) -> None:
    quick = {
        **QUICK,
        "no_train": False,
        "finetune_epochs": 2,
        "batch_size": 64,
        "formats": ["float32"],
    }
    # what the end takes is kept back: of a minute nothing is left for variations
    result = shrink(trained, digits, macs=0.3, out=tmp_path / "out", budget="61s", **quick)
    assert result.met
    (record,) = result.report.compressed
    assert record.finetuned <= 2
    assert not list((tmp_path / "out" / "nets").glob("*try*"))


@pytest.mark.slow
def test_what_a_budget_leaves_goes_into_variations(
    trained: Any, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first ones are random, then TPE samples
    monkeypatch.setattr(variations, "MOST", variations.FIRST + 2)
    quick = {
        **QUICK,
        "no_train": False,
        "finetune_epochs": 1,
        "batch_size": 64,
        "formats": ["float32"],
    }
    result = shrink(trained, digits, macs=0.3, out=tmp_path / "out", budget="150s", **quick)
    assert result.met
    assert any("variation(s) of the recipe" in note for note in result.outcome.notes)
    names = [row.artifact.id for row in result.report.rows]
    assert len([name for name in names if "try" in name]) <= 1


def test_another_goal_does_not_overwrite(
    halved: ShrinkResult, trained: Any, digits: Dataset
) -> None:
    with pytest.raises(InputError, match=r"macs was '0\.5x', now '0\.4x'"):
        shrink(trained, digits, macs=0.4, out=halved.folder, **QUICK)


def test_the_folder_can_be_reported_again(halved: ShrinkResult) -> None:
    report = load_report(halved.folder)
    assert report.sections[0].shipped_id == halved.outcome.chosen
