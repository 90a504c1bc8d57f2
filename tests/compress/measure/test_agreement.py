"""When a file agrees with its Keras model too little to ship unasked."""

from __future__ import annotations

import math

import pytest

from compress.measure.file_agreement import (
    can_ship_by_default,
    describe_low_agreement,
    has_low_agreement,
)
from compress.plugins import TASKS


@pytest.mark.parametrize(
    ("kind", "least"),
    [("multiclass", 0.9), ("tagging", 0.9), ("several", 0.9), ("unlabelled", 0.9),
     ("binary", 0.95), ("multilabel", 0.95), ("masks", 0.95), ("segmentation", 0.95)],
)  # fmt: skip
@pytest.mark.parametrize("checked", [32, 200, 1000])
def test_low_is_what_chance_does_not_explain(kind: str, least: float, checked: int) -> None:
    """Wilson's interval holds all shares whose score test (1.96 standard errors) passes."""
    edge = least - 1.959964 * math.sqrt(least * (1 - least) / checked)
    assert has_low_agreement(kind, edge - 0.001, checked)
    assert not has_low_agreement(kind, edge + 0.001, checked)


@pytest.mark.parametrize("kind", ["regression", "reconstruction", "custom"])
def test_numbers_have_a_plain_threshold(kind: str) -> None:
    assert has_low_agreement(kind, 0.899, 200)
    assert not has_low_agreement(kind, 0.901, 200)
    assert has_low_agreement(kind, -40.0, 200)


def test_what_is_not_known() -> None:
    assert has_low_agreement("multiclass", math.nan, 200)
    assert has_low_agreement("regression", math.nan, 200)
    assert has_low_agreement("several", -3.0, 200)  # R2 of numbers among the outputs
    # nothing was compared, or a plug-in's task is not there
    assert not has_low_agreement("multiclass", 0.0, 0)
    assert has_low_agreement("a.module:Task", 0.5, 200)
    assert not has_low_agreement("a.module:Task", 0.95, 200)


@pytest.mark.parametrize("kind", TASKS.names())
def test_every_task_says_how_far_files_may_disagree(kind: str) -> None:
    assert 0.5 < TASKS[kind].least_agreement <= 1
    assert not has_low_agreement(kind, 1.0, 200)


def test_the_warning_says_what_was_expected() -> None:
    assert describe_low_agreement("m.int8", "multiclass", 0.61, 200) == (
        "warning: m.int8 agrees with the Keras model on only 61.0 % of 200 examples (at least "
        "90 % expected)"
    )
    assert "61.0 % of all decisions on 200 examples (at least 95 % expected)" in (
        describe_low_agreement("m.int8", "masks", 0.61, 200)
    )
    assert "with an R2 of only -3.25 on 1,000 examples (at least 0.90 expected)" in (
        describe_low_agreement("m.int8", "regression", -3.25, 1000)
    )
    assert describe_low_agreement("m.int8", "multiclass", 0.97, 200) == ""


def test_a_format_that_is_asked_for_alone_ships() -> None:
    assert can_ship_by_default("multiclass", 0.2, 200, ("int8",))
    assert not can_ship_by_default("multiclass", 0.2, 200, ("float32", "int8"))
    assert not can_ship_by_default("multiclass", 0.2, 200, ())
    assert can_ship_by_default("multiclass", 0.99, 200, ("float32", "int8"))
