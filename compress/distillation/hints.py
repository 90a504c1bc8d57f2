"""Feature distillation: losses on pairs of student and teacher layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.distillation.losses import FeatureLoss, Shape
from compress.model.logits import find_feature_calls
from compress.model.recording import record_program
from compress.plan import DistillOptions
from compress.plugins import HINTS


@dataclass(frozen=True)
class LayerPair:
    """A student layer and a teacher layer, with the shapes of their outputs, batch axis first."""

    student: str
    teacher: str
    student_shape: Shape
    teacher_shape: Shape

    def __str__(self) -> str:
        """Return "student (14, 14, 8) = teacher (14, 14, 16)"."""
        return f"{self.student} {self.student_shape[1:]} = {self.teacher} {self.teacher_shape[1:]}"


@dataclass(frozen=True)
class Hint:
    """A feature loss on a pair of layers, with its weight and its trainable variables."""

    loss: FeatureLoss
    pair: LayerPair
    weight: float
    variables: tuple[Any, ...]

    def __str__(self) -> str:
        """Return "fitnets, weight 1: student = teacher"."""
        return f"{self.loss.name}, weight {self.weight:g}: {self.pair}"


def make_hints(
    student: keras.Model,
    teacher: keras.Model,
    options: DistillOptions,
    seed: int,
) -> list[Hint]:
    """Build the feature losses of the options, each for all of its layer pairs.

    The default weight of a loss is divided evenly among its pairs.

    Args:
        student: The model to be trained.
        teacher: The first teacher.
        options: Names of the feature losses and optionally of the layers.
        seed: Seed of the initial values.

    Returns:
        One hint per loss and layer pair.

    Raises:
        InputError: A layer does not exist, or its shape does not fit the loss.
    """
    layer_names = [(pair.student, pair.teacher) for pair in options.feature_pairs]
    rng = np.random.default_rng(seed)
    hints = []
    for name in options.feature_losses:
        loss_class = HINTS[name]
        pairs = (
            resolve_named_pairs(student, teacher, layer_names)
            if layer_names
            else [choose_pair(student, teacher, name)]
        )
        for pair in pairs:
            loss = loss_class()
            variables = loss.build(pair.student_shape, pair.teacher_shape, rng)
            hints.append(Hint(loss, pair, loss.weight / len(pairs), tuple(variables)))
    return hints


@dataclass(frozen=True)
class _LayerOutput:
    name: str
    shape: Shape
    depth: float  # relative position among the calls, in (0, 1]


def resolve_named_pairs(
    student: keras.Model, teacher: keras.Model, names: Sequence[tuple[str, str]]
) -> list[LayerPair]:
    """Return the layer pairs named by the user.

    Args:
        student, teacher: Models of the layers.
        names: Names of student and teacher layer, one pair each.

    Raises:
        InputError: A layer does not exist (the message suggests similar names), or it is called
            several times.
    """
    pairs = []
    for student_layer, teacher_layer in names:
        shapes = []
        for model, name in ((student, student_layer), (teacher, teacher_layer)):
            node = find_feature_calls(record_program(model), [name])[name]
            shapes.append(tuple(node.outputs[0].shape))
        pairs.append(LayerPair(student_layer, teacher_layer, *shapes))
    return pairs


def choose_pair(student: keras.Model, teacher: keras.Model, loss: str) -> LayerPair:
    """Return the layer pair of a loss, chosen by depth and resolution.

    The last outputs of each resolution that both models have are paired, or else the nearest
    outputs in depth; the middle one of these pairs is returned.

    Args:
        student, teacher: Models of the layers.
        loss: Name of the feature loss, for the error message.

    Raises:
        InputError: There is no suitable pair; the message asks for names.
    """
    pairs = _match_stages(_find_stages(student), _find_stages(teacher))
    if not pairs:
        raise InputError(
            f"Layer pairs for hint '{loss}' must be found by depth and resolution. Received: "
            f"none in models '{student.name}' and '{teacher.name}'. Name them with feature_pairs."
        )
    return pairs[(len(pairs) - 1) // 2]


def _create_pair(student: _LayerOutput, teacher: _LayerOutput) -> LayerPair:
    return LayerPair(student.name, teacher.name, student.shape, teacher.shape)


def _list_outputs(model: keras.Model) -> list[_LayerOutput]:
    """Return the outputs of all layers that are called once, in order, including nested ones."""
    nodes = [(path, node) for path, node in record_program(model).walk_named() if node.body is None]
    counts = Counter(path for path, _ in nodes)
    return [
        _LayerOutput(path, tuple(node.outputs[0].shape), (index + 1) / len(nodes))
        for index, (path, node) in enumerate(nodes)
        if counts[path] == 1 and len(node.outputs) == 1
    ]


def _find_stages(model: keras.Model) -> list[_LayerOutput]:
    """Return the last output at each resolution; for vectors, all hidden outputs."""
    outputs = [output for output in _list_outputs(model) if None not in output.shape[1:]]
    last = {output.shape[1:-1]: output for output in outputs if len(output.shape) > 2}
    stages = [
        output
        for output in last.values()
        # a single position means pooled or flattened features, not a stage
        if any((size or 0) > 1 for size in output.shape[1:-1])
    ]
    return stages or [output for output in outputs[:-1] if len(output.shape) == 2]


def _match_stages(
    student_outputs: list[_LayerOutput], teacher_outputs: list[_LayerOutput]
) -> list[LayerPair]:
    """Pair layers of equal resolution or, if there are none, the nearest in depth."""
    if not student_outputs or not teacher_outputs:
        return []
    if len(student_outputs[0].shape) > 2 and len(teacher_outputs[0].shape) > 2:
        by_size = {output.shape[1:-1]: output for output in teacher_outputs}
        pairs = [
            _create_pair(output, by_size[output.shape[1:-1]])
            for output in student_outputs
            if output.shape[1:-1] in by_size
        ]
        if pairs:
            return pairs
    pairs, free = [], list(teacher_outputs)
    for output in student_outputs:
        if not free:
            break
        nearest = min(free, key=lambda candidate: abs(candidate.depth - output.depth))
        free = free[free.index(nearest) + 1 :]
        pairs.append(_create_pair(output, nearest))
    return pairs
