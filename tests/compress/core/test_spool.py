"""Large arrays lie in files: equal to those in memory, without a name, and no memory of ours."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.core import arrays
from compress.core.errors import InputError
from compress.data import Dataset, load_data
from compress.data.preprocessing import fit_preprocessing
from compress.train.dataset_loading import as_dataset

SMALL = 4096


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Lets arrays of 4 KiB count as large; returns where they go."""
    monkeypatch.setattr(arrays, "MIN_MAPPED_BYTES", SMALL)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 1024)
    monkeypatch.setenv(arrays.FOLDER_VARIABLE, str(tmp_path / "spool"))
    return tmp_path / "spool"


def rows(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(2.0, 3.0, (count, 4, 5)).astype(np.float32)


def left(place: Path) -> list[Path]:
    return list(place.glob("*")) if place.exists() else []


def test_what_grows_large_goes_to_a_file_without_a_name(mapping: Path) -> None:
    parts = [rows(7, seed) for seed in range(20)]
    grown = arrays.GrowingArray("a stream")
    for part in parts[:5]:
        grown.add(part)
    assert not mapping.exists()  # small so far
    for part in parts[5:]:
        grown.add(part)
    assert mapping.exists()
    assert not left(mapping)
    whole = grown.to_array()
    assert arrays.is_mapped(whole)
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert not left(mapping)
    whole[0, 0, 0] = 5.0  # a copy of ours, as TensorFlow wants it
    little = arrays.GrowingArray("a stream")
    little.add(parts[0])
    assert little.to_array() is parts[0]


def test_an_unfinished_one_is_removed(mapping: Path) -> None:
    grown = arrays.GrowingArray("a stream")
    grown.add(rows(100))
    assert grown.bytes == rows(100).nbytes
    assert not left(mapping)
    grown.close()
    assert not left(mapping)


def test_rows_and_conversions_stay_in_files(mapping: Path) -> None:
    x = rows(200)
    given = arrays.GrowingArray("x")
    given.add(x)
    held = given.to_array()
    index = np.random.default_rng(1).permutation(200)[:120]
    found = arrays.take_examples(held, index)
    assert arrays.is_mapped(found)
    np.testing.assert_array_equal(found, x[index])
    few = arrays.take_examples(held, index[:3])
    assert not arrays.is_mapped(few)
    np.testing.assert_array_equal(few, x[index[:3]])
    doubled = arrays.convert_rows(held, lambda part: part.astype(np.float64) * 2)
    assert arrays.is_mapped(doubled)
    np.testing.assert_array_equal(doubled, x.astype(np.float64) * 2)
    one, two = (fit_preprocessing(values, 1.0, "standardize") for values in (held, x))
    np.testing.assert_allclose(one.std, two.std, rtol=1e-12)
    assert one.mean == two.mean


def test_a_full_disk_is_refused(mapping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    grown = arrays.GrowingArray("A stream")
    with pytest.raises(InputError, match=r"A stream of 100 examples so far must fit onto the disk"):
        grown.add(rows(100))
    grown.close()
    assert not left(mapping)


def test_a_folder_in_memory_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(arrays.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(arrays, "linux", SimpleNamespace(is_in_memory=lambda _: True))
    assert arrays.find_spool_folder().parts[-2:] == (".cache", "paretune")


def both(mapping: Path, monkeypatch: pytest.MonkeyPatch, load: Any) -> tuple[Dataset, Dataset]:
    """Loads data mapped, and in memory."""
    mapped = load()
    monkeypatch.setattr(arrays, "MIN_MAPPED_BYTES", 2**40)
    return mapped, load()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_an_npz_is_mapped_where_it_lies(
    dtype: Any, mapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (np.abs(rows(600)) * 20).astype(dtype)
    np.savez(tmp_path / "d.npz", other=np.zeros(3), x_train=x, y_train=np.arange(600) % 3)
    held, plain = both(mapping, monkeypatch, lambda: load_data(str(tmp_path / "d.npz")))
    assert arrays.is_mapped(held.train.x)
    assert not arrays.is_mapped(plain.train.x)
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(held.split(part).x, plain.split(part).x)
        np.testing.assert_array_equal(held.split(part).y, plain.split(part).y)
    np.testing.assert_allclose(held.preprocess.std, plain.preprocess.std, rtol=1e-12)
    assert not left(mapping)


def test_damage_to_a_mapped_member_is_found(mapping: Path, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x_train=rows(300), y_train=np.arange(300) % 3)
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="must be an .npz file of plain arrays"):
        load_data(str(path))


def test_a_stream_trains_as_arrays_do(
    mapping: Path, monkeypatch: pytest.MonkeyPatch, cpu: Any
) -> None:
    import keras
    import tensorflow as tf

    from compress.plan import TrainSettings
    from compress.train import train

    x, y = rows(400), np.arange(400) % 3
    x[y == 1] += 1.0
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    held, plain = both(mapping, monkeypatch, lambda: as_dataset(stream, testing=True))
    assert arrays.is_mapped(held.train.x)
    assert held.fingerprint() == plain.fingerprint()
    found = []
    for data in (held, plain):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4, 5)), keras.layers.Flatten(),
                                  keras.layers.Dense(3, activation="softmax")])  # fmt: skip
        result = train(model, data, TrainSettings(epochs=2, batch_size=32), device=cpu)
        found.append((result.history[-1].loss, result.val))
    assert found[0] == found[1]
