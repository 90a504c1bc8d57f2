"""What a training needs to be taught: the objective, with its teachers ready or cached."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing
from compress.distillation.cache import Cached, cache_key, teacher_cache
from compress.distillation.hints import Hint, make_hints
from compress.distillation.losses import logit_losses
from compress.distillation.objective import DistillObjective
from compress.distillation.teachers import Teachers, blended, class_order, logits_of
from compress.model.heads import check_head
from compress.model.internals import layers_inside
from compress.plan import DistillOptions, TrainSettings
from compress.plan.fields import to_nested
from compress.plan.forms import text_of
from compress.train import LabelObjective

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class DistillationSetup:
    """What a training needs to be taught.

    Attributes:
        objective: For `compress.train.train`.
        hints: Losses on features with their layers.
        cached: The teachers' outputs; None where they run at every step.
        teacher_val: Validation quality of the teachers together.
        notes: Warnings.
    """

    objective: DistillObjective
    hints: Sequence[Hint]
    cached: Cached | None
    teacher_val: dict[str, float]
    notes: tuple[str, ...]


@contextlib.contextmanager
def teaching(
    student: keras.Model,
    models: Sequence[keras.Model],
    data: Dataset,
    options: DistillOptions,
    settings: TrainSettings,
    *,
    seed: int = 0,
    teacher_classes: Sequence[Sequence[str] | None] | None = None,
    teacher_scalings: Sequence[Preprocessing | None] | None = None,
    cache_folder: Path | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> Iterator[DistillationSetup]:
    """Gives the objective that teaches a student, with its teachers ready or cached.

    Args, Raises: see `distill`.
    """
    weights = teacher_shares(options, len(models))
    check_head(student, data)
    if any(model is student for model in models):
        raise InputError(
            f"The teacher must be another model than the student. Received: '{student.name}' "
            "twice. Teach a copy (keras.models.clone_model and set_weights)."
        )
    losses = logit_losses(options.loss, data.task)
    names = list(teacher_classes or [None] * len(models))
    if len(names) != len(models):
        raise InputError(
            f"teacher_classes must have one entry a teacher. Received: {len(names)} for "
            f"{len(models)}."
        )
    orders = [class_order(m, data, n) for m, n in zip(models, names, strict=True)]
    hints = make_hints(student, models[0], options, data.task, seed)
    scalings = list(teacher_scalings or [None] * len(models))
    if len(scalings) != len(models):
        raise InputError(
            f"teacher_scalings must have one entry a teacher. Received: {len(scalings)} for "
            f"{len(models)}."
        )
    own = data.preprocess
    teachers = Teachers(
        models,
        data.task,
        hints,
        orders,
        [None if of is None or of.same_as(own) else of.from_inputs(own) for of in scalings],
    )
    teacher_val, notes = _judged(teachers, models, data, weights)
    live = bool(settings.augment) or options.cache == "off"
    with contextlib.ExitStack() as stack:
        cached: Cached | None = None
        if live:
            stack.enter_context(teachers.running())
        else:
            told = (
                None
                if on_progress is None
                else partial(on_progress, "computing the teacher's outputs")
            )
            cached = stack.enter_context(
                teacher_cache(
                    teachers,
                    data,
                    where=options.cache,
                    limit=options.cache_limit,
                    folder=cache_folder,
                    on_progress=told,
                )
            )
        objective = DistillObjective(
            LabelObjective(data.task, settings.label_smoothing),
            losses,
            hints,
            teachers=teachers if live else None,
            arrays=cached.arrays if cached else {},
            teacher_weights=weights,
            temperature=options.temperature,
            weight=options.weight,
            hint_weight=options.hint_weight,
            identity=_identity(options, teachers, data),
        )
        notes += _random_layers(student)
        yield DistillationSetup(objective, hints, cached, teacher_val, tuple(notes))


def teacher_shares(options: DistillOptions, count: int) -> list[float]:
    """Returns the weights of so many teachers, which sum to 1.

    Raises:
        InputError: The plan has weights for another number of them.
    """
    given = list(options.teacher_weights) or [1.0] * count
    if len(given) != count:
        raise InputError(
            f"teacher_weights must have one number a teacher. Received: {len(given)} for {count}."
        )
    return [weight / sum(given) for weight in given]


def _judged(
    teachers: Teachers, models: Sequence[keras.Model], data: Dataset, weights: Sequence[float]
) -> tuple[dict[str, float], list[str]]:
    """Returns the teachers' validation quality, and a warning where it is that of chance."""
    import tensorflow as tf

    from compress.train.predict import Predictor

    task = data.task
    with teachers.running():

        def view(x: Any, **_: Any) -> Any:
            made = teachers.outputs(x)
            found = {
                name: blended(
                    tf.cast(made[logits_of(name)], tf.float32), weights, part.activation, 1.0
                )
                for name, part in task.parts.items()
            }
            return found if len(found) > 1 else next(iter(found.values()))

        logits = Predictor(view, data.preprocess, list(models))(data.val.x)
    labels = data.labels(data.val)
    found = task.quality(labels, logits)
    name, chance = task.qualities[0], task.chance(labels)
    if found[name] > chance:
        return found, []
    who = ", ".join(f"'{model.name}'" for model in models)
    return found, [
        f"the teacher {who} predicts no better than chance on validation data ({name} "
        f"{found[name]:.3f}, the best constant answer {chance:.3f}): is it fed with this scaling?"
    ]


def _random_layers(student: keras.Model) -> list[str]:
    """Returns a note where the student itself changes its inputs at random."""
    import keras

    found = [
        layer.name
        for layer in layers_inside(student)
        if isinstance(layer, keras.layers.Layer)
        and type(layer).__name__.startswith("Random")
        and type(layer).__module__.startswith("keras")
    ]
    if not found:
        return []
    return [
        f"the student changes its inputs at random (layer '{found[0]}'), the teacher sees them "
        "unchanged: use augment instead, which both see"
    ]


def _identity(options: DistillOptions, teachers: Teachers, data: Dataset) -> str:
    return f"teachers {cache_key(teachers, data)}, {_taught(options)}"


def _taught(options: DistillOptions) -> dict[str, Any]:
    """Returns what decides a training, written as in checkpoints of earlier versions."""
    written = {"teacher_weights": text_of(options.teacher_weights)}
    return {
        name: written.get(name, tuple(value) if isinstance(value, list) else value)
        for name, value in to_nested(options).items()
        if name not in ("cache", "cache_limit", "teacher")
    }
