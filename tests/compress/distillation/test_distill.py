"""Distillation as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compress import distill
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan import DistillOptions, TrainSettings
from compress.train import train
from tests.same import same_arrays

ONE = TrainSettings(epochs=1, batch_size=64)


@pytest.mark.slow
def test_heads_do_not_matter(digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]) -> None:
    """Student and teacher that end in softmax give the same student as those that do not."""
    students = []
    for head in ("none", "layer", "dense"):
        student, teacher = small_cnn(0, head), small_cnn(1, head)
        distill(student, teacher, digits, finetune=ONE, device=cpu)
        students.append(student.get_weights())
    assert len(students) == 3
    for other in students[1:]:
        same_arrays(students[0], other)


def test_the_teacher_is_not_touched(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    student, teacher = small_cnn(0), small_cnn(1)
    before = [w.copy() for w in teacher.get_weights()]
    result = distill(student, teacher, digits, finetune=ONE, device=cpu)
    same_arrays(teacher.get_weights(), before)
    assert result.model is student


def test_weight_zero_is_plain_training(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    taught, plain = small_cnn(0), small_cnn(0)
    options = DistillOptions(weight=0.0)
    distill(taught, small_cnn(1), digits, options, finetune=ONE, device=cpu)
    train(plain, digits, ONE, device=cpu)
    same_arrays(taught.get_weights(), plain.get_weights(), atol=1e-6)


@pytest.mark.slow
def test_a_student_learns_from_outputs_alone(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    """With wrong labels and weight 1 the student still learns what the teacher knows."""
    teacher = small_cnn(1)
    train(teacher, digits, TrainSettings(epochs=15, batch_size=32, learning_rate=3e-3), device=cpu)
    shifted = replace(digits, train=replace(digits.train, y=(digits.train.y + 1) % 10))
    student = small_cnn(0)
    result = distill(
        student, teacher, shifted, DistillOptions(weight=1.0),
        finetune=TrainSettings(epochs=25, batch_size=32, learning_rate=3e-3), device=cpu,
    )  # fmt: skip
    assert result.teacher_val["accuracy"] > 0.9
    assert result.training.val["accuracy"] > 0.8


def test_bad_teachers(
    digits: Dataset, blobs: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(10, kernel_initializer="zeros", bias_initializer="zeros")
    model = keras.Model(inputs, x(keras.layers.Flatten()(inputs)))
    model.layers[-1].bias.assign(np.eye(10)[7])
    wrong = replace(digits, val=digits.val.take(np.flatnonzero(digits.val.y != 7)))
    result = distill(small_cnn(), model, wrong, finetune=ONE, device=cpu)
    assert "predicts no better than chance" in result.notes[0]
    with pytest.raises(InputError, match="must take inputs of the data's shape"):
        distill(small_cnn(), model, blobs, finetune=ONE, device=cpu)
