"""Splitting and scaling."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split, load_data
from compress.data.parts import Output
from compress.data.preprocessing import fit_preprocessing


def test_split_is_stratified_disjoint_and_repeatable(digits: Dataset) -> None:
    counts = digits.counts()
    whole = np.sum([counts[part] for part in ("train", "val", "test")], axis=0)
    # 20 % of 1797 for the test, 15 % of the rest for validation
    assert [len(digits.split(part)) for part in ("train", "val", "test")] == [1221, 216, 360]
    np.testing.assert_allclose(np.asarray(counts["test"]), whole * 0.2, atol=1.0)
    np.testing.assert_allclose(np.asarray(counts["val"]), whole * 0.8 * 0.15, atol=1.0)
    again, other = load_data("digits"), load_data("digits", seed=1)
    assert again.fingerprint() == digits.fingerprint()
    assert other.fingerprint() != digits.fingerprint()


def test_standardize_sees_training_data_only(digits: Dataset) -> None:
    inputs = digits.inputs("train").astype(np.float64)
    assert inputs.mean() == pytest.approx(0.0, abs=1e-5)
    assert inputs.std() == pytest.approx(1.0, abs=1e-5)
    raw = digits.train.x.astype(np.float64) / 16.0
    expected = (digits.test.x / 16.0 - raw.mean()) / raw.std()
    np.testing.assert_allclose(digits.inputs("test"), expected, atol=1e-5)


def test_standardize_per_channel_and_constant_channel() -> None:
    x = np.zeros((50, 2, 2, 2), np.uint8)
    x[..., 0] = np.arange(50)[:, None, None]
    x[..., 1] = 7
    made = fit_preprocessing(x, 255.0, "standardize")
    assert made.mean == pytest.approx((24.5 / 255, 7 / 255))
    assert made.std == pytest.approx((np.arange(50).std() / 255, 1.0))
    assert np.abs(made(x)[..., 1]).max() < 1e-6


def test_statistics_of_many_images_are_those_of_numpy_without_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("compress.data.preprocessing.WHOLE_VALUES", 10**6)
    x = np.random.default_rng(0).integers(0, 256, (1001, 64, 64, 3), np.uint8)
    mean, std = (call(x, (0, 1, 2), np.float64) / 255 for call in (np.mean, np.std))
    tracemalloc.start()
    made = fit_preprocessing(x, 255.0, "standardize")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(made.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(made.std, std, rtol=1e-9)
    assert peak < x.nbytes  # np.std takes eight times as much


@pytest.mark.parametrize(("mode", "expected"), [("unit", 10 / 255), ("none", 10.0)])
def test_other_scalings(mode: str, expected: float) -> None:
    x = np.full((3, 2, 2, 1), 10, np.uint8)
    assert fit_preprocessing(x, 255.0, mode)(x) == pytest.approx(expected)


def test_preprocessing_survives_json(digits: Dataset) -> None:
    stored = Preprocessing.from_json(digits.preprocess.to_json())
    assert stored == digits.preprocess
    with pytest.raises(InputError, match="must hold scale, mean and std"):
        Preprocessing.from_json({"scale": 1.0})


def test_stored_preprocessing_must_fit() -> None:
    with pytest.raises(InputError, match="for 3 channels"):
        load_data("digits", preprocess=Preprocessing(1.0, (0.0,) * 3, (1.0,) * 3))


def part(labels: list[int], shape: tuple[int, ...] = (2,)) -> Split:
    return Split(np.zeros((len(labels), *shape), np.float32), np.asarray(labels))


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (part([0, 1]), part([0, 2]), r"in \[0, 2\).*Received: 2 in the val part"),
        (part([0, 0]), part([0]), "no example of class 1"),
        (part([0, 1]), part([0], (3,)), "one shape"),
        (part([0, 1]), part([]), "must not be empty"),
        (part([0, 1]), Split(np.zeros((2, 2)), np.zeros(1, np.int64)), "equal lengths"),
    ],
)
def test_dataset_refusals(train: Split, val: Split, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dataset("d", train, val, part([0, 1]), ("a", "b"), Preprocessing())


@pytest.mark.parametrize("name", ["val_fraction", "test_fraction"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1])
def test_fractions(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} must be in \(0, 1\)"):
        load_data("digits", **{name: value})  # type: ignore[arg-type]


def test_a_class_too_small_to_split(tmp_path: object) -> None:
    path = f"{tmp_path}/d.npz"
    np.savez(path, x_train=np.zeros((9, 2)), y_train=np.array([0] * 8 + [1]))
    with pytest.raises(InputError, match="enough examples of each class"):
        load_data(path)


def test_scalings_and_tasks_by_name_are_part_of_the_fingerprint() -> None:
    """A teacher's cache of another scaling would be taken for this one's."""
    x = {"a": np.arange(40.0, dtype=np.float32).reshape(20, 2), "b": np.ones((20, 3), np.float32)}
    y = {"one": np.zeros((20, 1), np.float32), "two": np.ones((20, 1), np.float32)}
    split = Split(x, y)

    def made(scale: float, kind: str) -> Dataset:
        scaling = Preprocessing(columns=(("a", Preprocessing(scale)),))
        outputs = tuple(Output(name, kind, ("0",)) for name in y)
        return Dataset(
            "d", split, split, split, tuple(y), scaling, (), "several", outputs=outputs
        )  # fmt: skip

    found = [made(1.0, "regression"), made(2.0, "regression"), made(1.0, "unlabelled")]
    assert len({data.fingerprint() for data in found}) == 3
    assert made(1.0, "regression").fingerprint() == found[0].fingerprint()
    assert found[0].preprocess.identity != found[1].preprocess.identity
    assert Preprocessing().identity == repr(Preprocessing())
