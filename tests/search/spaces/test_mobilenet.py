"""The space of mobile networks."""

from __future__ import annotations

from typing import Any

import pytest

from compress.data import Dataset
from compress.measure import count_macs
from search.spaces._blocks import round_channels
from search.spaces.mobilenet import MobileNet
from tests.contracts.space import SpaceContract, ask, few, with_shape


class TestMobileNet(SpaceContract):
    name = "mobilenet"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return digits


class TestMobileNetOnLargerImages(SpaceContract):
    name = "mobilenet"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return with_shape(few(digits), (28, 28, 1))


@pytest.mark.slow
class TestMobileNetOnLargeColourImages(SpaceContract):
    name = "mobilenet"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return with_shape(few(digits), (96, 96, 3))


def build(data: Dataset, **changes: Any) -> Any:
    space = MobileNet()
    return space.build(ask(0, space.baseline(data) | changes), data)


BASELINE = (
    64 * 9 * 16  # stem
    + 64 * (9 * 16 + 16 * 16)  # depthwise and pointwise
    + 64 * 16 * 64 + 16 * (9 * 64 + 64 * 24)  # expanded before, depthwise after the stride
    + 16 * (24 * 96 + 9 * 96 + 96 * 24)
    + 24 * 10
)  # fmt: skip


def test_baseline_macs_by_hand(digits: Dataset) -> None:
    assert count_macs(build(digits)).macs == BASELINE


def test_squeeze_excite_macs_by_hand(digits: Dataset) -> None:
    model = build(digits, squeeze=True)
    # a quarter of 16, 64 and 96 channels, 8 at least; one pixel
    assert count_macs(model).macs == BASELINE + 2 * (16 * 8 + 64 * 16 + 96 * 24)


def test_top_and_activation(digits: Dataset) -> None:
    model = build(digits, activation="hard_swish", **{"top.width": 128})
    assert count_macs(model).macs == BASELINE - 24 * 10 + 16 * 24 * 128 + 128 * 10
    assert not [layer.name for layer in model.layers if layer.name.endswith("relu6")]
    assert "stem_hard_swish" in {layer.name for layer in model.layers}


def test_shortcuts_where_the_shape_stays(digits: Dataset) -> None:
    names = [layer.name for layer in build(digits).layers if layer.name.endswith("_add")]
    assert names == ["stage1_block1_add", "stage2_block2_add"]


@pytest.mark.parametrize(("size", "stages"), [(4, 1), (8, 2), (28, 3), (96, 4), (224, 5)])
def test_stages_follow_the_resolution(size: int, stages: int, digits: Dataset) -> None:
    assert MobileNet().get_max_stages(with_shape(few(digits), (size, size, 1))) == stages


def test_widths_are_multiples_of_8_and_not_much_smaller() -> None:
    assert [round_channels(width) for width in (4, 6, 10, 12, 18, 20, 60)] == [
        8, 8, 16, 16, 24, 24, 64,
    ]  # fmt: skip
