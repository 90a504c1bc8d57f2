"""What every distillation loss on logits must do."""

from __future__ import annotations

from typing import Any

import numpy as np


class DistillLossContract:
    """Inherit, and return an instance from `make`."""

    def make(self) -> Any:
        raise NotImplementedError

    def test_one_value_per_example(self) -> None:
        student, teacher = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)
        loss = self.make()(student, teacher)
        assert loss.shape == (9,)
        assert loss.dtype == "float32"
        alone = [float(self.make()(student[i : i + 1], teacher[i : i + 1])[0]) for i in range(9)]
        np.testing.assert_allclose(loss, alone, rtol=1e-5, atol=1e-6)

    def test_zero_where_student_equals_teacher(self) -> None:
        teacher = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32) * 3
        np.testing.assert_allclose(self.make()(teacher, teacher), 0.0, atol=1e-5)

    def test_constants_added_to_logits_do_not_matter(self) -> None:
        student, teacher = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)
        plain = self.make()(student, teacher)
        moved = self.make()(student + 2.0, teacher - 3.0)
        np.testing.assert_allclose(plain, moved, rtol=1e-4, atol=1e-5)

    def test_half_precision_inputs_are_computed_in_float32(self) -> None:
        import tensorflow as tf

        student, teacher = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float16)
        exact = self.make()(student.astype(np.float32), teacher.astype(np.float32))
        got = self.make()(tf.constant(student), tf.constant(teacher))
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-6)
