"""What every distillation loss must do."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.finite import check_gradient

LABELS = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0])


def random_logits(seed: int = 0, scale: float = 2.0) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(2, 9, 4)) * scale).astype(np.float32)


class LossContract:
    """Inherit, and return an instance from `make` and two inputs from `inputs`.

    `call(student, teacher, weights)` returns the loss per example as an array.
    """

    def make(self) -> Any:
        raise NotImplementedError

    def inputs(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def call(self, student: Any, teacher: Any, weights: Any = None, labels: Any = LABELS) -> Any:
        raise NotImplementedError

    def closed_form(self, student: Any, teacher: Any, weights: Any, labels: Any) -> Any:
        """The whole loss, a number, in float64."""
        raise NotImplementedError

    def total(self, student: Any, teacher: Any, weights: Any, labels: Any = LABELS) -> float:
        losses = np.asarray(self.call(student, teacher, weights, labels), np.float64)
        return float((losses * weights).sum() / weights.sum())

    def check(self, student: Any, teacher: Any, weights: Any = None) -> None:
        weights = np.ones(len(student)) if weights is None else weights
        labels = LABELS[: len(student)]
        wide = (np.asarray(student, np.float64), np.asarray(teacher, np.float64))
        expected = self.closed_form(*wide, weights, labels)
        got = self.total(student, teacher, weights.astype(np.float32), labels)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)

    def test_one_float32_value_an_example(self) -> None:
        losses = self.call(*self.inputs())
        assert losses.shape == (9,)
        assert losses.dtype == "float32"

    def test_equals_its_closed_form(self) -> None:
        self.check(*self.inputs())

    def test_equals_its_closed_form_with_weights(self) -> None:
        self.check(*self.inputs(), np.random.default_rng(5).uniform(0.1, 3, 9))

    def test_equals_its_closed_form_in_half_precision(self) -> None:
        student, teacher = (np.asarray(x).astype(np.float16) for x in self.inputs())
        self.check(student, teacher)

    def test_an_example_of_weight_two_counts_like_two(self) -> None:
        student, teacher = self.inputs()
        weights = np.ones(9, np.float32)
        weights[[2, 5]] = 2.0
        twice = np.array([0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8])
        once = self.total(student, teacher, weights)
        repeated = self.total(
            student[twice], teacher[twice], np.ones(11, np.float32), LABELS[twice]
        )
        np.testing.assert_allclose(once, repeated, rtol=1e-5, atol=1e-6)

    def test_weight_zero_is_absence(self) -> None:
        student, teacher = self.inputs()
        weights = np.ones(9, np.float32)
        weights[4] = 0.0
        there = np.delete(np.arange(9), 4)
        absent = self.total(student[there], teacher[there], np.ones(8, np.float32), LABELS[there])
        np.testing.assert_allclose(self.total(student, teacher, weights), absent, rtol=1e-5)

    def test_gradient_equals_finite_differences_of_the_closed_form(self) -> None:
        import tensorflow as tf

        student, teacher = self.inputs()
        weights = np.random.default_rng(3).uniform(0.5, 2, 9)
        x = tf.constant(student)
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = self.call(x, teacher, weights.astype(np.float32))
            total = tf.reduce_sum(losses * weights.astype(np.float32)) / float(weights.sum())
        check_gradient(
            lambda s: self.closed_form(s, np.asarray(teacher, np.float64), weights, LABELS),
            np.asarray(student, np.float64),
            tape.gradient(total, x).numpy(),
        )


class LogitLossContract(LossContract):
    """A loss on logits; set `temperature` if another is wanted."""

    temperature = 3.0

    def inputs(self) -> tuple[Any, Any]:
        student, teacher = random_logits()
        return student, teacher

    def call(self, student: Any, teacher: Any, weights: Any = None, labels: Any = LABELS) -> Any:
        import tensorflow as tf

        weights = tf.ones((len(labels),)) if weights is None else weights
        return self.make()(
            tf.convert_to_tensor(student),
            tf.convert_to_tensor(teacher),
            temperature=self.temperature,
            labels=labels,
            weights=weights,
        )

    def test_extreme_logits(self) -> None:
        student, teacher = random_logits(1)
        for rows in ([1e4, -1e4, 0.0, 5.0], [7.0] * 4, [-300.0, -200.0, -100.0, -150.0]):
            extreme = np.tile(np.array(rows, np.float32), (9, 1))
            self.check(student, extreme)
            self.check(extreme, teacher)
            self.check(extreme, extreme)

    def test_extreme_logits_have_finite_gradients(self) -> None:
        import tensorflow as tf

        for scale in (0.0, 1e4):
            student, teacher = (tf.constant(x) for x in random_logits(2, scale))
            with tf.GradientTape() as tape:
                tape.watch(student)
                losses = self.call(student, teacher)
            assert np.isfinite(tape.gradient(losses, student).numpy()).all()


class FeatureLossContract(LossContract):
    """A loss on features of different widths."""

    def inputs(self) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        student = rng.normal(size=(9, 4, 6, 3)).astype(np.float32)
        return student, rng.normal(size=(9, 4, 6, 5)).astype(np.float32)

    def built(self, student: Any, teacher: Any) -> Any:
        loss = self.make()
        shapes = ((None, *student.shape[1:]), (None, *teacher.shape[1:]))
        loss.build(*shapes, np.random.default_rng(0))
        return loss

    def call(self, student: Any, teacher: Any, weights: Any = None, labels: Any = LABELS) -> Any:
        import tensorflow as tf

        weights = tf.ones((len(labels),)) if weights is None else tf.cast(weights, tf.float32)
        student, teacher = tf.convert_to_tensor(student), tf.convert_to_tensor(teacher)
        loss = self.built(student, teacher)
        return loss(student, loss.reduced(teacher), weights=weights)

    def test_dead_features_have_finite_gradients(self) -> None:
        import tensorflow as tf

        student, teacher = self.inputs()
        zeros = tf.zeros_like(student)
        with tf.GradientTape() as tape:
            tape.watch(zeros)
            losses = self.call(zeros, teacher)
        assert np.isfinite(losses.numpy()).all()
        assert np.isfinite(tape.gradient(losses, zeros).numpy()).all()
        assert np.isfinite(self.call(student, np.zeros_like(teacher)).numpy()).all()
