"""A loss on features, bound to a pair of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.plugins import HINTS
from compress.distillation.losses import FeatureLoss
from compress.distillation.pairs import Pair, chosen_pairs, named_pairs
from compress.plan import DistillOptions

if TYPE_CHECKING:
    import keras

    from compress.task import Task


@dataclass(frozen=True)
class Hint:
    """A loss, its pair of layers, its weight, and what is trained with it."""

    loss: FeatureLoss
    pair: Pair
    weight: float
    variables: tuple[Any, ...]

    def __str__(self) -> str:
        """Returns "fitnets, weight 1: student = teacher"."""
        return f"{self.loss.name}, weight {self.weight:g}: {self.pair}"


def make_hints(
    student: keras.Model,
    teacher: keras.Model,
    options: DistillOptions,
    task: Task,
    seed: int,
) -> list[Hint]:
    """Binds the plan's hints to layers: each to all of its pairs.

    The weight of a hint is its usual one, shared out evenly among its pairs.

    Args:
        student: Trained.
        teacher: The first of the teachers.
        options: Names of hints and, if wanted, of layers.
        task: Of the data.
        seed: Of initial values.

    Raises:
        InputError: A layer does not exist, or shapes do not suit a loss.
    """
    named = [(pair.student, pair.teacher) for pair in options.pairs]
    rng = np.random.default_rng(seed)
    hints = []
    for name in options.hints:
        make = HINTS[name]
        pairs: Sequence[Pair] = (
            named_pairs(student, teacher, named)
            if named
            else chosen_pairs(student, teacher, make(), task)
        )
        for pair in pairs:
            loss = make()
            variables = loss.build(pair.student_shape, pair.teacher_shape, rng)
            hints.append(Hint(loss, pair, loss.weight / len(pairs), tuple(variables)))
    return hints
