"""What every task must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from compress.core.errors import InputError
from compress.data.tasks import Task
from compress.plugins import TASKS
from tests.finite import check_gradient

COUNT = 12


class TaskContract:
    """Inherit, set `names` (classes, labels or targets), and give labels and a closed form."""

    names: int

    def task(self) -> Task:
        raise NotImplementedError

    def labels(self) -> npt.NDArray[Any]:
        """Labels of `COUNT` examples, every class or label among them."""
        raise NotImplementedError

    def right(self) -> npt.NDArray[Any]:
        """Logits, or outputs, that say exactly what the labels do."""
        raise NotImplementedError

    def closed_form(self, labels: npt.NDArray[Any], logits: npt.NDArray[Any]) -> Any:
        """The loss of each example in NumPy and float64."""
        raise NotImplementedError

    def logits(self, seed: int = 0) -> npt.NDArray[np.float32]:
        shape = (COUNT, *self.task().output_shape)
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    def test_its_name_finds_it(self) -> None:
        task = self.task()
        assert TASKS[task.name] is type(task)
        made = type(task).for_labels(self.names, self.labels())
        assert made.outputs == task.outputs
        assert made.name == task.name
        assert made.output_shape == task.output_shape
        assert made.output_shape[-1] == made.outputs

    def test_labels_are_read_checked_and_counted(self) -> None:
        kind, labels = type(self.task()), self.labels()
        kept = kind.read(labels, "y", self.task().output_shape)
        np.testing.assert_allclose(kept, labels, rtol=1e-6)
        kind.check(kept, "train", "data", self.names)
        counts = kind.counts(kept, self.names)
        assert len(counts) == self.names
        assert kind.counted(counts) in (COUNT, None)
        with pytest.raises(InputError, match="y must"):
            kind.read(np.full((COUNT,), "a"), "y")

    def test_tallies_add_up_to_the_qualities(self) -> None:
        task, labels, scores = self.task(), self.labels(), self.logits(5)
        tallies = task.tallies(labels, scores)
        if tallies is None:
            return
        assert len(tallies) == COUNT
        assert task.compute_from_tallies(tallies.sum(0)) == task.quality(labels, scores)

    def test_loss_equals_its_closed_form(self) -> None:
        labels, logits = self.labels(), self.logits()
        losses = self.task().loss(labels, logits)
        assert losses.dtype == "float32"
        assert losses.shape == (COUNT,)
        expected = self.closed_form(labels, logits.astype(np.float64))
        np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5)
        assert np.isclose(self.task().error(labels, logits), np.mean(expected), rtol=1e-5)

    def test_gradient_equals_finite_differences(self) -> None:
        import tensorflow as tf

        labels, logits = self.labels(), self.logits(1)
        x = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(self.task().loss(labels, x))
        check_gradient(
            lambda at: float(np.sum(self.closed_form(labels, at))),
            logits.astype(np.float64),
            tape.gradient(total, x).numpy(),
        )

    def test_what_is_right_has_the_best_quality(self) -> None:
        task, labels, right = self.task(), self.labels(), self.right().astype(np.float32)
        best, other = task.quality(labels, right), task.quality(labels, self.logits(2))
        assert set(task.qualities) <= set(best)
        for name in task.qualities:
            assert best[name] == 1.0
            assert other[name] < 1.0
        assert task.chance(labels) < 1.0
        assert set(task.shares) <= set(task.qualities)

    def test_chance_is_the_best_of_all_constant_answers(self) -> None:
        """No random constant answer beats it, in whatever quality judges."""
        task, labels, random = self.task(), self.labels(), np.random.default_rng(6)
        rows = random.normal(size=(50, task.outputs)).astype(np.float32)
        constants = (np.broadcast_to(row, (COUNT, *task.output_shape)) for row in rows)
        qualities = [task.quality(labels, scores) for scores in constants]
        for name in task.qualities:
            judge = task if name == task.qualities[0] else task.judged_by(name)
            best = judge.chance(labels)
            reached = [judge.quality(labels, np.asarray(scores, np.float32))[name]
                       for scores in judge.constants(labels)]  # fmt: skip
            assert best == pytest.approx(max(reached, default=best), abs=1e-6), name
            assert max(found[name] for found in qualities) <= best + 1e-6, name
            assert judge.chance_error(labels, 1.0) >= 0.0

    def test_values_by_example_have_the_quality_as_their_mean(self) -> None:
        task, labels, scores = self.task(), self.labels(), self.logits(5)
        for name in task.qualities:
            judge = task if name == task.qualities[0] else task.judged_by(name)
            values = judge.example_values(labels, scores)
            assert values.shape == (COUNT,)
            assert values.mean() == pytest.approx(judge.quality(labels, scores)[name])
            if name in task.shares:
                assert set(values) <= {0.0, 1.0}

    def test_agreement_is_with_itself(self) -> None:
        task = self.task()
        assert task.agreement(self.logits(3), self.logits(3)) == 1.0
        assert task.agreement(self.logits(3), self.logits(4)) < 1.0

    def test_guessing_costs_something(self) -> None:
        assert 0.0 < self.task().chance_loss() < np.inf
