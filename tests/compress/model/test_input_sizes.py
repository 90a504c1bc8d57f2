"""Open sizes of several inputs, given by name: counted, coupled, fixed, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from compress import count_macs, coupled_groups
from compress.benchmarking.models import fix_input_shape
from compress.core.errors import InputError
from compress.model.ports import fill_input_shapes, require_fixed_sizes

OWN = [("image", (None, None, 3)), ("table", (12,))]


@pytest.fixture
def model() -> Any:
    """Two open inputs, in an order that is not the alphabet's."""
    import keras
    from keras import layers as L

    table = keras.Input((None, 4), name="table")
    image = keras.Input((None, None, 3), name="image")
    seen = L.GlobalAveragePooling2D()(L.Conv2D(5, 3, padding="same", name="conv")(image))
    read = L.GlobalAveragePooling1D()(L.Dense(6, name="dense")(table))
    return keras.Model(
        [table, image], L.Dense(2, name="head")(L.Concatenate()([seen, read])), name="two"
    )


def test_sizes_by_name_are_counted_coupled_and_fixed(model: Any) -> None:
    macs = 8 * 9 * 9 * 3 * 5 + 7 * 4 * 6 + 11 * 2
    for shape in ({"image": (8, 9, 3), "table": (7, 4)}, [(7, 4), (8, 9, 3)]):
        assert count_macs(model, shape).macs == macs
        assert coupled_groups(model, input_shape=shape).macs == macs
        assert [tuple(x.shape[1:]) for x in fix_input_shape(model, shape).inputs] == [
            (7, 4),
            (8, 9, 3),
        ]
    # with the batch axis too
    assert count_macs(model, {"image": (None, 8, 9, 3), "table": (None, 7, 4)}).macs == macs


def test_one_of_two_is_not_enough(model: Any) -> None:
    assert any("conv" in text for text in count_macs(model, {"table": (7, 4)}).unsupported)
    with pytest.raises(InputError) as refused:
        fix_input_shape(model, {"table": (7, 4)})
    assert str(refused.value) == (
        "Model 'two' must have a known input size to be timed. Received: image (None, None, 3). "
        "Give --input-shape, like image=96,96,3 (in Python input_shape=)."
    )


def test_sizes_alone_are_of_the_one_open_input() -> None:
    assert fill_input_shapes("model 'm'", OWN, (8, 9, 3)) == [(8, 9, 3), (12,)]
    assert fill_input_shapes("model 'm'", OWN, {"image": (8, 9, 3)}) == [(8, 9, 3), (12,)]
    assert fill_input_shapes("model 'm'", OWN, None) == [(None, None, 3), (12,)]
    assert fill_input_shapes("model 'm'", [("x", (None,))], {"x": (4,)}) == [(4,)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"picture": (8, 8, 3)}, r"name inputs of model 'm': image \(None, None, 3\), table \(12,"),
        ({"image": (8, 8, 4)}, r"agree with input 'image' of model 'm', which takes \(None, None"),
        ({"table": (13,)}, r"agree with input 'table' of model 'm', which takes \(12,\). Received"),
        ([(8, 8, 3)], r"one shape for each of the 2 inputs of model 'm': image .* by name, like"),
    ],
)
def test_errors_name_the_inputs(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fill_input_shapes("model 'm'", OWN, given)


def test_sizes_alone_for_two_open_inputs_are_refused(model: Any) -> None:
    message = r"for each of the 2 inputs of model 'two': table \(None, 4\), image \(None, None, 3\)"
    for call in (count_macs, fix_input_shape):
        with pytest.raises(InputError, match=message):
            call(model, (8, 9, 3))
    with pytest.raises(InputError, match="like table=96,4,image=96,96,3"):
        require_fixed_sizes(
            "model 'two'", ["table", "image"], [(None, 4), (None, None, 3)], "to be run"
        )
