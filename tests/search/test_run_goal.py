"""A run whose front is shrunk to a goal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.data import load_data
from compress.model.io import load_model
from compress.run.compressed_model import read_example_values
from compress.run.directory import RunFolder
from search import run


@pytest.mark.slow
def test_each_model_of_the_front_gets_the_goal(tmp_path: Path) -> None:
    report = run(
        load_data("digits"),
        space="mlp",
        trials=2,
        epochs=2,
        workers=1,
        formats=["float32"],
        macs=0.5,
        finetune_epochs=0,
        latency_budget=0.5,
        out=tmp_path / "out",
    )
    assert report.front
    for name in report.front:
        dense, small = (
            next(row for row in report.rows if row.artifact.id == f"{stem}.float32")
            for stem in (name, f"{name}-macs0_5x")
        )
        assert 0 < small.artifact.macs <= 0.5 * dense.artifact.macs
        assert small.latency is not None
        assert small.artifact.baseline == dense.artifact.id
        assert (report.folder / small.artifact.file).is_file()
        # files of all models are compared on the same examples
        for row in (dense, small):
            for part, own in (("val", row.artifact.val), ("test", row.artifact.test)):
                values = read_example_values(RunFolder(report.folder), row.artifact.id, part)
                assert values is not None
                assert values.mean() == own["accuracy"]
        record = json.loads((report.folder / "compressed" / f"{name}.json").read_text())
        assert "paretune shrink" in record["command"]
        assert "--macs 0.5x" in record["command"]
        model = load_model(report.folder / "candidates" / f"{name}-macs0_5x.keras")
        assert model.count_params() == small.artifact.params
