"""Every task under the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_expit, log_softmax

from compress.core.plugins import TASKS
from compress.task import Binary, MultiClass, MultiLabel, Regression, Task
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


def test_every_task_is_under_the_contract() -> None:
    assert {kind().task().name for kind in TaskContract.__subclasses__()} == set(TASKS.names())
