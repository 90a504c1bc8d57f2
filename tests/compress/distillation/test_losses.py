"""Distillation losses against NumPy closed forms, written from the papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_softmax, rel_entr, softmax

from compress.core.errors import InputError
from compress.data.tasks import VOID, Binary, MultiClass, MultiLabel, Regression
from compress.distillation.losses import apply_by_position
from compress.distillation.losses.dkd import DKD
from compress.distillation.losses.fitnets import FitNets, pool_features
from compress.distillation.losses.hinton import HintonKD
from compress.distillation.objective import build_logit_losses
from tests.compress.distillation.own_losses import Centred
from tests.contracts.distill_loss import FeatureLossContract, LogitLossContract

T = LogitLossContract.temperature


def mean(values: Any, weights: Any) -> float:
    return float((values * weights).sum() / weights.sum())


class TestHinton(LogitLossContract):
    def make(self) -> Any:
        return HintonKD()

    def closed_form(self, student: Any, teacher: Any, weights: Any, labels: Any) -> float:
        log_p, log_q = (log_softmax(x / T, axis=-1) for x in (teacher, student))
        return mean(T * T * (np.exp(log_p) * (log_p - log_q)).sum(-1), weights)

    def test_constants_added_to_logits_do_not_matter(self) -> None:
        student, teacher = self.inputs()
        plain, moved = self.call(student, teacher), self.call(student + 2.0, teacher - 3.0)
        np.testing.assert_allclose(plain, moved, rtol=1e-4, atol=1e-5)


class TestHintonOfLabels(LogitLossContract):
    """Bernoulli divergences, by scipy's rel_entr; extreme logits by logarithms."""

    def make(self) -> Any:
        return HintonKD("sigmoid")

    def closed_form(self, student: Any, teacher: Any, weights: Any, labels: Any) -> float:
        t, s = teacher / T, student / T
        yes = expit(t) * (np.logaddexp(0, -s) - np.logaddexp(0, -t))
        no = expit(-t) * (np.logaddexp(0, s) - np.logaddexp(0, t))
        if max(np.abs(t).max(), np.abs(s).max()) < 30:
            pairs = ((expit(t), expit(s)), (expit(-t), expit(-s)))
            np.testing.assert_allclose(yes + no, sum(rel_entr(p, q) for p, q in pairs), atol=1e-9)
        return mean(T * T * (yes + no).mean(-1), weights)


class TestHintonOfNumbers(LogitLossContract):
    def make(self) -> Any:
        return HintonKD("linear")

    def closed_form(self, student: Any, teacher: Any, weights: Any, labels: Any) -> float:
        return mean(((student - teacher) ** 2).mean(-1), weights)


class TestDKD(LogitLossContract):
    def make(self) -> Any:
        return DKD(alpha=1.5, beta=6.0)

    def closed_form(self, student: Any, teacher: Any, weights: Any, labels: Any) -> float:
        losses = []
        for s, t, label in zip(student / T, teacher / T, labels, strict=True):
            others = np.arange(len(s)) != label
            log_b = [_log_two(x, label, others) for x in (t, s)]
            tckd = (np.exp(log_b[0]) * (log_b[0] - log_b[1])).sum()
            log_p, log_q = log_softmax(t[others]), log_softmax(s[others])
            nckd = (np.exp(log_p) * (log_p - log_q)).sum()
            losses.append(T * T * (1.5 * tckd + 6.0 * nckd))
        return mean(np.array(losses), weights)

    def test_hinton_is_its_sum(self) -> None:
        """The paper's eq. 6: KD = TCKD + (1 - p_target) NCKD."""
        student, teacher = self.inputs()
        labels = np.arange(9) % 4
        given: dict[str, Any] = {"temperature": T, "labels": labels, "weights": np.ones(9)}
        tckd = DKD(1.0, 0.0)(student, teacher, **given)
        nckd = DKD(0.0, 1.0)(student, teacher, **given)
        target = softmax(teacher / T, axis=-1)[np.arange(9), labels]
        whole = HintonKD()(student, teacher, temperature=T)
        np.testing.assert_allclose(tckd + (1 - target) * nckd, whole, rtol=1e-4, atol=1e-5)


def _log_two(logits: Any, label: int, others: Any) -> Any:
    """Log-probabilities of (target, not target)."""
    whole = np.logaddexp.reduce(logits)
    return np.array([logits[label] - whole, np.logaddexp.reduce(logits[others]) - whole])


