"""The picture of a repair holds the numbers of its record."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from compress.reconstruction.report import KEPT, LEFT, REPAIRED, LayerRepair, RepairReport
from compress.report.depth import _errors, depth_svg

LAYERS = (
    LayerRepair("a_name_of_many_letters", "Conv2D", REPAIRED, 0.5, 0.05),
    LayerRepair("second", "Dense", LEFT, reason="no kernel of its own"),
    LayerRepair("third", "Dense", KEPT, 0.25, 0.25),
    LayerRepair("fourth", "Dense", REPAIRED, 0.125, 0.0),
    LayerRepair("whole", "Dense", KEPT, 0.0, 0.0, reason="nothing is broken in front of it"),
)


def test_points_lie_at_the_errors_in_the_order_of_the_layers() -> None:
    axes = Figure().add_subplot()
    _errors(axes, [layer for layer in LAYERS if layer.before])
    drawn = {item.get_label(): np.asarray(item.get_offsets()) for item in axes.collections}
    np.testing.assert_allclose(drawn["before"], [[1, 0.5], [2, 0.25], [3, 0.125]])
    # an error of nothing has no place on a logarithmic axis
    np.testing.assert_allclose(drawn["repaired"], [[1, 0.05], [2, 0.25], [3, 1e-6]])
    np.testing.assert_allclose(drawn["kept as it was"], [[2, 0.25]])
    assert axes.get_yscale() == "log"
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["…of_many_letters", "third", "fourth"]


def test_a_layer_alone_is_no_course() -> None:
    assert depth_svg(RepairReport((*LAYERS[:2], LAYERS[-1]), 100, 20, 1.0), "one") == ""
    picture = depth_svg(RepairReport(LAYERS, 100, 20, 1.0), "all")
    assert picture.startswith("<svg")
    assert 'id="all-' in picture
    assert "fourth" in picture
    assert "whole" not in picture
