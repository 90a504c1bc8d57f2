"""Distillation objective, with teacher outputs that are cached or computed at every step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.lazy_modules import keras, tf
from compress.data import Dataset, Preprocessing
from compress.data.tasks import VOID, Several, Task
from compress.distillation.hints import Hint, make_hints
from compress.distillation.losses import LogitLoss, apply_by_position
from compress.distillation.losses.hinton import HintonKD
from compress.distillation.teachers import (
    TeacherCache,
    Teachers,
    blend_logits,
    compute_cache_key,
    find_class_order,
    name_logits,
    open_teacher_cache,
)
from compress.model.heads import check_head
from compress.model.keras_internals import list_layers
from compress.plan import DistillOptions, TrainSettings
from compress.plan.nesting import to_nested
from compress.plugins import LOGIT_LOSSES
from compress.train import Batch, LabelObjective
from compress.train.predict import Predictor


@contextlib.contextmanager
def prepare_distillation(
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
) -> Iterator[tuple[DistillObjective, TeacherCache | None, dict[str, float], list[str]]]:
    """Yield the distillation objective, with its teachers ready or their outputs cached.

    For arguments and errors see `distill`: `models` are the teachers, and `settings` are the
    training settings.

    Yields:
        The objective, the cache of the teacher outputs (None: computed at every step), the
        validation metrics of the blended teachers, and warnings.
    """
    check_head(student, data)
    if any(model is student for model in models):
        raise InputError(
            f"The teacher must be another model than the student. Received: '{student.name}' "
            "twice. Teach a copy (keras.models.clone_model and set_weights)."
        )
    losses = build_logit_losses(options.loss, data.task)
    names = teacher_classes or [None] * len(models)
    scalings = teacher_scalings or [None] * len(models)
    for keyword, entries in (("teacher_classes", names), ("teacher_scalings", scalings)):
        if len(entries) != len(models):
            raise InputError(
                f"{keyword} must have one entry a teacher. Received: {len(entries)} for "
                f"{len(models)}."
            )
    orders = [find_class_order(m, data, n) for m, n in zip(models, names, strict=True)]
    hints = make_hints(student, models[0], options, seed)
    preprocess = data.preprocess
    input_scalings = [
        None
        if scaling is None or scaling.is_equivalent(preprocess)
        else scaling.from_inputs(preprocess)
        for scaling in scalings
    ]
    teachers = Teachers(models, data.task, hints, orders, input_scalings)
    teacher_val, notes = _evaluate_teachers(teachers, models, data)
    examples = len(data.train)
    epochs = settings.count_epochs(settings.count_steps(examples))
    seen = epochs * settings.count_epoch_examples(examples)
    runs_live = bool(settings.augment) or seen < examples  # a cache would hold unused outputs
    report_progress = on_progress and partial(on_progress, "computing the teacher's outputs")
    ready: Any = teachers.prepare() if runs_live else open_teacher_cache(
        teachers, data, folder=cache_folder, on_progress=report_progress
    )  # fmt: skip
    with ready as cached:
        objective = DistillObjective(
            data.task,
            settings.label_smoothing,
            options,
            losses,
            hints,
            teachers=teachers if runs_live else None,
            arrays=cached.arrays if cached else {},
            identity=f"teachers {compute_cache_key(teachers, data)}, {_collect_identity(options)}",
        )
        yield objective, cached, teacher_val, notes + _find_random_layers(student)


def build_logit_losses(name: str, task: Task) -> dict[str, LogitLoss]:
    """Return the named logit loss for each output, by output name.

    If a task has several outputs and the loss is undefined for some of them, "kd" is used for
    those.

    Args:
        name: Name of the loss; "none" gives an empty dictionary.
        task: Task of the data.

    Raises:
        InputError: The loss is defined for no output of the task.
    """
    if name == "none":
        return {}
    loss_class = LOGIT_LOSSES[name]
    losses = {output: loss_class.from_task(part) for output, part in task.parts.items()}
    fits = {output: task.parts[output].activation in loss.activations
            for output, loss in losses.items()}  # fmt: skip
    if not any(fits.values()):
        raise InputError(
            f"Distillation loss '{name}' must be used on classes (softmax). Received: a "
            f"{task.name} task. Use 'kd'."
        )
    return {
        output: loss if fits[output] else HintonKD.from_task(task.parts[output])
        for output, loss in losses.items()
    }


class DistillObjective(LabelObjective):
    """Objective (1 - w) * label loss + w * logit loss + h * sum of weighted feature losses.

    Args:
        task, label_smoothing: Task of the data and smoothing of its label loss.
        options: Options with the temperature T, the weight w and the hint weight h.
        losses: Logit loss of each output, by output name; if empty, w is 0.
        hints: Feature losses.
        teachers: Teachers that run at every step; None: `arrays` holds their outputs.
        arrays: Cached teacher outputs, one row per training example; empty if the teachers run.
        identity: Settings that must match when training resumes, apart from the label loss.
    """

    def __init__(
        self,
        task: Task,
        label_smoothing: float,
        options: DistillOptions,
        losses: Mapping[str, LogitLoss],
        hints: Sequence[Hint],
        *,
        teachers: Teachers | None,
        arrays: Mapping[str, npt.NDArray[Any]],
        identity: str,
    ) -> None:
        super().__init__(task, label_smoothing)
        self.hints, self._losses = hints, losses
        self._teachers, self._arrays = teachers, arrays
        self._temperature, self._hint_weight = options.temperature, options.feature_weight
        self._weight = options.weight if losses else 0.0
        self._output_weights = task.loss_weights if isinstance(task, Several) else {"": 1.0}
        self.feature_layers = tuple(dict.fromkeys(hint.pair.student for hint in hints))
        self.identity = f"{self.identity}, {identity}"

    @property
    def models(self) -> Sequence[Any]:
        """Teachers that run at every step."""
        return () if self._teachers is None else self._teachers.models

    def variables(self) -> list[Any]:
        """Return the variables of the hints' projections."""
        return [variable for hint in self.hints for variable in hint.variables]

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the cached teacher outputs."""
        return self._arrays

    def live(self, inputs: Any) -> Mapping[str, Any]:
        """Run the teachers on the batch of the student, unless their outputs are cached."""
        return {} if self._teachers is None else self._teachers.compute_outputs(inputs)

    def chance_loss(self) -> float:
        """Return the loss of a constant guess, without the hints."""
        label_loss, parts = super().chance_loss(), self.task.parts
        teacher_loss = sum(
            self._output_weights[name] * loss.chance_loss(parts[name].outputs, self._temperature)
            for name, loss in self._losses.items()
        )
        return (1.0 - self._weight) * label_loss + self._weight * teacher_loss

    def loss(self, batch: Batch) -> Any:
        """Return the combined loss of each example, (batch,)."""
        total = (1.0 - self._weight) * super().loss(batch)
        for name, loss in self._losses.items():
            weight = self._weight * self._output_weights[name]
            total += weight * self._compute_logit_loss(name, loss, batch)
        if self.hints:
            total += self._hint_weight * self._compute_hint_loss(batch)
        return total

    def _compute_logit_loss(self, name: str, loss: LogitLoss, batch: Batch) -> Any:
        """Return the logit loss of one output, (batch,)."""
        logits = tf.cast(batch.given[name_logits(name)], tf.float32)
        task = self.task.parts[name]
        labels = batch.labels[name] if name else batch.labels
        return apply_by_position(
            loss,
            batch.logits[name] if name else batch.logits,
            blend_logits(logits, task.activation, self._temperature),
            temperature=self._temperature,
            labels=labels,
            weights=batch.weights,
            # positions without a label, such as padding, are not distilled either
            mask=labels != VOID if task.classes else None,
        )

    def _compute_hint_loss(self, batch: Batch) -> Any:
        """Return the weighted sum of the feature losses, (batch,)."""
        return sum(
            hint.weight
            * hint.loss(
                batch.features[hint.pair.student],
                batch.given[f"teacher_hint{index}"],
                weights=batch.weights,
            )
            for index, hint in enumerate(self.hints)
        )


def _evaluate_teachers(
    teachers: Teachers, models: Sequence[keras.Model], data: Dataset
) -> tuple[dict[str, float], list[str]]:
    """Return the validation metrics of the blended teachers, and a warning if at chance level."""
    task = data.task
    with teachers.prepare():

        def run_teachers(x: Any, **_: Any) -> Any:
            outputs = teachers.compute_outputs(x)
            blended = {
                name: blend_logits(
                    tf.cast(outputs[name_logits(name)], tf.float32), part.activation, 1.0
                )
                for name, part in task.parts.items()
            }
            return blended if len(blended) > 1 else next(iter(blended.values()))

        logits = Predictor(run_teachers, data.preprocess, list(models))(data.val.x)
    labels = data.labels(data.val)
    metrics = task.quality(labels, logits)
    name, chance = task.qualities[0], task.chance(labels)
    if metrics[name] > chance:
        return metrics, []
    teacher_names = ", ".join(f"'{model.name}'" for model in models)
    return metrics, [
        f"the teacher {teacher_names} predicts no better than chance on validation data ({name} "
        f"{metrics[name]:.3f}, the best constant answer {chance:.3f}): is it fed with this scaling?"
    ]


def _find_random_layers(student: keras.Model) -> list[str]:
    """Return a note if the student has layers that augment its inputs at random."""
    layer_names = [
        layer.name
        for layer in list_layers(student)
        if isinstance(layer, keras.layers.Layer)
        and type(layer).__name__.startswith("Random")
        and type(layer).__module__.startswith("keras")
    ]
    return [
        f"the student changes its inputs at random (layer '{name}'), the teacher sees them "
        "unchanged: use augment instead, which both see"
        for name in layer_names[:1]
    ]


_STORED_NAMES = {
    "feature_losses": "hints", "feature_weight": "hint_weight", "feature_pairs": "pairs",
}  # fmt: skip
"""Names of options in the identity of a training, where they differ: those of earlier versions."""


def _collect_identity(options: DistillOptions) -> dict[str, Any]:
    """Return the options that identify a training, in the format of earlier checkpoints."""
    options_by_name = to_nested(options)
    del options_by_name["teacher"]
    return {"teacher_weights": ""} | {
        _STORED_NAMES.get(name, name): tuple(value) if isinstance(value, list) else value
        for name, value in options_by_name.items()
    }
