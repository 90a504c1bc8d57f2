"""Labels at every position: qualities against scikit-learn and by hand, and how they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, r2_score

from compress.core.errors import InputError
from compress.data.tasks import VOID, Masks, Reconstruction, Regression, Segmentation, Tagging


def said(shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_segmentation_against_scikit_learn() -> None:
    labels = np.random.default_rng(0).integers(4, size=(9, 5, 6))
    labels[:2, 1:] = VOID
    scores = said((9, 5, 6, 4), 1)
    true, guess = labels[labels != VOID], scores.argmax(-1)[labels != VOID]
    found = Segmentation(4).quality(labels, scores)
    assert found["mean_iou"] == pytest.approx(jaccard_score(true, guess, average="macro"))
    assert found["dice"] == pytest.approx(f1_score(true, guess, average="macro"))
    assert found["accuracy"] == pytest.approx(accuracy_score(true, guess))
    tagged = Tagging(4).quality(labels[:, 0], scores[:, 0])
    true, guess = labels[:, 0].ravel(), scores[:, 0].argmax(-1).ravel()
    assert tagged["f1_macro"] == pytest.approx(f1_score(true, guess, average="macro"))
    assert tagged["accuracy"] == pytest.approx(accuracy_score(true, guess))


def test_a_class_that_is_nowhere_is_no_part_of_the_mean() -> None:
    labels = np.array([[0, 0, 1, 1]])
    scores = np.eye(3)[[[0, 1, 1, 1]]]
    # class 0: 1 / 2; class 1: 2 / 3; class 2 is neither said nor true
    assert Segmentation(3).quality(labels, scores)["mean_iou"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_always_saying_the_most_frequent_class_is_chance() -> None:
    labels = np.array([[0, 0, 0, 1, 2, VOID]])
    task = Segmentation.for_labels(3, labels)
    constant = np.broadcast_to(np.eye(3, dtype=np.float32)[0], (1, 6, 3))
    assert task.chance(labels) == pytest.approx((3 / 5) / 3)
    assert task.quality(labels, constant)["mean_iou"] == pytest.approx(task.chance(labels))
    tagging = Tagging.for_labels(3, labels)
    assert tagging.quality(labels, constant)["accuracy"] == tagging.chance(labels) == 3 / 5


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_masks_against_scikit_learn(threshold: float) -> None:
    labels = np.random.default_rng(0).integers(2, size=(7, 4, 5, 3)).astype(np.int8)
    scores = said(labels.shape, 1)
    true, guess = labels.reshape(-1, 3), scores.reshape(-1, 3) > threshold
    found = Masks(3).quality(labels, scores, threshold=threshold)
    assert found["mean_iou"] == pytest.approx(jaccard_score(true, guess, average="macro"))
    assert found["dice"] == pytest.approx(f1_score(true, guess, average="macro"))
    assert found["accuracy"] == pytest.approx((true == guess).mean())


def test_regression_by_position_against_scikit_learn() -> None:
    labels = said((6, 3, 4, 2), 0) * [1.0, 5.0]
    scores = (labels + said(labels.shape, 1)).astype(np.float32)
    found = Regression.for_labels(2, labels).quality(labels, scores)
    assert found["r2"] == pytest.approx(r2_score(labels.reshape(-1, 2), scores.reshape(-1, 2)))
    error = scores - labels
    assert found["mae"] == pytest.approx(np.abs(error).mean())
    assert found["rmse"] == pytest.approx(np.sqrt(np.square(error).mean()))


def test_a_target_that_does_not_vary() -> None:
    labels = np.array([[1.0, 2.0], [1.0, 3.0]], np.float32)
    right, wrong = labels, labels + np.array([0.1, 0.0], np.float32)
    task = Regression(2)
    assert task.quality(labels, right)["r2"] == r2_score(labels, right) == 1.0
    assert task.quality(labels, wrong)["r2"] == r2_score(labels, wrong) == 0.5


def test_reconstruction_is_held_against_the_mean_example() -> None:
    x = said((20, 4, 3), 0) + np.arange(12.0, dtype=np.float32).reshape(4, 3)
    made = (x + 0.3 * said(x.shape, 1)).astype(np.float32)
    task = Reconstruction.for_labels(3, x)
    expected = 1 - np.square(made - x).sum() / np.square(x - x.mean(0)).sum()
    assert task.quality(x, made)["r2"] == pytest.approx(expected, rel=1e-5)
    mean = np.broadcast_to(x.mean(0), x.shape)
    assert task.quality(x, mean)["r2"] == pytest.approx(0.0, abs=1e-6)


def test_bytes_of_255_are_void() -> None:
    labels = np.array([[0, 1, 255]], np.uint8)
    assert Tagging.read(labels, "y", (3, 2)).tolist() == [[0, 1, VOID]]


def test_one_hot_and_one_column_are_read_where_the_head_tells() -> None:
    labels = np.random.default_rng(0).integers(3, size=(2, 4, 4))
    for given in (labels, labels[..., None], np.eye(3, dtype=np.uint8)[labels], labels * 1.0):
        np.testing.assert_array_equal(Segmentation.read(given, "y", (4, 4, 3)), labels)
    masks = labels > 0
    assert Masks.read(masks, "y", (4, 4, 1)).shape == (2, 4, 4, 1)
    assert Regression.read(labels * 0.5, "y", (4, 4, 1)).shape == (2, 4, 4, 1)


@pytest.mark.parametrize(
    ("kind", "labels", "shape", "message"),
    [
        (Segmentation, np.zeros((2, 4)), (4, 4, 3), "one a position, of shape .n, size, size."),
        (Segmentation, np.full((2, 4, 4), 0.5), (4, 4, 3), "must be class indices"),
        (Segmentation, np.ones((2, 4, 4, 3)), (4, 4, 3), "class indices or one-hot"),
        (Segmentation, np.zeros(2, int), (), "must be class indices"),
        (Masks, np.full((2, 4, 4), 2), (4, 4, 1), "must be masks of 0 and 1"),
        (Masks, np.zeros((2, 4)), (), "must be masks of 0 and 1"),
        (Regression, np.zeros((2, 0, 1)), (), "at least one target"),
    ],
)
def test_other_labels_are_refused(kind: Any, labels: Any, shape: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind.read(labels, "y", shape)


def test_labels_out_of_range() -> None:
    with pytest.raises(InputError, match=r"must be in \[0, 3\).*Received: 3 in the val part"):
        Segmentation.check(np.array([[0, 3, VOID]]), "val", "data", 3)
    with pytest.raises(InputError, match="of a class somewhere"):
        Tagging.check(np.full((2, 3), VOID), "val", "data", 3)
