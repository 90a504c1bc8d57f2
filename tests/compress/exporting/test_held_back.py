"""Whether one file is as good as another, on examples that made neither."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress.data import Dataset, UnlabelledDataset
from compress.data.tasks import create_task
from compress.exporting import file_checks
from compress.exporting.file_checks import check_equivalence
from compress.train.dataset_loading import prepare_dataset

L = keras.layers
LABELLED = 1500


@pytest.fixture
def model() -> Any:
    return keras.Sequential([keras.Input((4,)), L.Dense(3, activation="softmax")])


class Files:
    """Sessions of files whose answers are set: the label, but for some of the examples."""

    def __init__(self, wrong: dict[str, int]) -> None:
        self.wrong, self.seen = wrong, list[Any]()

    def __call__(self, model: Any, session: str, x: Any, *_: Any) -> Any:
        self.seen = [int(value) for value in x[:, 0]]
        right = np.argmax(x[:, 1:], axis=-1)
        right[: self.wrong[session]] += 1
        return np.eye(3, dtype=np.float32)[right % 3]


def labelled(count: int, first: int = 0) -> tuple[Any, Any]:
    y = np.arange(count) % 3
    return np.c_[np.arange(first, first + count), np.eye(3)[y]].astype(np.float32), y


def confirmed(
    model: Any, data: Any, wrong: dict[str, int], monkeypatch: pytest.MonkeyPatch, used: Any = ()
) -> tuple[str, list[int]]:
    files = Files({"original": 0, **wrong})
    monkeypatch.setattr(file_checks, "predict_examples", files)
    monkeypatch.setattr(file_checks, "prepare_session", lambda path: path.name)
    text = check_equivalence(
        *map(Path, ("int8", "mixed", "original")), model=model, data=data,
        task=create_task("multiclass", 3), calibration_indices=np.asarray(used, int), seed=0,
    )  # fmt: skip
    return text, files.seen


@pytest.fixture
def data(model: Any) -> Dataset:
    return prepare_dataset(model, labelled(60, 10_000), val=labelled(LABELLED))


def test_the_rule_for_ties_decides(
    model: Any, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 3 of 1,500 more are wrong: by Bonett and Price -3 / 1502 +- 1.96 sqrt(variance / 1502), where
    # the variance is (3 + 2) / 1502 - (3 / 1502)^2 = 0.003325: -0.0049 to 0.0009 holds zero
    text, seen = confirmed(model, data, {"int8": 3, "mixed": 0}, monkeypatch)
    assert text == "accuracy on 1,500 held-back examples -0.0020 (-0.0049 to +0.0009)"
    assert sorted(seen) == list(range(LABELLED))
    # 20 more: (20 + 2) / 1502 - (20 / 1502)^2 = 0.01447, -0.0194 to -0.0072 does not
    assert confirmed(model, data, {"int8": 20, "mixed": 0}, monkeypatch)[0] == ""
    # better is as good as well
    assert confirmed(model, data, {"int8": 0, "mixed": 20}, monkeypatch)[0] != ""


def test_too_few_examples_tell_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepare_dataset(model, labelled(60, 10_000), val=labelled(file_checks.FEWEST - 2))
    assert confirmed(model, data, {"int8": 0, "mixed": 0}, monkeypatch)[0] == ""


def test_without_labels_the_original_answers_and_calibration_is_left_out(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = UnlabelledDataset.from_arrays("examples", labelled(300)[0])
    text, seen = confirmed(model, data, {"int8": 1, "mixed": 0}, monkeypatch, used=range(60))
    assert text.startswith("agreement on 240 held-back examples -0.0042")
    assert seen == list(range(60, 300))
    assert confirmed(model, data, {"int8": 9, "mixed": 0}, monkeypatch, range(60))[0] == ""
    # what is left is too little
    assert confirmed(model, data, {"int8": 0, "mixed": 0}, monkeypatch, range(150))[0] == ""
