"""Distillation losses against closed forms in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from compress.distill.losses import HintonKD
from compress.distill.objective import DistillObjective
from compress.errors import InputError
from compress.task import CrossEntropy
from tests.contracts.distill_loss import DistillLossContract


class TestHintonKD(DistillLossContract):
    def make(self) -> HintonKD:
        return HintonKD(4.0)


def closed_form(student: np.ndarray, teacher: np.ndarray, temperature: float) -> np.ndarray:
    """T^2 * sum p log(p / q) by SciPy's relative entropy, in float64."""
    p = softmax(teacher.astype(np.float64) / temperature, axis=-1)
    q = softmax(student.astype(np.float64) / temperature, axis=-1)
    return temperature**2 * rel_entr(p, q).sum(axis=-1)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_hinton_equals_its_closed_form(temperature: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 32, 10)).astype(np.float32) * 5
    got = HintonKD(temperature)(student, teacher).numpy()
    np.testing.assert_allclose(
        got, closed_form(student, teacher, temperature), rtol=1e-4, atol=1e-5
    )


def test_hinton_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2) at T = 2: 4 * (3/4 log(3/2) + 1/4 log(1/2))
    teacher = np.array([[2 * np.log(3.0), 0.0]], np.float32)
    expected = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    got = HintonKD(2.0)(np.zeros((1, 2), np.float32), teacher)
    assert float(got[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "logits",
    [[1e4, -1e4, 0.0], [7.0, 7.0, 7.0], [-300.0, -200.0, -100.0]],
    ids=["extreme", "equal", "negative"],
)
def test_hinton_on_extreme_logits(logits: list[float]) -> None:
    student = np.array([[0.5, -0.5, 0.0]], np.float32)
    teacher = np.array([logits], np.float32)
    t = 4.0
    log_p = log_softmax(teacher.astype(np.float64) / t, axis=-1)
    log_q = log_softmax(student.astype(np.float64) / t, axis=-1)
    expected = t * t * (np.exp(log_p) * (log_p - log_q)).sum()
    got = HintonKD(t)(student, teacher).numpy()[0]
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_hinton_gradient_is_t_times_the_difference() -> None:
    """d/ds of T^2 KL(p || softmax(s / T)) = T (q - p)."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    student, teacher = (tf.constant(x) for x in rng.normal(size=(2, 4, 6)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = tf.reduce_sum(HintonKD(3.0)(student, teacher))
    expected = 3.0 * (tf.nn.softmax(student / 3.0) - tf.nn.softmax(teacher / 3.0))
    np.testing.assert_allclose(tape.gradient(loss, student), expected, atol=1e-5)


def test_temperature_must_be_positive() -> None:
    with pytest.raises(InputError, match="temperature must be above 0. Received: 0"):
        HintonKD(0.0)


def test_the_mixture_is_weighted() -> None:
    rng = np.random.default_rng(2)
    student, teacher = rng.normal(size=(2, 8, 5)).astype(np.float32)
    labels = rng.integers(5, size=8)
    objective = DistillObjective(CrossEntropy(5), HintonKD(2.0), teacher, 0.3)
    np.testing.assert_array_equal(objective.arrays()["teacher_logits"], teacher)
    hard = -log_softmax(student.astype(np.float64), axis=-1)[np.arange(8), labels]
    expected = 0.7 * hard + 0.3 * closed_form(student, teacher, 2.0)
    got = objective.loss(labels, student, {"teacher_logits": teacher})
    np.testing.assert_allclose(got, expected, rtol=1e-4)
