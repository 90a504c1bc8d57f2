"""Regression through the face: no option needed, R2 as a number, a row for each output."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.console import Console

import paretune as pt
from compress.measure import formatting
from search.pipeline import restore_plan
from search.plan import SearchPlan

QUICK: dict[str, Any] = {
    "no_train": True, "formats": ["float32"], "latency_budget": 0.2, "round_to": 2,
    "repair": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any, Any]:
    x = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    return x, (x[:, :1] * 2 + x[:, 1:2] ** 2), np.sin(x[:, 2])


def drawn(what: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(what)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


@pytest.mark.slow
def test_a_search_needs_no_objectives(rows: Any, tmp_path: Path) -> None:
    x, y, _ = rows
    np.savez(tmp_path / "rows.npz", x_train=x, y_train=y)
    words = (
        "search", "--task", "regression", "--data", "rows.npz", "--space", "mlp", "--trials", "1",
        "--epochs", "1", "--workers", "1", "--out", "out",
    )  # fmt: skip

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "paretune", *words], cwd=tmp_path, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    text = run()
    assert "Pareto front: 1 model, validation r2 against macs" in text
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())["plan"]
    assert plan["search"]["objectives"] == ["r2"]
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("candidates/*n"))
    assert f"{record['val']['r2']:.4g}" in text
    assert "%" not in text.partition("front")[2].partition("candidates trained")[0]
    # the same words resume it
    run()


def test_a_stored_metric_is_that_of_a_run_that_is_resumed(tmp_path: Path) -> None:
    from search.study.directory import SearchFolder

    folder = SearchFolder(tmp_path / "out")
    plan = SearchPlan()
    stored = restore_plan(plan, folder)
    assert stored.search.resolved_objectives == ("accuracy", "macs")
    folder.claim("search", _with(stored, ("r2", "macs")))
    assert restore_plan(plan, folder).search.objectives == ("r2", "macs")


def _with(plan: SearchPlan, objectives: tuple[str, ...]) -> SearchPlan:
    from dataclasses import replace

    return replace(plan, search=replace(plan.search, objectives=objectives))


def test_r2_is_a_number() -> None:
    assert formatting.format_metric("r2", 0.98812) == "0.9881"
    assert formatting.format_change("r2", -0.00153) == "-0.00153"
    assert formatting.format_interval("box.r2", (0.9, 0.95)) == "[0.9, 0.95]"
    assert formatting.format_metric("accuracy", 0.98812) == "98.81 %"


def test_metrics_of_the_compiled_model_stand_beside_r2(rows: Any, tmp_path: Path) -> None:
    x, y, _ = rows
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((6,)), layers.Dense(16, activation="relu"),
        layers.Dense(16, activation="relu"), layers.Dense(1),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.fit(x, y, 50, 20, verbose=0)
    small = pt.shrink(model, x, y, macs=0.7, out=tmp_path / "out", **QUICK)
    text = str(small)
    row = next(line for line in text.splitlines() if f" {small.report.rows[0].artifact.id}" in line)
    test = small.report.rows[0].artifact.test
    assert f" {test['r2']:.4g} " in row
    assert "test r2: " in text
    assert " pp" not in text


@pytest.mark.slow
def test_each_output_has_a_row(rows: Any, tmp_path: Path) -> None:
    x, first, second = rows
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(32, activation="relu")(inputs)
    hidden = keras.layers.Dense(32, activation="relu")(hidden)
    heads = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("a", "b")}
    model = keras.Model(inputs, heads)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    labels = {"a": first[:, 0], "b": second}
    model.fit(x, labels, 50, 30, verbose=0)
    small = pt.shrink(model, x, labels, macs=0.7, out=tmp_path / "out", **QUICK)
    text = str(small)
    by_id = {row.artifact.id: row.artifact.test for row in small.report.rows}
    after = by_id[small.outcome.chosen]
    (before,) = (test for name, test in by_id.items() if name != small.outcome.chosen)
    for name in ("a", "b"):
        changes = [
            f"{metric.upper()} {before[f'{name}.{metric}']:.4g} -> {after[f'{name}.{metric}']:.4g}"
            for metric in ("r2", "mae")
        ]
        row = next(line for line in text.splitlines() if line.startswith(f"{name}: "))
        assert row.startswith(f"{name}: {', '.join(changes)}")
    assert "original -&gt; chosen" in (small.folder / "report.html").read_text()
