"""Images are known again in another scale; different examples are not taken for each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compress.data import Dataset, load_data
from compress.data.example_hashing import hash_examples

Map = Callable[[Any], Any]


@pytest.mark.parametrize(
    "scaled",
    [
        lambda x: x.astype(np.int64),
        lambda x: (x / 255).astype(np.float32),
        lambda x: (x / 127.5 - 1).astype(np.float32),
        lambda x: (x - np.array([103.939, 116.779, 123.68])).astype(np.float32),
        lambda x: ((x / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.25]).astype(np.float32),
    ],
)
def test_images_keep_their_keys_in_another_scale(scaled: Map) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 9, 9, 3), np.uint8)
    images[200:] = 190 + images[200:] // 16  # little contrast: rounding weighs most
    keys = hash_examples(images)
    assert len(np.unique(keys)) == 400
    np.testing.assert_array_equal(hash_examples(scaled(images)), keys)


def test_the_range_of_a_channel_counts_every_pixel() -> None:
    """A 100 and a 101 are in the same one of 31 steps from 0 to 255, wherever these two are."""
    pixels = 81  # an odd number
    images = np.full((2, pixels, pixels, 3), 100, np.uint8)
    for place in range(pixels):
        images[:, place, place], images[:, place, place - 1] = 255, 0
        images[1, place, place - 2] = 101
    first, second = (hash_examples(part.reshape(-1, 9, 9, 3)) for part in images)
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) == pixels


def test_rows_of_a_table_are_known_by_their_values() -> None:
    rows = np.array([[1, 2, 3], [2, 4, 6], [1, 2, 4], [0, 0, 0], [-0.0, 0, 0]], np.float64)
    keys = hash_examples(rows)
    # multiples are other rows; a zero has no sign
    assert len(np.unique(keys)) == 4
    assert keys[3] == keys[4]
    np.testing.assert_array_equal(hash_examples(rows.astype(np.int32)), keys)
    # what float32 cannot tell apart is one row
    np.testing.assert_array_equal(hash_examples(rows * (1 + 1e-9)), keys)


@pytest.mark.parametrize(("positions", "is_known"), [(63, False), (64, True)])
def test_sequences_of_64_positions_keep_their_keys_in_another_scale(
    positions: int, is_known: bool
) -> None:
    sequences = np.random.default_rng(0).integers(0, 256, (20, positions, 2))
    keys, others = hash_examples(sequences), hash_examples(sequences / 127.5 - 1)
    assert (keys == others).tolist() == [is_known] * 20


def test_images_of_one_colour_are_told_apart() -> None:
    flat = np.repeat(np.arange(5, dtype=np.uint8), 64).reshape(5, 8, 8, 1)
    assert len(np.unique(hash_examples(flat))) == 5
    assert len(hash_examples(flat[:0])) == 0


def test_all_digits_differ_and_chunks_do_not_matter(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = np.concatenate([digits.keys[part] for part in ("train", "val", "test")])
    assert len(np.unique(every)) == 1797
    monkeypatch.setattr("compress.data.example_hashing.CHUNK_VALUES", 640)
    np.testing.assert_array_equal(hash_examples(digits.val.x), digits.keys["val"])
    # another split holds the same examples
    other = load_data("digits", seed=1, normalize="unit")
    again = np.concatenate([other.keys[part] for part in ("train", "val", "test")])
    np.testing.assert_array_equal(np.sort(again), np.sort(every))
