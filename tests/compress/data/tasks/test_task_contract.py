"""Every task under the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_expit, log_softmax, softmax

from compress.core.plugins import TASKS
from compress.data.tasks import (
    VOID,
    Answers,
    Binary,
    Masks,
    MultiClass,
    MultiLabel,
    Reconstruction,
    Regression,
    Segmentation,
    Tagging,
    Task,
)
from tests.contracts.task import COUNT, TaskContract


class TestMultiClass(TaskContract):
    names = 4

    def task(self) -> Task:
        return MultiClass(4)

    def labels(self) -> Any:
        return np.arange(COUNT) % 4

    def right(self) -> Any:
        return np.eye(4)[self.labels()]

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return -log_softmax(logits, axis=-1)[np.arange(COUNT), labels]


class TestBinary(TaskContract):
    names = 2

    def task(self) -> Task:
        return Binary()

    def labels(self) -> Any:
        return np.arange(COUNT) % 2

    def right(self) -> Any:
        return self.labels()[:, np.newaxis] - 0.5

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return -log_expit(np.where(labels == 1, logits[:, 0], -logits[:, 0]))


class TestMultiLabel(TaskContract):
    names = 3

    def task(self) -> Task:
        return MultiLabel(3)

    def labels(self) -> Any:
        return np.random.default_rng(0).integers(2, size=(COUNT, 3))

    def right(self) -> Any:
        return self.labels() - 0.5

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return -log_expit(np.where(labels == 1, logits, -logits)).mean(axis=-1)


class TestRegression(TaskContract):
    names = 2

    def task(self) -> Task:
        return Regression(2)

    def labels(self) -> Any:
        return np.random.default_rng(0).normal(size=(COUNT, 2)).astype(np.float32)

    def right(self) -> Any:
        return self.labels()

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return ((logits - labels.astype(np.float64)) ** 2).mean(axis=-1)


class TestAnswersOfASoftmax(TaskContract):
    names = 4

    def task(self) -> Task:
        return Answers.for_labels(4, self.labels())

    def labels(self) -> Any:
        return softmax(np.random.default_rng(0).normal(size=(COUNT, 4)) * 3, axis=-1)

    def right(self) -> Any:
        return np.log(self.labels())

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return -(labels.astype(np.float32) * log_softmax(logits, axis=-1)).sum(-1)


class TestAnswersOfSigmoids(TaskContract):
    names = 3

    def task(self) -> Task:
        return Answers.for_labels(3, self.labels())

    def labels(self) -> Any:
        return np.random.default_rng(0).uniform(0.01, 0.99, (COUNT, 3))

    def right(self) -> Any:
        return np.log(self.labels() / (1 - self.labels()))

    def closed_form(self, labels: Any, logits: Any) -> Any:
        q = labels.astype(np.float32)
        return -(q * log_expit(logits) + (1 - q) * log_expit(-logits)).mean(-1)


class TestAnswersThatAreNumbers(TaskContract):
    names = 2

    def task(self) -> Task:
        return Answers.for_labels(2, self.labels())

    def labels(self) -> Any:
        return np.random.default_rng(0).normal(size=(COUNT, 2)).astype(np.float32)

    def right(self) -> Any:
        return self.labels()

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return ((logits - labels.astype(np.float64)) ** 2).mean(axis=-1)


def test_agreement_by_hand() -> None:
    # two of three rows have the same largest entry
    answers = np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    scores = np.array([[3.0, 1.0], [0.0, 2.0], [-1.0, 1.0]], np.float32)
    assert Answers.for_labels(2, answers).quality(answers, scores)["agreement"] == 2 / 3
    # five of six decisions: scores are logits, then probabilities
    answers = np.array([[0.9, 0.1], [0.8, 0.8], [0.1, 0.3]])
    task, logits = Answers.for_labels(2, answers), np.array([[1.0, -1], [1, 1], [-1, 1]])
    shares = 1 / (1 + np.exp(-logits))
    assert task.quality(answers, logits.astype(np.float32))["agreement"] == 5 / 6
    assert task.quality(answers, shares.astype(np.float32), threshold=0.5)["agreement"] == 5 / 6
    # R2 = 1 - 2 / 8, and never below 0
    answers = np.array([[0.0], [4.0]])
    task = Answers.for_labels(1, answers)
    assert task.quality(answers, np.array([[1.0], [3.0]], np.float32))["agreement"] == 0.75
    assert task.quality(answers, np.array([[9.0], [-9.0]], np.float32))["agreement"] == 0.0


def test_every_task_is_under_the_contract() -> None:
    # several outputs have labels by name, compiled models losses of their own: test_several.py,
    # and test_compiled.py of training
    own = {kind().task().name for kind in TaskContract.__subclasses__()}
    assert own == set(TASKS.names()) - {"several", "custom"}


class TestSegmentation(TaskContract):
    names = 3

    def task(self) -> Task:
        return Segmentation.for_labels(3, self.labels())

    def labels(self) -> Any:
        labels = np.random.default_rng(0).integers(3, size=(COUNT, 4, 5))
        labels[0, 0] = labels[1] = VOID
        return labels

    def right(self) -> Any:
        return np.eye(3)[np.maximum(self.labels(), 0)]

    def closed_form(self, labels: Any, logits: Any) -> Any:
        known = labels != VOID
        each = np.take_along_axis(log_softmax(logits, -1), np.maximum(labels, 0)[..., None], -1)
        total = -(each[..., 0] * known).sum((1, 2))
        return total / np.maximum(known.sum((1, 2)), 1)


class TestTagging(TaskContract):
    names = 4

    def task(self) -> Task:
        return Tagging.for_labels(4, self.labels())

    def labels(self) -> Any:
        labels = np.random.default_rng(1).integers(4, size=(COUNT, 6))
        labels[:, 4:] = VOID
        return labels

    def right(self) -> Any:
        return np.eye(4)[np.maximum(self.labels(), 0)]

    def closed_form(self, labels: Any, logits: Any) -> Any:
        chosen = np.take_along_axis(log_softmax(logits, -1)[:, :4], labels[:, :4, None], -1)
        return -chosen[..., 0].mean(-1)


class TestMasks(TaskContract):
    names = 2

    def task(self) -> Task:
        return Masks.for_labels(2, self.labels())

    def labels(self) -> Any:
        return np.random.default_rng(0).integers(2, size=(COUNT, 3, 4, 2)).astype(np.int8)

    def right(self) -> Any:
        return self.labels() - 0.5

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return -log_expit(np.where(labels == 1, logits, -logits)).mean((1, 2, 3))


class TestRegressionByPosition(TaskContract):
    names = 2

    def task(self) -> Task:
        return Regression.for_labels(2, self.labels())

    def labels(self) -> Any:
        return np.random.default_rng(0).normal(size=(COUNT, 3, 4, 2)).astype(np.float32)

    def right(self) -> Any:
        return self.labels()

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return ((logits - labels.astype(np.float64)) ** 2).mean((1, 2, 3))


class TestReconstruction(TaskContract):
    names = 2

    def task(self) -> Task:
        return Reconstruction.for_labels(2, self.labels())

    def labels(self) -> Any:
        return np.random.default_rng(0).normal(size=(COUNT, 6, 2)).astype(np.float32)

    def right(self) -> Any:
        return self.labels()

    def closed_form(self, labels: Any, logits: Any) -> Any:
        return ((logits - labels.astype(np.float64)) ** 2).mean((1, 2))


class TestAnswersByPosition(TaskContract):
    names = 3

    def task(self) -> Task:
        return Answers.for_labels(3, self.labels())

    def labels(self) -> Any:
        return softmax(np.random.default_rng(0).normal(size=(COUNT, 2, 5, 3)) * 3, axis=-1)

    def right(self) -> Any:
        return np.log(self.labels())

    def closed_form(self, labels: Any, logits: Any) -> Any:
        each = -(labels.astype(np.float32) * log_softmax(logits, axis=-1)).sum(-1)
        return each.mean((1, 2))
