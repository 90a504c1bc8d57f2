"""Heads, losses and metrics against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split
from compress.data.tasks import Binary, MultiClass, MultiLabel, Regression, Task
from compress.data.tasks._base import TalliedTask
from compress.model.heads import check_head, find_decision_threshold
from compress.model.logits import open_logits_view


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_its_definition(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(7, 5)) * 10).astype(np.float32)
    labels = rng.integers(5, size=7)
    target = np.eye(5)[labels] * (1 - smoothing) + smoothing / 5
    expected = -(target * log_softmax(logits.astype(np.float64), axis=-1)).sum(axis=-1)
    got = MultiClass(5, smoothing).loss(labels, logits)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5)
    plain = -log_softmax(logits.astype(np.float64), axis=-1)[np.arange(7), labels]
    # the error judges: it does not smooth
    assert MultiClass(5, smoothing).error(labels, logits) == pytest.approx(plain.mean(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_losses_equal_their_definition(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(9, 4)) * 5).astype(np.float32)
    labels = rng.integers(2, size=(9, 4))
    target = labels * (1 - smoothing) + smoothing / 2
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    each = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    got = MultiLabel(4, smoothing).loss(labels, logits).numpy()
    np.testing.assert_allclose(got, each.mean(-1), rtol=1e-5)
    alone = Binary(smoothing).loss(labels[:, 0], logits[:, :1]).numpy()
    np.testing.assert_allclose(alone, each[:, 0], rtol=1e-5)


def test_squared_error_by_hand() -> None:
    task = Regression(2, variance=3.0)
    labels, outputs = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[2.0, 4.0], [0.0, 3.0]])
    got = task.loss(labels, outputs.astype(np.float32)).numpy()
    np.testing.assert_allclose(got, [(1 + 4) / 2, 9 / 2])
    assert task.chance_loss() == 3.0


def test_quality_by_hand() -> None:
    # class 0: 2 of 3 right, 1 false alarm; class 1: 1 of 1 right; class 2: never predicted
    labels = np.array([0, 0, 0, 1, 2])
    scores = np.eye(3)[[0, 0, 1, 1, 0]].astype(np.float32)
    got = MultiClass(3).quality(labels, scores)
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["precision_macro"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert got["recall_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert got["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)


def test_classes_that_do_not_occur_count_nowhere() -> None:
    """A part without one class, all of it right, is perfect; so says scikit-learn."""
    labels = np.array([0, 1, 1, 0])
    got = MultiClass(3).quality(labels, np.eye(3, dtype=np.float32)[labels])
    assert got == dict.fromkeys(MultiClass.qualities, 1.0)
    # predicted by mistake, it occurs: precision 1, 1, 0; recall 1, 1/2, 0
    got = MultiClass(3).quality(labels, np.eye(3, dtype=np.float32)[[0, 1, 2, 0]])
    assert got["precision_macro"] == pytest.approx(2 / 3)
    assert got["recall_macro"] == pytest.approx(1 / 2)
    assert got["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_macro_qualities_equal_scikit_learn() -> None:
    """Ten classes of which few occur, labels apart from predictions."""
    from sklearn.metrics import f1_score, precision_score, recall_score

    rng = np.random.default_rng(0)
    absent = 0
    for _ in range(40):
        labels = rng.choice(rng.choice(10, 4, replace=False), size=12)
        predicted = np.where(rng.random(12) < 0.7, labels, rng.integers(10, size=12))
        absent += len(np.union1d(labels, predicted)) < 10
        got = MultiClass(10).quality(labels, np.eye(10, dtype=np.float32)[predicted])
        for name, score in (
            ("f1_macro", f1_score),
            ("precision_macro", precision_score),
            ("recall_macro", recall_score),
        ):
            expected = score(labels, predicted, average="macro", zero_division=0)
            assert got[name] == pytest.approx(expected, abs=1e-12), name
    assert absent > 30


def test_binary_quality_by_hand() -> None:
    # yes at 0.9, 0.6, 0.7; right are the first two; one of three positives is missed
    labels = np.array([1, 1, 0, 1, 0])
    probabilities = np.array([[0.9], [0.6], [0.7], [0.2], [0.1]], np.float32)
    got = Binary().quality(labels, probabilities, threshold=0.5)
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["precision"] == pytest.approx(2 / 3)
    assert got["recall"] == pytest.approx(2 / 3)
    assert got["f1"] == pytest.approx(2 / 3)
    # of 3 x 2 pairs (positive, negative) 4 stand in the right order
    assert got["roc_auc"] == pytest.approx(4 / 6)
    logits = np.log(probabilities / (1 - probabilities))
    assert Binary().quality(labels, logits) == pytest.approx(got)


def test_multilabel_quality_by_hand() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0]])
    logits = np.array([[2.0, -1.0], [3.0, -2.0], [1.0, -1.0]], np.float32)  # yes no, yes no, yes no
    got = MultiLabel(2).quality(labels, logits)
    assert got["accuracy"] == pytest.approx(4 / 6)
    assert got["exact_match"] == pytest.approx(1 / 3)
    assert got["f1_macro"] == pytest.approx((2 * 2 / (2 * 2 + 1) + 0) / 2)
    assert got["f1_micro"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_labels_that_do_not_occur_count_nowhere() -> None:
    """scikit-learn's oracle: `zero_division=nan` leaves labels without an F1 out of the mean."""
    from sklearn.metrics import f1_score

    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    perfect = MultiLabel(3).quality(labels, (labels * 2 - 1).astype(np.float32))
    assert perfect == dict.fromkeys(MultiLabel.qualities, 1.0)
    rng, left_out = np.random.default_rng(0), 0
    for _ in range(40):
        labels = (rng.random((6, 8)) < 0.15).astype(np.int64)
        yes = np.where(rng.random((6, 8)) < 0.9, labels, 1 - labels)
        left_out += not (labels | yes).any(axis=0).all()
        got = MultiLabel(8).quality(labels, (yes * 2 - 1).astype(np.float32))
        expected = f1_score(labels, yes, average="macro", zero_division=np.nan)
        assert got["f1_macro"] == pytest.approx(expected, abs=1e-12)
        pooled = f1_score(labels, yes, average="micro", zero_division=0.0)
        assert got["f1_micro"] == pytest.approx(pooled, abs=1e-12)
    assert left_out > 10
    # one label: F1 of "yes", 2 found of 3 named and 3 there; not the mean with that of "no"
    labels, yes = np.array([[1], [1], [1], [0]]), np.array([[1], [1], [-1], [1]], np.float32)
    assert MultiLabel(1).quality(labels, yes)["f1_macro"] == pytest.approx(4 / 6)
    # nothing to find and nothing found: no mean of anything, 0 as scikit-learn has it
    none = np.zeros((2, 3), np.int64)
    got = MultiLabel(3).quality(none, np.full((2, 3), -1, np.float32))
    assert (got["f1_macro"], got["exact_match"]) == (0.0, 1.0)


