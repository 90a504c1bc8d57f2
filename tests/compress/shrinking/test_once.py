"""What checks have made the work uses: teachers, their scaling, the coupling are made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress import compress_model
from compress.core.device import Device
from compress.data import Dataset
from compress.plan import Plan
from compress.plan.nesting import from_flat
from compress.prune.channels import analysis, pruning
from compress.run.directory import RunFolder
from compress.shrinking import compression, prune_and_train
from compress.shrinking import compression_job as cases
from compress.shrinking.compression_job import (
    CompressionJob,
    RunContext,
    capture_random_state,
    load_teachers,
    prepare_job,
)
from tests.same import same_arrays


class Stopped(Exception):
    """The work got as far as wanted."""


def counted(monkeypatch: pytest.MonkeyPatch, calls: Counter[str], name: str, *places: Any) -> None:
    """Counts the calls of a function by name, wherever it was imported."""
    original = getattr(places[0], name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return original(*args, **kwargs)

    for place in places:
        monkeypatch.setattr(place, name, wrapped)


def fitted(model: Any, data: Dataset) -> Any:
    """Trains for an epoch or two: a scaling is found by answers that make sense."""
    model.compile("adam", "sparse_categorical_crossentropy")
    x = data.preprocess(data.train.x)
    model.fit(x, data.train.y, epochs=5, batch_size=32, verbose=0, shuffle=False)
    return model


@pytest.mark.slow
def test_teachers_scaling_and_coupling_are_made_once(
    small_cnn: Callable[..., Any], digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in ((0, "student"), (1, "teacher")):
        fitted(small_cnn(seed, softmax="dense"), digits).save(tmp_path / f"{name}.keras")
    calls: Counter[str] = Counter()
    counted(monkeypatch, calls, "load_model", cases)
    counted(monkeypatch, calls, "find_scaling", cases)
    counted(monkeypatch, calls, "analyze_coupling", analysis, cases, pruning)

    def stop(*_: Any) -> Any:
        raise Stopped

    monkeypatch.setattr(compression, "export_and_evaluate", stop)
    plan = from_flat(
        Plan,
        {
            "data": "digits", "finetune_epochs": 1, "batch_size": 256, "channels": "0.6x",
            "channel_exclude": "first", "sparsity": 0.0,
            "teacher": str(tmp_path / "teacher.keras"), "out": str(tmp_path / "run"),
            "device": "cpu", "formats": "float32",
        },
    )  # fmt: skip
    with pytest.raises(Stopped):
        compress_model(tmp_path / "student.keras", plan=plan)
    assert calls == {"load_model": 1, "find_scaling": 1, "analyze_coupling": 1}
    assert (tmp_path / "run" / "candidates" / "student-c0_6x.keras").is_file()


def test_a_student_is_the_same_whether_its_teachers_were_loaded_just_now_or_before(
    small_cnn: Callable[..., Any],
    digits: Dataset,
    tmp_path: Path,
    cpu: Device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loading draws from the generator that gives a dropout layer its seed."""
    import keras

    small_cnn(1).save(tmp_path / "teacher.keras")
    x = keras.Input((8, 8, 1))
    h = keras.layers.Dense(16, activation="relu")(keras.layers.Flatten()(x))
    student = keras.Model(x, keras.layers.Dense(10)(keras.layers.Dropout(0.5)(h)))
    plan = from_flat(
        Plan, {"finetune_epochs": 1, "batch_size": 512, "sparsity": 0.0, "normalize": "symmetric"}
    )
    work, paths = RunContext(digits, plan, cpu), [tmp_path / "teacher.keras"]
    # all in one go, as it would be if nothing had been checked before
    keras.utils.set_random_seed(plan.seed)
    each = tuple(load_teachers(paths, digits, plan))
    now = CompressionJob(student, (8, 8, 1), Path("m.keras"), work, each, capture_random_state())
    tuner = prune_and_train.FineTuner(work, each)
    wanted = prune_and_train.prune_and_train(now, tuner).model.get_weights()

    dense = prepare_job(student, Path("m.keras"), work, paths)
    keras.utils.set_random_seed(99)  # other work in between
    found: list[Any] = []

    def kept(*args: Any, **kwargs: Any) -> Any:
        found.extend(prune_and_train.prune_and_train(*args, **kwargs).model.get_weights())
        raise Stopped

    monkeypatch.setattr(compression, "prune_and_train", kept)
    with pytest.raises(Stopped):
        compression.compress_stage(dense, RunFolder(tmp_path / "run"), "c")
    same_arrays(found, wanted)
