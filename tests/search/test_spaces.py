"""Search spaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compress.data import Dataset, Split
from compress.errors import InputError
from compress.measure import count_macs
from search.spaces import SPACES
from tests.contracts.space import SpaceContract, ask


def with_shape(data: Dataset, shape: tuple[int, ...]) -> Dataset:
    """Returns `data` with random inputs of another shape."""
    rng = np.random.default_rng(0)

    def part(split: Split) -> Split:
        return Split(rng.integers(0, 256, (len(split), *shape)).astype(np.uint8), split.y)

    parts = {name: part(data.split(name)) for name in ("train", "val", "test")}
    return replace(data, **parts)


class TestCNN(SpaceContract):
    name = "cnn"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return digits


class TestCNNOnLargerColourImages(SpaceContract):
    name = "cnn"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return with_shape(digits, (28, 28, 3))


def test_stages_follow_the_resolution(digits: Dataset) -> None:
    cnn = SPACES["cnn"]
    assert cnn.max_stages(digits) == 2  # type: ignore[attr-defined]
    assert cnn.max_stages(with_shape(digits, (28, 28, 1))) == 3  # type: ignore[attr-defined]
    assert cnn.max_stages(with_shape(digits, (4, 4, 1))) == 1  # type: ignore[attr-defined]


def test_baseline_macs_by_hand(digits: Dataset) -> None:
    cnn = SPACES["cnn"]
    model = cnn.build(ask(0, cnn.baseline(digits)), digits)
    stem, first = 64 * 9 * 1 * 24, 64 * 9 * (24 * 32 + 32 * 32)
    second, head = 16 * 9 * (32 * 64 + 64 * 64), 64 * 10
    assert count_macs(model).macs == stem + first + second + head


def test_residual_blocks_have_shortcuts(digits: Dataset) -> None:
    cnn = SPACES["cnn"]
    plain = cnn.baseline(digits)
    model = cnn.build(ask(0, plain | {"residual": True}), digits)
    names = {layer.name for layer in model.layers}
    # widths or resolution change at the first block of a stage only
    assert {name for name in names if name.endswith("_shortcut")} == {
        "stage1_block1_shortcut", "stage2_block1_shortcut",
    }  # fmt: skip
    assert sum(name.endswith("_add") for name in names) == 4


def test_other_data_are_refused(blobs: Dataset) -> None:
    with pytest.raises(InputError, match="images of at least 4 x 4 pixels"):
        SPACES["cnn"].check(blobs)
