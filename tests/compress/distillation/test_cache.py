"""The teacher's cache: the same students, interruption, staleness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import distill
from compress.core.device import Device
from compress.core.errors import InputError
from compress.core.memory_budget import MemoryBudget
from compress.data import Dataset
from compress.distillation import teachers as caches
from compress.distillation.hints import make_hints
from compress.distillation.teachers import Teachers, compute_cache_key, open_teacher_cache
from compress.plan import DistillOptions, TrainSettings
from compress.train import steps
from tests.compress.distillation.test_trainer import OWN_HINT
from tests.same import same_arrays

OPTIONS = DistillOptions(feature_losses=("fitnets", OWN_HINT), feature_weight=0.1)
TWO = TrainSettings(epochs=2, batch_size=64)


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache may be in memory."""
    monkeypatch.setattr(caches, "MAX_MEMORY_BYTES", 0)


def teachers_of(data: Dataset, small_cnn: Callable[..., Any], seed: int = 1) -> Teachers:
    teacher = small_cnn(seed)
    hints = make_hints(small_cnn(0), teacher, OPTIONS, 0)
    return Teachers([teacher], data.task, hints, [None])


def test_the_cache_holds_what_the_teacher_says(
    digits: Dataset, small_cnn: Callable[..., Any]
) -> None:
    import keras

    teachers, teacher = teachers_of(digits, small_cnn), small_cnn(1)
    with open_teacher_cache(teachers, digits) as cached:
        logits = keras.Model(teacher.input, teacher.get_layer("last").output)
        expected = logits(digits.inputs("train"), training=False).numpy()
        np.testing.assert_allclose(cached.arrays["teacher_logits"][:, 0], expected, atol=1e-5)
        assert cached.size_bytes == sum(array.nbytes for array in cached.arrays.values())


@pytest.mark.slow
def test_students_are_the_same_with_and_without(
    digits: Dataset,
    cpu: Device,
    small_cnn: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    students = {}
    # images that augmentation does not change
    monkeypatch.setattr(steps, "augment_images", lambda images, *_: images)
    for where in ("memory", "disk", "off"):
        students[where] = small_cnn(0)
        monkeypatch.setattr(caches, "MAX_MEMORY_BYTES", 0 if where == "disk" else 1 << 30)
        finetune = replace(TWO, augment=("flip",) if where == "off" else ())
        result = distill(
            students[where], small_cnn(1), digits, OPTIONS, finetune=finetune, device=cpu,
            cache_folder=tmp_path / where,
        )  # fmt: skip
        assert result.cache == where
        assert (result.cache_bytes > 0) == (where != "off")
    same_arrays(students["memory"].get_weights(), students["disk"].get_weights())
    same_arrays(students["memory"].get_weights(), students["off"].get_weights(), atol=1e-4)


@pytest.mark.usefixtures("on_disk")
def test_a_complete_cache_is_used_again_and_an_interrupted_one_is_not(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = teachers_of(digits, small_cnn)

    def stop(share: float) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        open_teacher_cache(teachers, digits, folder=tmp_path, on_progress=stop),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
    # what a killed process leaves
    (tmp_path / f".{compute_cache_key(teachers, digits)}-teacher_logits-abcd1234.part.npy").touch()
    computed: list[float] = []
    again: list[float] = []
    shares: list[float] = []
    given: dict[str, Any] = {"folder": tmp_path}
    with open_teacher_cache(teachers, digits, **given, on_progress=computed.append) as cached:
        assert cached.location == "disk"
        assert computed[-1] == 1
        with open_teacher_cache(teachers, digits, **given, on_progress=again.append) as used:
            assert again == []
        monkeypatch.setattr(caches, "MAX_MEMORY_BYTES", 1 << 30)
        with open_teacher_cache(teachers, digits, on_progress=shares.append) as whole:
            assert whole.location == "memory"
            assert len(shares) > 1
            assert shares[-1] == 1
            assert whole.arrays
            assert whole.arrays.keys() == cached.arrays.keys() == used.arrays.keys()
            for name, array in whole.arrays.items():
                np.testing.assert_array_equal(cached.arrays[name], array)
                np.testing.assert_array_equal(used.arrays[name], array)


@pytest.mark.usefixtures("on_disk")
def test_a_stale_cache_is_not_used(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    teachers = teachers_of(digits, small_cnn)
    key = compute_cache_key(teachers, digits)
    with open_teacher_cache(teachers, digits, folder=tmp_path) as cached:
        assert {path.name for path in tmp_path.iterdir()} == {
            f"{key}-{name}.npy" for name in cached.arrays
        }
    x = digits.train.x.copy()
    x[0, 0, 0] += 1
    moved = replace(digits, train=replace(digits.train, x=x))
    other = teachers_of(digits, small_cnn, seed=2)
    scaled = replace(digits, preprocess=replace(digits.preprocess, scale=0.5))
    for who, what in ((teachers, moved), (other, digits), (teachers, scaled)):
        assert compute_cache_key(who, what) != key
        shares: list[float] = []
        with open_teacher_cache(who, what, folder=tmp_path, on_progress=shares.append):
            assert shares[-1] == 1
    # labels do not matter to a teacher
    relabelled = replace(digits, train=replace(digits.train, y=digits.train.y[::-1].copy()))
    assert compute_cache_key(teachers, relabelled) == key


@pytest.mark.usefixtures("on_disk")
def test_a_temporary_cache_is_removed(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_teacher_cache(teachers_of(digits, small_cnn), digits):
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("on_disk")
def test_a_disk_that_is_too_small_is_named(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with (
        pytest.raises(InputError, match=r"room for the teacher's outputs: .* MiB. Received: 0 MiB"),
        open_teacher_cache(teachers_of(digits, small_cnn), digits, folder=tmp_path),
    ):
        pass


def test_a_cache_is_on_disk_where_memory_is_short(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = teachers_of(digits, small_cnn)
    monkeypatch.setattr(MemoryBudget, "compute_share", lambda *_: 1000)
    with open_teacher_cache(teachers, digits, folder=tmp_path) as cached:
        assert cached.location == "disk"
        assert list(tmp_path.iterdir()) != []
