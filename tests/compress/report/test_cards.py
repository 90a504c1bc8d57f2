"""The charts of a model hold the numbers of its record."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from compress.reconstruction.report import KEPT, REPAIRED, SKIPPED, LayerRepair, RepairReport
from compress.report.live.page import build_model_charts

LAYERS = (
    LayerRepair("first", "Conv2D", REPAIRED, 0.5, 0.05),
    LayerRepair("second", "Dense", SKIPPED, reason="no kernel of its own"),
    LayerRepair("third", "Dense", KEPT, 0.25, 0.25),
    LayerRepair("fourth", "Dense", REPAIRED, 0.125, 0.0),
    LayerRepair("whole", "Dense", KEPT, 0.0, 0.0, reason="nothing is broken in front of it"),
)


def charts(folder: Path, layers: tuple[LayerRepair, ...]) -> list[Any]:
    repair = RepairReport(layers, 100, 20, 1.0).to_json()
    record = SimpleNamespace(model="m", channels={"repair": repair}, weights=None)
    return [*build_model_charts(SimpleNamespace(folder=folder, compressed=[record]))]


def test_points_lie_at_the_errors_in_the_order_of_the_layers(tmp_path: Path) -> None:
    (chart,) = charts(tmp_path, LAYERS)
    before, after = chart.traces
    assert before["x"] == after["x"] == ["first", "third", "fourth"]
    assert before["y"] == [0.5, 0.25, 0.125]
    # an error of nothing has no place on a logarithmic axis
    assert after["y"] == [0.05, 0.25, 1e-6]
    assert after["marker"]["symbol"] == ["circle", "x", "circle"]
    assert chart.layout["yaxis"]["type"] == "log"


def test_a_layer_alone_is_no_course(tmp_path: Path) -> None:
    assert charts(tmp_path, (*LAYERS[:2], LAYERS[-1])) == []