class TestFitNets(FeatureLossContract):
    def make(self) -> Any:
        return FitNets()

    def closed_form(self, student: Any, teacher: Any, weights: Any, labels: Any) -> float:
        loss = self.built(student, teacher)
        projected = student @ loss.kernel.numpy().astype(np.float64) + loss.bias.numpy()
        return mean(0.5 * ((teacher - projected) ** 2).mean((1, 2, 3)), weights)

    def test_projections_learn(self) -> None:
        import tensorflow as tf

        student, teacher = (tf.constant(x) for x in self.inputs())
        loss = FitNets()
        variables = loss.build((None, 4, 6, 3), (None, 4, 6, 5), np.random.default_rng(0))
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(loss(student, loss.reduced(teacher)))
        kernel, bias = tape.gradient(value, [variable.value for variable in variables])
        assert kernel.shape == (3, 5)
        # d/db of half the mean square = -mean residual / 5
        residual = teacher.numpy() - student.numpy() @ loss.kernel.numpy()
        np.testing.assert_allclose(bias, -residual.mean((0, 1, 2)) / 5, atol=1e-6)

    @pytest.mark.parametrize(
        ("student", "teacher", "common"),
        [
            ((4, 6, 3), (8, 12, 5), (4, 6, 5)),
            ((9, 7, 3), (3, 7, 2), (3, 7, 2)),
            ((10, 3), (7, 4), (7, 4)),
            ((6,), (4,), (4,)),
            ((6,), (5, 5, 4), (4,)),
        ],
    )
    def test_any_shapes(self, student: Any, teacher: Any, common: Any) -> None:
        rng = np.random.default_rng(0)
        s, t = (rng.normal(size=(9, *shape)).astype(np.float32) for shape in (student, teacher))
        loss = self.built(s, t)
        reduced = loss.reduced(t)
        assert reduced.shape == (9, *common)
        assert loss(s, reduced).shape == (9,)


def test_pooling_takes_means_of_windows() -> None:
    x = np.arange(2 * 4 * 6 * 1, dtype=np.float32).reshape(2, 4, 6, 1)
    got = pool_features(x, (2, 3)).numpy()
    np.testing.assert_allclose(got, x.reshape(2, 2, 2, 3, 2, 1).mean((2, 4)))
    # 5 to 3: windows 0-1, 1-3, 3-4, as adaptive average pooling
    line = np.array([[1.0, 2.0, 4.0, 8.0, 16.0]], np.float32)[..., None]
    np.testing.assert_allclose(pool_features(line, (3,))[0, :, 0], [1.5, 14 / 3, 12.0])


def test_hinton_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2) at T = 2: 4 * (3/4 log(3/2) + 1/4 log(1/2))
    teacher = np.array([[2 * np.log(3.0), 0.0]], np.float32)
    expected = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    got = HintonKD()(np.zeros((1, 2), np.float32), teacher, temperature=2.0)
    assert float(got[0]) == pytest.approx(expected, rel=1e-6)


def test_the_example_that_keras_gets_wrong() -> None:
    """T^2 KL is near 9 on such logits where raw logits put into KL give three times as much."""
    import keras

    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=(2, 32, 10)) * 3).astype(np.float32)
    log_p, log_q = (log_softmax(x.astype(np.float64) / 3, axis=-1) for x in (teacher, student))
    expected = 9 * (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    got = np.mean(HintonKD()(student, teacher, temperature=3.0))
    assert got == pytest.approx(expected, rel=1e-5)
    theirs = keras.distillation.LogitsDistillation(temperature=3.0)
    assert float(theirs.compute_loss(teacher, student)) != pytest.approx(expected, rel=0.1)


def test_losses_on_classes_are_refused_elsewhere() -> None:
    assert build_logit_losses("none", Binary()) == {}
    for task in (Binary(), MultiLabel(3), Regression(1)):
        assert list(build_logit_losses("kd", task)) == [""]
        with pytest.raises(InputError, match=f"must be used on classes .softmax.*{task.name} task"):
            build_logit_losses("dkd", task)
    with pytest.raises(InputError, match="Unknown distillation loss 'kl'"):
        build_logit_losses("kl", MultiClass(3))


@pytest.mark.parametrize("loss", [HintonKD(), DKD()])
def test_guessing_is_the_most_that_a_uniform_student_costs(loss: Any) -> None:
    teachers = np.concatenate([np.eye(5) * 1e4, np.random.default_rng(0).normal(size=(20, 5)) * 9])
    labels = np.concatenate([np.arange(5), np.arange(20) % 5])
    costs = loss(
        np.zeros((25, 5), np.float32), teachers.astype(np.float32), temperature=2.0, labels=labels
    )
    assert np.max(costs) <= loss.chance_loss(5, 2.0) * (1 + 1e-5)


def test_void_positions_are_void_to_the_teacher_too() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
    labels = rng.integers(3, size=(5, 6))
    labels[:, 4:] = labels[0] = VOID
    how = {"temperature": 2.0, "labels": tf.constant(labels), "weights": tf.ones(5)}
    found = apply_by_position(HintonKD(), student, teacher, **how, mask=labels != VOID).numpy()
    whole = apply_by_position(HintonKD(), student, teacher, **how).numpy()
    each = 4.0 * rel_entr(softmax(teacher / 2, -1), softmax(student / 2, -1)).sum(-1)
    assert found[0] == 0.0
    np.testing.assert_allclose(found[1:], each[1:, :4].mean(-1), rtol=1e-4)
    np.testing.assert_allclose(whole, each.mean(-1), rtol=1e-4)
    # what stands at void positions changes nothing, in losses over the batch too
    other = teacher.copy()
    other[labels == VOID] = 9.0
    for loss in (HintonKD(), Centred()):
        one, two = (
            apply_by_position(loss, student, given, **how, mask=labels != VOID).numpy()
            for given in (teacher, other)
        )
        np.testing.assert_allclose(one, two, rtol=1e-5)