def test_regression_quality_by_hand() -> None:
    labels = np.array([[0.0], [2.0], [4.0]], np.float32)
    got = Regression(1).quality(labels, np.array([[0.0], [3.0], [4.0]], np.float32))
    assert got["r2"] == pytest.approx(1 - 1 / 8)
    assert got["mae"] == pytest.approx(1 / 3)
    assert got["rmse"] == pytest.approx(np.sqrt(1 / 3))


@pytest.mark.parametrize("head", ["layer", "dense", "none"])
def test_logits_are_found_behind_every_head(head: str, small_cnn: Callable[..., Any]) -> None:
    import keras

    model, plain = small_cnn(softmax=head), small_cnn(softmax="none")
    x = np.random.default_rng(1).normal(size=(6, 8, 8, 1)).astype(np.float32)
    expected = plain(x, training=False).numpy()
    before = model(x, training=False).numpy()
    with open_logits_view(model, MultiClass(10)) as view:
        np.testing.assert_allclose(view(x, training=False).numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(model(x, training=False).numpy(), before)
    if head == "dense":
        assert model.get_layer("last").activation is keras.activations.softmax


def test_probabilities_of_an_unknown_head_give_logits_up_to_a_constant() -> None:
    import keras

    inputs = keras.Input((4,))
    logits = keras.layers.Dense(3, name="d")(inputs)
    model = keras.Model(inputs, keras.ops.softmax(logits))
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    expected = keras.Model(inputs, logits)(x).numpy()
    with open_logits_view(model, MultiClass(3)) as view:
        got = view(x, training=False).numpy()
    np.testing.assert_allclose(
        got - got.mean(-1, keepdims=True), expected - expected.mean(-1, keepdims=True), atol=1e-5
    )


@pytest.mark.parametrize("head", ["layer", "dense", "raw", "none"])
def test_log_odds_are_found_behind_every_head(head: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    logits = keras.layers.Dense(3, name="d", activation="sigmoid" if head == "dense" else None)
    outputs = logits(inputs)
    if head == "layer":
        outputs = keras.layers.Activation("sigmoid")(outputs)
    if head == "raw":
        outputs = keras.ops.sigmoid(outputs)
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    expected = x @ logits.kernel.numpy() + logits.bias.numpy()
    with open_logits_view(model, MultiLabel(3)) as view:
        np.testing.assert_allclose(view(x, training=False).numpy(), expected, atol=1e-5)
    assert find_decision_threshold(model, MultiLabel(3)) == (0.0 if head == "none" else 0.5)


def test_small_logits_are_no_probabilities() -> None:
    import keras

    inputs = keras.Input((4,))
    small = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer="ones")
    model = keras.Model(inputs, small(inputs) * 0.5)
    small.kernel.assign(np.full((4, 1), 1e-2))
    assert find_decision_threshold(model, Binary()) == 0.0
    small.set_weights([np.zeros((4, 1)), np.zeros(1)])
    assert find_decision_threshold(model, Binary()) == 0.0


@pytest.mark.parametrize("head", ["layer", "dense", "none"])
def test_taps_give_features_of_the_same_forward(head: str, small_cnn: Callable[..., Any]) -> None:
    import keras

    model, x = small_cnn(softmax=head), np.random.default_rng(1).normal(size=(6, 8, 8, 1))
    x = x.astype(np.float32)
    features = keras.Model(model.input, [model.get_layer(n).output for n in ("relu", "pool")])
    with open_logits_view(model, MultiClass(10)) as view:
        expected = view(x, training=True).numpy()
    before = [w.copy() for w in model.get_weights()]
    with open_logits_view(model, MultiClass(10), ("relu", "pool")) as view:
        logits, found = view(x, training=True)
    np.testing.assert_array_equal(logits.numpy(), expected)
    assert list(found) == ["relu", "pool"]
    # in training: batch statistics, moved once
    changed = [not np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True)]
    assert sum(changed) == 2
    with open_logits_view(model, MultiClass(10), ("relu", "pool")) as view:
        _, found = view(x, training=False)
    assert list(found) == ["relu", "pool"]
    for got, want in zip(found.values(), features(x, training=False), strict=True):
        np.testing.assert_array_equal(got.numpy(), want.numpy())


