"""What of the plot is cut off, by hand."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from compress.report.plot import (
    cut_failures,
    format_metric_axis,
    get_metric_unit,
    scale_cost_axis,
)


@pytest.mark.parametrize(
    ("heights", "shown", "bottom", "text"),
    [
        # the median is 97, the best 99: the floor is 99 - 12
        ([99, 98, 97, 67, 10], [99, 98], 87, "2 below 87 %"),
        # what is on the front is never cut: 67 - 3
        ([99, 98, 97, 67, 10], [99, 67], 64, "1 below 64 %"),
        ([99, 98, 97, 67, 10], [], 87, "2 below 87 %"),
    ],
)
def test_failures_are_cut_and_the_front_is_not(
    heights: list[float], shown: list[float], bottom: float, text: str
) -> None:
    axes = Figure().add_subplot()
    cut_failures(axes, heights, shown)
    assert axes.get_ylim()[0] == bottom
    assert [item.get_text() for item in axes.texts] == [text]


def test_nothing_is_cut_where_all_are_near() -> None:
    axes = Figure().add_subplot()
    cut_failures(axes, [99, 95, 90], [99])
    assert not axes.texts


def test_a_metric_that_is_no_share_is_cut_in_its_own_unit() -> None:
    axes = Figure().add_subplot()
    # the median is 0.97, the best 0.99: the floor is 0.99 - 0.12
    cut_failures(axes, [0.99, 0.98, 0.97, 0.6, -2.0], [0.99], get_metric_unit("r2"))
    assert axes.get_ylim()[0] == pytest.approx(0.87)
    assert [item.get_text() for item in axes.texts] == ["2 below 0.87"]
    assert get_metric_unit("accuracy") == (100.0, " %")
    assert format_metric_axis("test R2", "r2") == "test R2"
    assert format_metric_axis("test accuracy", "accuracy") == "test accuracy in %"


def test_costs_of_0_are_drawn_on_a_linear_axis() -> None:
    """A model of pooling and activations has no MACs."""
    axes = Figure().add_subplot()
    scale_cost_axis(axes, [0.0, 10.0])
    assert axes.get_xscale() == "linear"
    scale_cost_axis(axes, [1.0, 1000.0])
    assert axes.get_xscale() == "log"
