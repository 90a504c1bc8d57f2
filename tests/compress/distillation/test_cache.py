"""The teacher's cache: the same students, interruption, staleness."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import distill
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.distillation import teachers as caches
from compress.distillation.hints import make_hints
from compress.distillation.teachers import Teachers, compute_cache_key, open_teacher_cache
from compress.plan import DistillOptions, TrainSettings
from tests.compress.distillation.test_trainer import OWN_HINT
from tests.same import same_arrays

OPTIONS = DistillOptions(hints=("fitnets", OWN_HINT), hint_weight=0.1)
TWO = TrainSettings(epochs=2, batch_size=64)


def teachers_of(data: Dataset, small_cnn: Callable[..., Any], seed: int = 1) -> Teachers:
    teacher = small_cnn(seed)
    hints = make_hints(small_cnn(0), teacher, OPTIONS, data.task, 0)
    return Teachers([teacher], data.task, hints, [None])


def test_the_cache_holds_what_the_teacher_says(
    digits: Dataset, small_cnn: Callable[..., Any]
) -> None:
    import keras

    teachers, teacher = teachers_of(digits, small_cnn), small_cnn(1)
    with open_teacher_cache(teachers, digits, location="memory") as cached:
        logits = keras.Model(teacher.input, teacher.get_layer("last").output)
        expected = logits(digits.inputs("train"), training=False).numpy()
        np.testing.assert_allclose(cached.arrays["teacher_logits"][:, 0], expected, atol=1e-5)
        assert cached.computed_rows == len(digits.train)
        assert cached.size_bytes == sum(array.nbytes for array in cached.arrays.values())


@pytest.mark.slow
def test_students_are_the_same_with_and_without(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    students = {}
    for where in ("memory", "disk", "off", "auto"):
        students[where] = small_cnn(0)
        # auto with a limit of 0 MiB is disk
        options = replace(OPTIONS, cache=where, cache_limit=0)
        result = distill(
            students[where], small_cnn(1), digits, options, finetune=TWO, device=cpu,
            cache_folder=tmp_path / where,
        )  # fmt: skip
        assert result.cache == ("disk" if where == "auto" else where)
        assert (result.cache_bytes > 0) == (where != "off")
    for where in ("disk", "auto"):
        same_arrays(students["memory"].get_weights(), students[where].get_weights())
    same_arrays(students["memory"].get_weights(), students["off"].get_weights(), atol=1e-4)


def test_an_interrupted_cache_goes_on(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "NOTE_EVERY", 1)
    teachers = teachers_of(digits, small_cnn)

    def stop(share: float) -> None:
        if share > 0.4:
            raise KeyboardInterrupt

    given: dict[str, Any] = {"location": "disk", "folder": tmp_path}
    with (
        pytest.raises(KeyboardInterrupt),
        open_teacher_cache(teachers, digits, **given, on_progress=stop),
    ):
        pass
    with open_teacher_cache(teachers, digits, **given) as cached:
        assert 0 < cached.computed_rows < 0.7 * len(digits.train)
        with open_teacher_cache(teachers, digits, location="memory") as whole:
            assert whole.arrays
            for name, array in whole.arrays.items():
                np.testing.assert_array_equal(cached.arrays[name], array)
    with open_teacher_cache(teachers, digits, **given) as again:
        assert again.computed_rows == 0


def test_a_stale_cache_is_not_used(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    teachers = teachers_of(digits, small_cnn)
    key = compute_cache_key(teachers, digits)
    with open_teacher_cache(teachers, digits, location="disk", folder=tmp_path) as cached:
        assert Path(cached.location) == tmp_path / key
    x = digits.train.x.copy()
    x[0, 0, 0] += 1
    moved = replace(digits, train=replace(digits.train, x=x))
    other = teachers_of(digits, small_cnn, seed=2)
    scaled = replace(digits, preprocess=replace(digits.preprocess, scale=0.5))
    for who, what in ((teachers, moved), (other, digits), (teachers, scaled)):
        assert compute_cache_key(who, what) != key
        with open_teacher_cache(who, what, location="disk", folder=tmp_path) as fresh:
            assert fresh.computed_rows == len(digits.train)
    # labels do not matter to a teacher
    relabelled = replace(digits, train=replace(digits.train, y=digits.train.y[::-1].copy()))
    assert compute_cache_key(teachers, relabelled) == key


def test_a_cache_that_is_not_what_its_name_says_is_refused(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    teachers, other = teachers_of(digits, small_cnn), teachers_of(digits, small_cnn, seed=2)
    with open_teacher_cache(teachers, digits, location="disk", folder=tmp_path) as cached:
        (tmp_path / Path(cached.location).name).rename(tmp_path / compute_cache_key(other, digits))
    with (
        pytest.raises(InputError, match="must be of this teacher and these examples"),
        open_teacher_cache(other, digits, location="disk", folder=tmp_path),
    ):
        pass


def test_a_temporary_cache_is_removed(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_teacher_cache(teachers_of(digits, small_cnn), digits, location="disk") as cached:
        record = json.loads((Path(cached.location) / caches.META).read_text("utf-8"))
        assert record["done"] == len(digits.train)
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_named(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with (
        pytest.raises(InputError, match=r"room for the teacher's outputs: .* MiB. Received: 0 MiB"),
        open_teacher_cache(
            teachers_of(digits, small_cnn), digits, location="disk", folder=tmp_path
        ),
    ):
        pass