def test_taps_reach_into_nested_models_and_offer_names(small_cnn: Callable[..., Any]) -> None:
    import keras

    inner = small_cnn(softmax="none")
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, keras.layers.Softmax()(inner(inputs)))
    x = np.random.default_rng(1).normal(size=(6, 8, 8, 1)).astype(np.float32)
    with open_logits_view(model, MultiClass(10), ("small_cnn/relu",)) as view:
        logits, found = view(x, training=False)
    features = keras.Model(inner.input, inner.get_layer("relu").output)
    np.testing.assert_array_equal(found["small_cnn/relu"], features(x, training=False))
    np.testing.assert_array_equal(logits, inner(x, training=False))
    with (
        pytest.raises(InputError, match=r"Did you mean 'small_cnn/relu'"),
        open_logits_view(model, MultiClass(10), ("small_cnn/relo",)),
    ):
        pass
    again = keras.Model(inputs, inner(inputs) + inner(keras.ops.flip(inputs, axis=1)))
    with (
        pytest.raises(InputError, match=r"called once. Received: layer 'small_cnn/relu'"),
        open_logits_view(again, MultiClass(10), ("small_cnn/relu",)),
    ):
        pass


def test_check_head_names_what_is_wrong(
    digits: Dataset, blobs: Dataset, small_cnn: Callable[..., Any]
) -> None:
    import keras

    model = small_cnn()
    check_head(model, digits)
    few = digits.train.take(np.flatnonzero(digits.train.y < 3))
    three = Dataset("three", few, few, few, ("0", "1", "2"), Preprocessing())
    with pytest.raises(InputError, match=r"output \(batch, 3\) for the data's 3 classes"):
        check_head(model, three)
    with pytest.raises(InputError, match=r"the data's shape \(4,\)"):
        check_head(model, blobs)
    two = keras.Model(model.inputs, [model.output, model.get_layer("last").output])
    with pytest.raises(InputError, match="labels for one output, and a model with .*, last"):
        check_head(two, digits)
    rows = Split(digits.train.x[:9], np.eye(10, dtype=np.int64)[digits.train.y[:9]])
    labels = Dataset(
        "labels", rows, rows, rows, tuple("abcdefghij"), Preprocessing(), (), "multilabel"
    )
    check_head(model, labels)


