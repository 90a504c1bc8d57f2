"""The space of residual networks."""

from __future__ import annotations

from typing import Any

import pytest

from compress.data import Dataset
from compress.measure import count_macs
from search.spaces.resnet import ResNet
from tests.contracts.space import SpaceContract, ask, few, with_shape


class TestResNet(SpaceContract):
    name = "resnet"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return digits


class TestResNetOnOblongImages(SpaceContract):
    name = "resnet"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return with_shape(few(digits), (28, 33, 2))


@pytest.mark.slow
class TestResNetOnLargeImages(SpaceContract):
    name = "resnet"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return with_shape(few(digits), (96, 96, 3))


def build(data: Dataset, **changes: Any) -> Any:
    space = ResNet()
    return space.build(ask(0, space.baseline(data) | changes), data)


def test_baseline_macs_by_hand(digits: Dataset) -> None:
    stem, first = 64 * 9 * 16, 64 * 4 * 9 * 16 * 16
    # 4 x 4 pixels, the first convolution from 16 channels, a shortcut beside it
    second = 16 * (9 * 16 * 32 + 3 * 9 * 32 * 32 + 16 * 32)
    assert count_macs(build(digits)).macs == stem + first + second + 32 * 10


def test_preactivation_costs_the_same_macs(digits: Dataset) -> None:
    late, early = build(digits), build(digits, preactivation=True)
    assert count_macs(early).macs == count_macs(late).macs
    names = [layer.name for layer in early.layers]
    first = [name for name in names if name.startswith("stage2_block1_conv1")]
    assert first == [
        "stage2_block1_conv1_bn", "stage2_block1_conv1_relu", "stage2_block1_conv1",
    ]  # fmt: skip
    # nothing after the sums, so one normalization at the end
    assert names[-5:] == ["last_bn", "last_relu", "pool", "logits", "probabilities"]


def test_bottleneck_macs_by_hand(digits: Dataset) -> None:
    model = build(digits, block="bottleneck", width=32, stages=1, **{"stage1.blocks": 1})
    block = 32 * 8 + 9 * 8 * 8 + 8 * 32
    assert count_macs(model).macs == 64 * (9 * 32 + block) + 32 * 10


def test_stems_follow_the_resolution(digits: Dataset) -> None:
    stems = {
        size: ResNet().list_stems(with_shape(few(digits), (size, size, 1)))
        for size in (8, 28, 64, 224)
    }
    assert stems[8] == ("plain",)
    assert stems[28] == ("plain", "strided")
    assert stems[64] == stems[224] == ("strided", "pooled")


def test_a_pooled_stem_divides_by_four(digits: Dataset) -> None:
    model = build(with_shape(few(digits), (64, 64, 3)), stem="pooled")
    assert model.get_layer("stem_pool").output.shape == (None, 16, 16, 16)


def test_widths_grow_in_multiples_of_eight(digits: Dataset) -> None:
    data = with_shape(few(digits), (28, 28, 1))
    widths = [
        build(data, stages=3, width=24, growth=1.5).get_layer(f"stage{n}_block1_add").output
        for n in (1, 2, 3)
    ]
    assert [tensor.shape[-1] for tensor in widths] == [24, 40, 56]
