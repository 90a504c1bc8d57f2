"""`int8-mixed` in a compression, and at the end of the way to a goal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress import compress_model, shrink
from compress.data import Dataset
from tests.compress.shrinking.conftest import learnt

pytest.importorskip("litert_quantizer")


@pytest.fixture(scope="module")
def net(digits: Dataset, cpu: Any) -> Any:
    return learnt(digits, cpu, (12, 24), 16)


@pytest.mark.slow
def test_a_compression_chooses_precisions_and_says_them(
    net: Any, digits: Dataset, tmp_path: Path
) -> None:
    seen: list[str] = []
    result = compress_model(
        net, digits, out=tmp_path / "out", formats=["float32", "int8-mixed"], finetune_epochs=1,
        batch_size=64, sparsity=0.5, latency_budget=0.5,
        on_progress=lambda text, _: seen.append(text),
    )  # fmt: skip
    rows = {row.artifact.id: row.artifact for row in result.report.rows}
    assert set(rows) == {
        "net.float32", "net.int8-mixed", "net-p50.float32", "net-p50.int8-mixed",
    }  # fmt: skip
    layers = rows["net-p50.int8-mixed"].layers
    assert len(layers) == 4
    assert {row["precision"] for row in layers} <= {"int8", "dynamic", "float16"}
    assert all(set(row["losses"]) == {"alone in int8", "alone in dynamic", "alone in float16"}
               for row in layers)  # fmt: skip
    assert any("choosing precisions of net-p50.int8-mixed.tflite" in text for text in seen)
    (record,) = result.report.compressed
    assert any(note.startswith("net-p50: int8-mixed: of ") for note in record.notes)
    page = (result.folder / "report.html").read_text()
    assert "Precision of layers: net-p50.int8-mixed" in page
    # as JSON and back: the page is made anew from it
    stored = json.loads(next((result.folder / "compressed").glob("*.json")).read_text())
    assert stored["artifacts"][-1]["layers"]


@pytest.mark.slow
def test_a_goal_is_met_by_the_best_net_in_mixed_precision_too(
    net: Any, digits: Dataset, tmp_path: Path
) -> None:
    result = shrink(
        net, digits, macs=0.5, no_train=True, formats=["int8", "int8-mixed"], out=tmp_path / "out",
        round_to=2, latency_budget=0.5,
    )  # fmt: skip
    formats = {row.artifact.format for row in result.report.rows}
    assert formats == {"float32", "int8", "int8-mixed"}
