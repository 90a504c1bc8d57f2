"""Sizes of inputs as they are written: alone, or by the inputs' names."""

from __future__ import annotations

from typing import Any

import pytest

from compress.core.errors import InputError
from compress.plan.bench import BenchPlan, InputShape, unwrap_input_shape
from compress.plan.nesting import build_command_words, from_nested, to_nested

BOTH = {"image": (96, 96, 3), "table": (12,)}


@pytest.mark.parametrize(
    "text",
    [
        "image=96,96,3,table=12", "image=96,96,3;table=12", "image=96, 96, 3, table=12",
        "image=96 96 3 table=12",
    ],
)  # fmt: skip
def test_sizes_by_name(text: str) -> None:
    shape = InputShape.parse(text)
    assert shape.value == BOTH
    assert str(shape) == "image=96,96,3,table=12"
    assert InputShape.parse(str(shape)) == shape


def test_forms_of_python() -> None:
    assert BenchPlan(input_shape=BOTH).input_shape == InputShape.parse("image=96,96,3,table=12")
    assert unwrap_input_shape(BenchPlan(input_shape=(224, 224, 3)).input_shape) == (224, 224, 3)
    assert unwrap_input_shape(BenchPlan(input_shape="224,224,3").input_shape) == (224, 224, 3)
    assert unwrap_input_shape(BenchPlan(input_shape={"text": 128}).input_shape) == {"text": (128,)}  # type: ignore[dict-item]
    assert unwrap_input_shape(BenchPlan().input_shape) is None
    assert unwrap_input_shape(BenchPlan(input_shape="").input_shape) is None
    # a scalar has no sizes
    assert InputShape.parse("image=8,8,3,flag=").value == {"image": (8, 8, 3), "flag": ()}


@pytest.mark.parametrize("shape", [(224, 224, 3), BOTH])
def test_a_plan_comes_back_from_its_record_and_its_words(shape: Any) -> None:
    plan = BenchPlan(input_shape=shape)
    assert from_nested(BenchPlan, to_nested(plan)) == plan
    flag, text = build_command_words(plan)
    assert (flag, BenchPlan(input_shape=text)) == ("--input-shape", plan)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a,b", "sizes with commas, like 224,224,3; of several inputs by name"),
        ("8,image=8", "input_shape must be sizes with commas"),
        ("=8", "input_shape must be sizes with commas"),
        ({"": (8,)}, "input_shape must be sizes with commas"),
        ("image=8,image=9", "input_shape must name an input once. Received: image twice."),
        ("image=0", "input_shape must be at least 1"),
        ({"image": (10**12,)}, "input_shape must be at most 2,147,483,647"),
        (3.5, "input_shape must be sizes with commas"),
    ],
)
def test_what_is_no_shape(value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchPlan(input_shape=value)