def test_chance_by_hand() -> None:
    """The best constant answer on the labels, in the quality that judges."""
    labels = np.array([0] * 9 + [1])
    assert MultiClass(2).chance(labels) == 0.9
    # F1 of class 0 is 2 * 9 / (9 + 10), that of class 1 is 0
    assert MultiClass(2).judged_by("f1_macro").chance(labels) == pytest.approx(18 / 19 / 2)
    assert MultiClass(3).judged_by("recall_macro").chance(labels) == 0.5
    assert Binary().chance(labels) == 0.9
    # yes to all: precision 0.1, recall 1
    assert Binary().judged_by("f1").chance(labels) == pytest.approx(2 * 0.1 / 1.1)
    assert Binary().judged_by("roc_auc").chance(labels) == 0.5
    rows = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    task = MultiLabel(3)
    # yes to the first two: 2 * 3/7, 2 * 1/5
    assert task.chance(rows) == pytest.approx((6 / 7 + 2 / 5) / 2)
    assert task.judged_by("f1_micro").chance(rows) == pytest.approx(2 * 3 / (4 + 4))
    assert task.judged_by("accuracy").chance(rows) == pytest.approx(10 / 12)
    assert task.judged_by("exact_match").chance(rows) == 0.5
    numbers = np.random.default_rng(0).normal(3, 2, (50, 2)).astype(np.float32)
    assert Regression.from_labels(numbers).chance(numbers) == 0.0
    assert Regression(1).chance(np.full((5, 1), 0.3, np.float32)) == 1.0


@pytest.mark.slow
def test_errors_of_chance_against_repeated_draws() -> None:
    """Models without information: few are above chance by 1.645 errors, on labels of 90 to 10."""
    random = np.random.default_rng(0)
    beyond = {"accuracy": 0, "f1_macro": 0, "recall_macro": 0, "roc_auc": 0, "r2": 0}
    draws = 80
    for _ in range(draws):
        labels = (random.random(300) < 0.1).astype(np.int64)
        guess = random.normal(size=(300, 2)).astype(np.float32)
        guess[:, 0] += random.uniform(0, 3)  # from one half of each class to one class alone
        value = MultiClass(2).quality(labels, guess)
        value |= {"roc_auc": Binary().quality(labels, guess[:, :1])["roc_auc"]}
        numbers = random.normal(size=(300, 1)).astype(np.float32)
        line = np.polyfit(guess[:, 0], numbers[:, 0], 1)  # as well as unrelated answers can do
        value |= {"r2": Regression(1).quality(numbers, np.polyval(line, guess[:, :1]))["r2"]}
        for name in beyond:
            task: Any = Binary() if name == "roc_auc" else MultiClass(2)
            task = Regression(1) if name == "r2" else task.judged_by(name)
            truth = numbers if name == "r2" else labels
            bar = task.chance(truth) + 1.645 * task.chance_error(truth, value[name])
            beyond[name] += value[name] > bar
    # 5 % (of a fitted R2, which has two sides, 10 %) and three standard errors of that
    for name, count in beyond.items():
        expected = 0.1 if name == "r2" else 0.05
        assert count / draws < expected + 3 * (expected * (1 - expected) / draws) ** 0.5, name


def test_a_task_without_metrics_or_agreement_is_refused_when_it_is_made() -> None:
    members = {
        name: lambda self, *args, **kwargs: None
        for name in ("outputs", "loss", "chance_loss", "constants", "quality", "agreement")
    }
    type("Whole", (Task,), members)()
    for name in ("quality", "agreement"):
        partial = {key: value for key, value in members.items() if key != name}
        with pytest.raises(TypeError, match=f"abstract method '?{name}"):
            type("Partial", (Task,), partial)()
    for name in ("tallies", "compute_from_tallies"):
        partial = dict.fromkeys(("tallies", "compute_from_tallies"), members["loss"]) | members
        del partial[name], partial["quality"]
        with pytest.raises(TypeError, match=f"abstract method '?{name}"):
            type("Partial", (TalliedTask,), partial)()


def test_constant_decisions_and_their_error_by_hand() -> None:
    # of ten examples nine have the first label, eight the second, one the third: micro F1 is
    # 2 x 9 / 28, 2 x 17 / 38 or 2 x 18 / 48 with the first, two or three of them
    labels = np.zeros((10, 3), np.int64)
    labels[:9, 0], labels[:8, 1], labels[:1, 2] = 1, 1, 1
    task = MultiLabel(3).judged_by("f1_micro")
    _, pooled, *_ = task.constants(labels)
    assert (pooled[0] > 0).tolist() == [True, True, False]
    assert task.chance(labels) == pytest.approx(2 * 17 / 38)
    # the variance of U over its largest value: (n + 1) / (12 x yes x no)
    area = Binary().judged_by("roc_auc")
    assert area.chance_error(np.array([1, 1, 1, 0, 0, 0, 0, 0]), 0.5) == pytest.approx(
        math.sqrt(9 / (12 * 3 * 5))
    )
