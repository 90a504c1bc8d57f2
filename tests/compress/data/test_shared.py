"""Large data sets, mapped by all processes of a run: the same data, once."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress.core.device import Device
from compress.data import Dataset, Preprocessing, Split
from compress.data import dataset as sharing
from compress.data.dataset import open_shared_dataset, share_dataset
from compress.plan import TrainSettings
from compress.train import train
from compress.train.steps import _to_tensor
from tests.search.test_run import paretune, records


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "MIN_SHARED_BYTES", 0)


def weighted(data: Dataset) -> Dataset:
    weight = np.linspace(0.5, 2.0, len(data.train)).astype(np.float32)
    train_part = Split(data.train.x, data.train.y, weight)
    scaling = Preprocessing(0.5, (0.25, 1.0, 0.0, 3.0), (1.0, 2.0, 1.0, 0.5))
    return replace(data, train=train_part, preprocess=scaling, notes=("one", "two"))


def test_it_is_the_same_data(blobs: Dataset, tmp_path: Path) -> None:
    data, place = weighted(blobs), tmp_path / "run" / ".shared"
    place.mkdir(parents=True)
    (place / "of-a-killed-run").touch()
    with share_dataset(data, place) as (given, problem):
        assert problem == ""
        assert not (place / "of-a-killed-run").exists()
        found = open_shared_dataset(place, data.fingerprint())
        assert found is not None
        for other in (given, found):
            assert isinstance(other.train.x, np.memmap)
            assert other.fingerprint() == data.fingerprint()
            for name in ("name", "class_names", "preprocess", "notes", "kind"):
                assert getattr(other, name) == getattr(data, name), name
            np.testing.assert_array_equal(other.train.weight, data.train.weight)
            assert other.val.weight is None
            np.testing.assert_array_equal(other.inputs("test"), data.inputs("test"))
        assert open_shared_dataset(place, "another") is None
    assert not place.exists()
    assert open_shared_dataset(place) is None
    # pages that are mapped stay
    np.testing.assert_array_equal(given.train.x, data.train.x)


@pytest.mark.parametrize("kind", ["uint8", "int16", "float32"])
def test_other_types(blobs: Dataset, tmp_path: Path, kind: str) -> None:
    parts = {part: Split(blobs.split(part).x.astype(kind), blobs.split(part).y)
             for part in ("train", "val", "test")}  # fmt: skip
    data = replace(blobs, **parts)
    with share_dataset(data, tmp_path / "s") as (given, _):
        assert given.train.x.dtype == kind
        assert given.fingerprint() == data.fingerprint()


def test_small_data_and_others_kinds_of_it_stay_as_they_are(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Dataset):
        """Somebody's own."""

    own = Own(**{name: getattr(blobs, name) for name in
                 ("name", "train", "val", "test", "class_names", "preprocess")})  # fmt: skip
    with share_dataset(own, tmp_path / "s") as (given, problem):
        assert given is own
    monkeypatch.setattr(sharing, "MIN_SHARED_BYTES", 2**20)
    with share_dataset(blobs, tmp_path / "s") as (given, problem):
        assert given is blobs
        assert problem == ""
        assert not (tmp_path / "s").exists()


def test_no_space_is_no_end(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sharing.np, "save", full)
    with share_dataset(blobs, tmp_path / "s") as (given, problem):
        assert given is blobs
        assert "No space left" in problem
        assert not (tmp_path / "s").exists()


def test_what_goes_wrong_inside_is_not_taken_for_it(blobs: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mine"), share_dataset(blobs, tmp_path / "s"):
        raise OSError("mine")
    assert not (tmp_path / "s").exists()


def test_the_hash_is_that_of_the_bytes(blobs: Dataset) -> None:
    digest = hashlib.sha256(f"{blobs.preprocess!r}".encode())
    for part in ("train", "val", "test"):
        digest.update(blobs.split(part).x.tobytes())
        digest.update(blobs.split(part).y.tobytes())
    assert blobs.fingerprint() == digest.hexdigest()[:16]


def test_training_takes_no_copy_of_a_mapped_file(cpu: Device, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((8, 4), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    tensor = _to_tensor(mapped, cpu)
    mapped[3, 1] = 7.0  # of this process alone, and seen by the tensor: it is the same memory
    assert tensor.numpy()[3, 1] == 7.0
    own = np.zeros((8, 4), np.float32)
    copied = _to_tensor(own, cpu)
    own[3, 1] = 7.0
    assert copied.numpy()[3, 1] == 0.0


def test_training_on_it_is_the_same_training(blobs: Dataset, cpu: Device, tmp_path: Path) -> None:
    def trained(data: Dataset) -> list[Any]:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        result = train(model, data, TrainSettings(epochs=2, batch_size=16), device=cpu, seed=0)
        return [*model.get_weights(), np.array([record.loss for record in result.history])]

    with share_dataset(blobs, tmp_path / "s") as (given, _):
        assert isinstance(given.train.x, np.memmap)
        for one, other in zip(trained(given), trained(blobs), strict=True):
            np.testing.assert_array_equal(one, other)


OWN = """
import os, pathlib
import numpy as np
from compress.data import Dataset, Preprocessing, Split

def make():
    with open("calls", "a") as stream:
        stream.write(f"{os.getpid()} ")
    y = np.arange(2400) % 3
    x = np.zeros((2400, 4096), np.float32)
    x[np.arange(2400), y] = 3.0
    parts = [Split(x[a:b], y[a:b]) for a, b in ((0, 1800), (1800, 2100), (2100, 2400))]
    return Dataset("own", *parts, ("a", "b", "c"), Preprocessing())
"""


@pytest.mark.slow
def test_workers_load_nothing(tmp_path: Path) -> None:
    """40 MB: the run's process alone asks the source for them."""
    (tmp_path / "own.py").write_text(OWN)
    done = paretune(
        "search", "--data", "own:make", "--space", "mlp", "--trials", 2, "--epochs", 1,
        "--workers", 2, "--stopping", "none", "--out", "r", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "calls").read_text().split()) == 1
    assert [item["state"] for item in records(tmp_path / "r").values()] == ["complete"] * 2
    assert not (tmp_path / "r" / ".shared").exists()
