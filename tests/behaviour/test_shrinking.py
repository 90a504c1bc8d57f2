"""`shrink` and `compress`: from a trained model to files whose figures hold."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paretune as pt
from tests.behaviour.conftest import MACS, PARAMS, Command, Digits, accuracy, answers, tree

QUICK = ("--finetune-epochs", 2, "--latency-budget", 1, "--device", "cpu")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_compress_makes_files_whose_figures_hold(
    paretune: Command, model_file: Path, data_file: Path, images: Digits, tmp_path: Path
) -> None:
    words = ("compress", model_file, "--data", data_file, "--channels", "0.5x", "--sparsity", 0.5,
             "--formats", "float32,int8", *QUICK, "--out", "r")  # fmt: skip
    done = paretune(*words)
    assert done.code == 0, done.said
    folder = tmp_path / "r"
    report = read(folder / "report.json")
    rows = {(row["variant"], row["format"]): row for row in report["files"]}
    assert len(rows) == 4
    for row in rows.values():
        path = folder / row["file"]
        assert path.stat().st_size == row["size_bytes"]
        found = accuracy(answers(path, images.x_test), images.y_test)
        assert row["test"]["accuracy"] == pytest.approx(found, abs=0.003)
        assert row["latency"]["low_ms"] <= row["latency"]["median_ms"] <= row["latency"]["high_ms"]
    dense, small = rows["dense", "float32"], rows["pruned", "float32"]
    assert (dense["macs"], dense["params"]) == (MACS, PARAMS)
    assert 0.4 < small["macs"] / MACS <= 0.52
    with (folder / "candidates.csv").open() as lines:
        assert len(list(csv.DictReader(lines))) == 4
    for name in ("report.html", "pareto.png", "log.txt", "plan.json"):
        assert (folder / name).stat().st_size > 0
    # finished: the same command shows what there is, and computes nothing
    before = {
        name: (folder / name).stat().st_mtime_ns for name in tree(folder) if "exports" in name
    }
    again = paretune(*words)
    assert again.code == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before


def test_shrink_to_macs_without_training(
    paretune: Command, model_file: Path, data_file: Path, images: Digits, tmp_path: Path
) -> None:
    done = paretune("shrink", model_file, "--data", data_file, "--macs", "0.5x", "--no-train",
                    "--formats", "float32", "--latency-budget", 1, "--repair", 256,
                    "--device", "cpu")  # fmt: skip
    assert done.code == 0, done.said
    folder = tmp_path / "runs" / "shrink-digits_cnn"
    (shipped,) = (folder / "ship").glob("*.tflite")
    outcome = read(folder / "outcome.json")
    assert outcome["met"] is True
    assert "Goal met" in done.out
    rows = {row["file"].rpartition("/")[2]: row for row in read(folder / "report.json")["files"]}
    row = next(row for row in rows.values() if row["variant"] == "pruned")
    assert row["macs"] <= 0.5 * MACS
    assert accuracy(answers(shipped, images.x_test), images.y_test) == pytest.approx(
        row["test"]["accuracy"], abs=0.003
    )


def test_shrink_to_a_size_with_a_limit_on_the_drop(
    model_file: Path, images: Digits, tmp_path: Path
) -> None:
    small = pt.shrink(
        model_file, images.x, images.y, test=(images.x_test, images.y_test), size=0.5,
        max_drop=60.0, formats=("float32", "int8"), finetune_epochs=1, latency_budget=1.0,
        repair=256, out=tmp_path / "r",
    )  # fmt: skip
    assert small.met
    assert small.file is not None
    report = read(tmp_path / "r" / "report.json")
    dense = next(row for row in report["files"] if row["id"] == "digits_cnn.float32")
    assert small.file.stat().st_size <= 0.5 * dense["size_bytes"]
    assert "test accuracy: " in str(small)


def test_a_target_out_of_reach_leaves_nothing(
    paretune: Command, model_file: Path, data_file: Path, tmp_path: Path
) -> None:
    words = ("shrink", model_file, "--data", data_file, "--no-train", "--formats", "float32",
             "--device", "cpu", "--channel-exclude", "second,inner")  # fmt: skip
    refused = paretune(*words, "--macs", "0.01x", "--out", "r")
    assert refused.code == 2
    assert "asked for 1.49 k MACs" in refused.said
    assert tree(tmp_path) == set()


def test_a_budget_of_seconds_is_kept_by_what_is_left_out(
    model_file: Path, images: Digits, tmp_path: Path
) -> None:
    made = pt.shrink(
        model_file, images.x, images.y, macs=0.5, formats=("float32",), budget=1.0,
        latency_budget=0.5, repair=128, out=tmp_path / "r",
    )  # fmt: skip
    assert made.file.exists()
    nets = [read(path) for path in (tmp_path / "r" / "nets").glob("*.json")]
    assert nets
    assert {net["epochs"] for net in nets} == {0}  # no time was left to fine-tune


def test_a_recipe_repeats_a_shrink(model_file: Path, images: Digits, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "macs": 0.6, "formats": ("float32",), "latency_budget": 0.5, "repair": 128,
    }  # fmt: skip
    first = pt.shrink(model_file, images.x, images.y, no_train=True, out=tmp_path / "a", **options)
    first.save_recipe(tmp_path / "mine.toml")
    second = pt.shrink(
        model_file, images.x, images.y, recipe=tmp_path / "mine.toml", out=tmp_path / "b"
    )
    assert first.model is not None
    assert second.model is not None
    for one, other in zip(first.model.weights, second.model.weights, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-5)


def test_examples_without_labels_are_enough(
    paretune: Command, model_file: Path, images: Digits, tmp_path: Path
) -> None:
    np.savez(tmp_path / "photos.npz", x_train=images.x[:400])
    done = paretune("shrink", model_file, "--data", "photos.npz", "--task", "unlabelled", "--macs",
                    "0.7x", "--no-train", "--formats", "float32", "--latency-budget", 0.5,
                    "--normalize", "none", "--out", "r")  # fmt: skip
    assert done.code == 0, done.said
    (shipped,) = (tmp_path / "r" / "ship").glob("*.tflite")
    assert accuracy(answers(shipped, images.x_test), images.y_test) > 0.5


def test_options_of_toml_and_flags_are_one_plan(
    paretune: Command, model_file: Path, data_file: Path, tmp_path: Path
) -> None:
    flags = ("--sparsity", 0.5, "--finetune-epochs", 0, "--formats", "float32",
             "--latency-budget", 0.5, "--repair", 0)  # fmt: skip
    (tmp_path / "plan.toml").write_text(
        "repair = 0\n[weights]\nsparsity = 0.25\n[finetune]\nepochs = 0\n"
        '[export]\nformats = ["float32"]\n[latency]\nbudget = 0.5\n'
    )
    common = ("compress", model_file, "--data", data_file, "--device", "cpu")
    # a flag goes over the file
    for words in (
        (*flags, "--out", "a"),
        ("--plan", "plan.toml", "--sparsity", 0.5, "--out", "b"),
    ):
        done = paretune(*common, *words)
        assert done.code == 0, done.said
    plans = [read(tmp_path / name / "plan.json")["plan"] for name in "ab"]
    for plan in plans:
        del plan["out"]
    assert plans[0] == plans[1]
    assert plans[0]["weights"]["sparsity"] == 0.5
