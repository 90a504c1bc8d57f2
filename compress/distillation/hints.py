"""Losses on features, each bound to a layer of the student and one of the teacher."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import InputError
from compress.distillation.losses import FeatureLoss
from compress.model.heads import is_activation_layer
from compress.model.internals import maker_of
from compress.model.logits import feature_calls
from compress.model.recording import record
from compress.plan import DistillOptions
from compress.plugins import HINTS

if TYPE_CHECKING:
    import keras

    from compress.data.tasks import Task

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Pair:
    """A layer of the student, one of the teacher, and the shapes of their outputs."""

    student: str
    teacher: str
    student_shape: Shape
    teacher_shape: Shape

    def __str__(self) -> str:
        """Return "student (14, 14, 8) = teacher (14, 14, 16)"."""
        return f"{self.student} {self.student_shape[1:]} = {self.teacher} {self.teacher_shape[1:]}"


@dataclass(frozen=True)
class Hint:
    """A loss, its pair of layers, its weight, and what is trained with it."""

    loss: FeatureLoss
    pair: Pair
    weight: float
    variables: tuple[Any, ...]

    def __str__(self) -> str:
        """Return "fitnets, weight 1: student = teacher"."""
        return f"{self.loss.name}, weight {self.weight:g}: {self.pair}"


def make_hints(
    student: keras.Model,
    teacher: keras.Model,
    options: DistillOptions,
    task: Task,
    seed: int,
) -> list[Hint]:
    """Bind the plan's feature losses to layers: each to all of its pairs.

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
        pairs = (
            named_pairs(student, teacher, named)
            if named
            else chosen_pairs(student, teacher, make(), task)
        )
        for pair in pairs:
            loss = make()
            variables = loss.build(pair.student_shape, pair.teacher_shape, rng)
            hints.append(Hint(loss, pair, loss.weight / len(pairs), tuple(variables)))
    return hints


@dataclass(frozen=True)
class _Output:
    name: str
    shape: Shape
    depth: float  # share of the calls before it


def named_pairs(
    student: keras.Model, teacher: keras.Model, names: Sequence[tuple[str, str]]
) -> list[Pair]:
    """Return the layer pairs that a user named.

    Raises:
        InputError: A layer that does not exist (the nearest names are offered), or one that
            is called several times.
    """
    pairs = []
    for ours, theirs in names:
        shapes = []
        for model, name in ((student, ours), (teacher, theirs)):
            program = record(model)
            feature_calls(program, [name])
            node = next(node for path, node in program.named() if path == name)
            shapes.append(tuple(node.outputs[0].shape))
        pairs.append(Pair(ours, theirs, *shapes))
    return pairs


def chosen_pairs(
    student: keras.Model, teacher: keras.Model, loss: FeatureLoss, task: Task
) -> list[Pair]:
    """Return the layer pairs that suit a loss, by depth and resolution.

    "stages": the last outputs of each resolution that both networks have, else those that
    are nearest in depth; "middle": the middle one of these; "embedding": what the last layer
    with weights is fed.

    Raises:
        InputError: Nothing suits; the message asks for names.
    """
    if loss.where == "embedding":
        ours, theirs = _embedding(student, task), _embedding(teacher, task)
        if ours and theirs:
            return [_pair(ours, theirs)]
    else:
        pairs = _by_stage(_stages(student), _stages(teacher))
        if pairs:
            return pairs if loss.where == "stages" else [pairs[(len(pairs) - 1) // 2]]
    raise InputError(
        f"Layer pairs for hint '{loss.name}' must be found by depth and resolution. Received: "
        f"none in models '{student.name}' and '{teacher.name}'. Name them with hint_pairs."
    )


def _pair(ours: _Output, theirs: _Output) -> Pair:
    return Pair(ours.name, theirs.name, ours.shape, theirs.shape)


def _outputs(model: keras.Model) -> list[_Output]:
    """Return all outputs of layers that are called once, in order, nested ones too."""
    nodes = [(path, node) for path, node in record(model).named() if node.body is None]
    counts = Counter(path for path, _ in nodes)
    return [
        _Output(path, tuple(node.outputs[0].shape), (place + 1) / len(nodes))
        for place, (path, node) in enumerate(nodes)
        if counts[path] == 1 and len(node.outputs) == 1
    ]


def _stages(model: keras.Model) -> list[_Output]:
    """Return the last output at each resolution; of vectors the last hidden one."""
    outputs = [output for output in _outputs(model) if None not in output.shape[1:]]
    last: dict[tuple[int | None, ...], _Output] = {}
    for output in outputs:
        if len(output.shape) > 2:
            last[output.shape[1:-1]] = output
    found = [
        output
        for output in last.values()
        # one position: pooled or flattened away, no stage
        if any((size or 0) > 1 for size in output.shape[1:-1])
    ]
    return found or [output for output in outputs[:-1] if len(output.shape) == 2]


def _by_stage(ours: list[_Output], theirs: list[_Output]) -> list[Pair]:
    """Pair layers of equal resolution; if there are none, the nearest in depth, each layer once."""
    if not ours or not theirs:
        return []
    if len(ours[0].shape) > 2 and len(theirs[0].shape) > 2:
        by_size = {output.shape[1:-1]: output for output in theirs}
        pairs = [
            _pair(output, by_size[output.shape[1:-1]])
            for output in ours
            if output.shape[1:-1] in by_size
        ]
        if pairs:
            return pairs
    pairs, free = [], list(theirs)
    for output in ours:
        if not free:
            break
        near = min(free, key=lambda other: abs(other.depth - output.depth))
        free = free[free.index(near) + 1 :]
        pairs.append(_pair(output, near))
    return pairs


def _embedding(model: keras.Model, task: Task) -> _Output | None:
    """Return the input of the last layer with weights, if a layer made it."""
    last = maker_of(model.outputs[0])
    nodes = [(path, node) for path, node in record(model).named() if node.body is None]
    if is_activation_layer(last, task.activation):
        nodes = [(path, node) for path, node in nodes if node.operation is not last]
    head = next(
        (node for _, node in reversed(nodes) if getattr(node.operation, "weights", [])), None
    )
    if head is None:
        return None
    made = {id(tensor): (path, node) for path, node in nodes for tensor in node.outputs}
    path, node = made.get(id(head.inputs[0]), ("", None))
    if node is None or None in node.outputs[0].shape[1:]:
        return None
    return _Output(path, tuple(node.outputs[0].shape), 1.0)
