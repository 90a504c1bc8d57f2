"""The distillation objective, with the teachers' outputs cached or computed at every step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing
from compress.data.tasks import VOID, Several, Task
from compress.distillation.hints import Hint, make_hints
from compress.distillation.losses import LogitLoss, by_position
from compress.distillation.losses.hinton import HintonKD
from compress.distillation.teachers import (
    Cached,
    Teachers,
    blended,
    cache_key,
    class_order,
    logits_of,
    teacher_cache,
)
from compress.model.heads import check_head
from compress.model.internals import layers_inside
from compress.plan import DistillOptions, Ramp, TrainSettings
from compress.plan.fields import to_nested
from compress.plan.forms import text_of
from compress.plugins import LOGIT_LOSSES
from compress.train import Batch, LabelObjective
from compress.train.predict import Predictor

if TYPE_CHECKING:
    import keras


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
) -> Iterator[tuple[DistillObjective, Cached | None, dict[str, float], list[str]]]:
    """Yield the distillation objective, with its teachers ready or their outputs cached.

    Args, Raises: see `distill`.

    Yields:
        The objective, the teachers' outputs (None: they run at every step), the validation quality
        of the teachers together, and warnings.
    """
    weights = teacher_shares(options, len(models))
    check_head(student, data)
    if any(model is student for model in models):
        raise InputError(
            f"The teacher must be another model than the student. Received: '{student.name}' "
            "twice. Teach a copy (keras.models.clone_model and set_weights)."
        )
    losses = logit_losses(options.loss, data.task)
    names = teacher_classes or [None] * len(models)
    scalings = teacher_scalings or [None] * len(models)
    for keyword, entries in (("teacher_classes", names), ("teacher_scalings", scalings)):
        if len(entries) != len(models):
            raise InputError(
                f"{keyword} must have one entry a teacher. Received: {len(entries)} for "
                f"{len(models)}."
            )
    orders = [class_order(m, data, n) for m, n in zip(models, names, strict=True)]
    hints = make_hints(student, models[0], options, data.task, seed)
    own = data.preprocess
    fed = [None if of is None or of.same_as(own) else of.from_inputs(own) for of in scalings]
    teachers = Teachers(models, data.task, hints, orders, fed)
    teacher_val, notes = _judged(teachers, models, data, weights)
    live = bool(settings.augment) or options.cache == "off"
    told = on_progress and partial(on_progress, "computing the teacher's outputs")
    ready: Any = teachers.running() if live else teacher_cache(
        teachers, data, where=options.cache, limit=options.cache_limit, folder=cache_folder,
        on_progress=told,
    )  # fmt: skip
    with ready as cached:
        objective = DistillObjective(
            data.task,
            settings.label_smoothing,
            options,
            losses,
            hints,
            weights,
            teachers=teachers if live else None,
            arrays=cached.arrays if cached else {},
            identity=f"teachers {cache_key(teachers, data)}, {_taught(options)}",
        )
        yield objective, cached, teacher_val, notes + _random_layers(student)


def logit_losses(name: str, task: Task) -> dict[str, LogitLoss]:
    """Return the named loss on the logits of each output, by the output's name.

    Outputs that it is not defined for, beside others that it is, are taught by "kd". Of "none"
    there are none.

    Raises:
        InputError: The loss is defined for no output of the task.
    """
    if name == "none":
        return {}
    kind = LOGIT_LOSSES[name]
    made = {output: kind.of(part) for output, part in task.parts.items()}
    fits = {output: task.parts[output].activation in loss.activations
            for output, loss in made.items()}  # fmt: skip
    if not any(fits.values()):
        raise InputError(
            f"Distillation loss '{name}' must be used on classes (softmax). Received: a "
            f"{task.name} task. Use 'kd'."
        )
    return {
        output: loss if fits[output] else HintonKD.of(task.parts[output])
        for output, loss in made.items()
    }


def teacher_shares(options: DistillOptions, count: int) -> list[float]:
    """Return the teachers' weights, which sum to 1.

    Raises:
        InputError: The plan has weights for another number of them.
    """
    given = list(options.teacher_weights) or [1.0] * count
    if len(given) != count:
        raise InputError(
            f"teacher_weights must have one number a teacher. Received: {len(given)} for {count}."
        )
    return [weight / sum(given) for weight in given]


class DistillObjective(LabelObjective):
    """(1 - w) * label loss + w * loss on logits + h * sum of hints, each with its weight.

    Args:
        task, label_smoothing: Of the label loss.
        options: T, w and h: temperature, weight and hint_weight.
        losses: On the logits of each output, by its name; none: w is taken as 0.
        hints: On features.
        shares: Of the teachers; sum 1.
        teachers: Where they run at every step; None: `arrays` holds their outputs.
        arrays: The teachers' outputs, one row a training example; empty where they run.
        identity: What a training that goes on must agree in, the label loss apart.
    """

    def __init__(
        self,
        task: Task,
        label_smoothing: float,
        options: DistillOptions,
        losses: Mapping[str, LogitLoss],
        hints: Sequence[Hint],
        shares: Sequence[float],
        *,
        teachers: Teachers | None,
        arrays: Mapping[str, npt.NDArray[Any]],
        identity: str,
    ) -> None:
        super().__init__(task, label_smoothing)
        self.hints, self._losses, self._shares = hints, losses, shares
        self._teachers, self._arrays = teachers, arrays
        self._temperature, self._hint_weight = options.temperature, options.hint_weight
        self._weight = options.weight if losses else Ramp(0.0, 0.0)
        self._outputs = task.loss_weights if isinstance(task, Several) else {"": 1.0}
        self.feature_layers = tuple(dict.fromkeys(hint.pair.student for hint in hints))
        self.identity = f"{self.identity}, {identity}"

    @property
    def models(self) -> Sequence[Any]:
        """The teachers that run in every step."""
        return () if self._teachers is None else self._teachers.models

    def variables(self) -> list[Any]:
        """Return the hints' projections."""
        return [variable for hint in self.hints for variable in hint.variables]

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the cached outputs of the teachers."""
        return self._arrays

    def live(self, inputs: Any) -> Mapping[str, Any]:
        """Run the teachers on the batch that the student sees, unless they are cached."""
        return {} if self._teachers is None else self._teachers.outputs(inputs)

    def chance_loss(self) -> float:
        """Return the largest loss of a guess at any time; that of the hints shows at the start."""
        labels, parts = super().chance_loss(), self.task.parts
        taught = sum(
            self._outputs[name] * loss.chance_loss(parts[name].outputs, self._temperature.largest)
            for name, loss in self._losses.items()
        )
        return max(
            (1.0 - w) * labels + w * taught for w in (self._weight.smallest, self._weight.largest)
        )

    def loss(self, batch: Batch) -> Any:
        """Return the mixed loss per example, (batch,)."""
        w, h = self._weight.at(batch.progress), self._hint_weight.at(batch.progress)
        total = (1.0 - w) * super().loss(batch)
        for name, loss in self._losses.items():
            total += w * self._outputs[name] * self._taught(name, loss, batch)
        if self.hints:
            total += h * self._hinted(batch)
        return total

    def _taught(self, name: str, loss: LogitLoss, batch: Batch) -> Any:
        """Return the loss on the logits of one output, (batch,)."""
        import tensorflow as tf

        temperature = self._temperature.at(batch.progress)
        logits = tf.cast(batch.given[logits_of(name)], tf.float32)
        task = self.task.parts[name]
        labels = batch.labels[name] if name else batch.labels
        return by_position(
            loss,
            batch.logits[name] if name else batch.logits,
            blended(logits, self._shares, task.activation, temperature),
            temperature=temperature,
            labels=labels,
            weights=batch.weights,
            # what is not learnt from labels is not learnt from the teacher: padding, say
            known=labels != VOID if task.classes else None,
        )

    def _hinted(self, batch: Batch) -> Any:
        """Return the sum of the hints, each with its own weight, (batch,)."""
        return sum(
            hint.weight
            * hint.loss(
                batch.features[hint.pair.student],
                batch.given[f"teacher_hint{place}"],
                weights=batch.weights,
            )
            for place, hint in enumerate(self.hints)
        )


def _judged(
    teachers: Teachers, models: Sequence[keras.Model], data: Dataset, weights: Sequence[float]
) -> tuple[dict[str, float], list[str]]:
    """Return the teachers' validation quality, and a warning where it is that of chance."""
    import tensorflow as tf

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
    """Return a note if the student itself changes its inputs at random."""
    import keras

    found = [
        layer.name
        for layer in layers_inside(student)
        if isinstance(layer, keras.layers.Layer)
        and type(layer).__name__.startswith("Random")
        and type(layer).__module__.startswith("keras")
    ]
    return [
        f"the student changes its inputs at random (layer '{name}'), the teacher sees them "
        "unchanged: use augment instead, which both see"
        for name in found[:1]
    ]


def _taught(options: DistillOptions) -> dict[str, Any]:
    """Return the options that identify a training, as in checkpoints of earlier versions."""
    written = {"teacher_weights": text_of(options.teacher_weights)}
    return {
        name: written.get(name, tuple(value) if isinstance(value, list) else value)
        for name, value in to_nested(options).items()
        if name not in ("cache", "cache_limit", "teacher")
    }
