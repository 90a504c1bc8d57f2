"""Examples that two parts of a data set hold: copies by nature, and leaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compress
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split, load_data
from compress.data.leakage import compare_parts, estimate_collision_probability

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(1000, 6)).astype(np.float32)
Y = np.arange(1000) % 2


def parts(rows: Any, *sizes: int) -> list[tuple[Any, Any]]:
    """Rows one after the other, with labels."""
    pieces = np.split(rows, np.cumsum(sizes)[:-1])
    return [(piece.copy(), np.arange(len(piece)) % 2) for piece in pieces]


def copies(data: Dataset) -> list[str]:
    """The notes of examples that are in two parts."""
    return [note for note in data.notes if "(duplicates)" in note]


def test_parts_of_one_call_are_compared() -> None:
    train, val, test = parts(X, 700, 100, 200)
    assert copies(compress.as_dataset(train, val=val, test=test)) == []
    message = (
        r"The validation part of 'arrays' must hold examples that the training part does not "
        r"hold\. Received: 100 of the 100 validation examples that occur once are in the training "
    )
    inside = (train[0][50:150], train[1][50:150])
    with pytest.raises(InputError, match=message):
        compress.as_dataset(train, val=inside, test=test)
    with pytest.raises(
        InputError, match="The test part .* 100 of the 100 test examples .* training"
    ):
        compress.as_dataset(train, val=val, test=inside)
    with pytest.raises(InputError, match="The test part .* 100 of the 100 test .* validation part"):
        compress.as_dataset(train, val=val, test=val)
    # images too, whatever their scale
    images = np.random.default_rng(1).integers(0, 256, (200, 9, 9, 1), np.uint8)
    labels = np.arange(200) % 2
    scaled = (images[:40] / 255.0).astype(np.float32), labels[:40]
    with pytest.raises(InputError, match="40 of the 40 validation examples"):
        compress.as_dataset((images.astype(np.float32), labels), val=scaled)


def test_parts_of_a_file_and_of_a_data_set_are_compared(tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = parts(X, 800, 200)
    x_test[:50] = x[:50]
    path = tmp_path / "d.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    # some of the 50 have become validation examples, which are split off
    with pytest.raises(InputError, match=r"The test part of '.*d\.npz' .* 4\d of the 200 test"):
        load_data(str(path))
    made = Dataset(
        "mine", Split(x, y), Split(x[:9], y[:9]), Split(x_test, y_test), ("a", "b"), Preprocessing()
    )
    with pytest.raises(InputError, match="The validation part of 'mine' .* 9 of the 9"):
        compress.as_dataset(made)


def test_few_copies_are_noted() -> None:
    train, val, test = parts(X.copy(), 600, 100, 300)
    test[0][:3] = train[0][:3]  # 1 %
    data = compress.as_dataset(train, val=val, test=test)
    assert copies(data) == [
        "3 of the 300 test examples are in the training part too (duplicates): figures flatter a "
        "model that remembers them",
    ]
    assert compress.as_dataset(data).notes == data.notes
    test[0][:20] = train[0][:20]
    with pytest.raises(InputError, match="20 of the 300 test examples that occur once"):
        compress.as_dataset(train, val=val, test=test)


def copied(count: int, share: float, seed: int) -> Any:
    """Rows of which a share are copies of others, shuffled."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(count, 6)).astype(np.float32)
    places = random.choice(count, int(share * count), replace=False)
    rows[places] = rows[random.integers(count, size=len(places))]
    return random.permutation(rows)


@pytest.mark.parametrize("seed", range(5))
def test_natural_duplicates_are_no_leak_and_hide_none(seed: int) -> None:
    train, val, test = parts(copied(3000, 0.3, seed), 2000, 300, 700)
    data = compress.as_dataset(train, val=val, test=test)
    assert [note.partition(" of the ")[2][:3] for note in copies(data)] == ["300", "700"]
    # 290 of the test examples beside them
    leaky = np.concatenate([train[0], test[0][:290]]), np.arange(2290) % 2
    with pytest.raises(InputError, match="The test part"):
        compress.as_dataset(leaky, val=val, test=test)


@pytest.mark.parametrize("values", [2, 4])
def test_tables_of_few_different_rows_are_no_leak(values: int) -> None:
    """All rows of eight columns of two values are in every part; of four values some are."""
    rows = np.random.default_rng(0).integers(0, values, (3000, 8)).astype(np.float32)
    train, val, test = parts(rows, 2000, 300, 700)
    assert len(copies(compress.as_dataset(train, val=val, test=test))) == 2
    rare = np.random.default_rng(0).random((3000, 12)) < 0.1
    train, val, test = parts(rare.astype(np.float32), 2000, 300, 700)
    compress.as_dataset(train, val=val, test=test)


def test_an_oversampled_training_part_hides_no_leak() -> None:
    train, val, test = parts(X, 500, 100, 400)
    often = np.repeat(np.concatenate([train[0], test[0][:100]]), 3, axis=0)
    with pytest.raises(InputError, match="100 of the 400 test examples"):
        compress.as_dataset((often, np.arange(len(often)) % 2), val=val, test=test)
    clean = np.repeat(train[0], 3, axis=0)
    compress.as_dataset((clean, np.arange(len(clean)) % 2), val=val, test=test)


def test_what_duplicates_explain_by_hand() -> None:
    """Of 100 examples 20 have a twin: up to r = (20 + 3 sqrt(40) + 6) / 100 are expected elsewhere.

    Of 80 that is 80 r, give or take 3 sqrt(80 * 0.2 (1 - r)).
    """
    other = np.r_[np.repeat(np.arange(10), 2), np.arange(1000, 1080)].astype(np.uint64)
    part = np.r_[np.repeat(np.arange(2000, 2010), 2), np.arange(1000, 1080)].astype(np.uint64)
    found = compare_parts(part, other)
    assert (found.count, found.unique_count) == (80, 80)
    rate = (26 + 3 * 40**0.5) / 100
    assert found.allowed == np.ceil(80 * rate + 3 * (80 * 0.2 * (1 - rate)) ** 0.5) == 45
    assert found.is_leak


def test_how_likely_rows_are_equal_by_hand() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (2000, 5)).astype(np.float32)
    assert estimate_collision_probability(rows) == pytest.approx(2**-5, rel=0.02)
    # a column that follows from the others says nothing new
    more = np.concatenate([rows, rows[:, :1] + rows[:, 1:2]], axis=1)
    assert 2**-6 < estimate_collision_probability(more) < 2**-4
    assert estimate_collision_probability(np.concatenate([rows, X[:1].repeat(2000, 0)], axis=1)) > 0
    assert estimate_collision_probability(X) == 0.0
