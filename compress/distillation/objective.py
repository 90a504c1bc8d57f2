"""The training objective of distillation: labels, a teacher's logits and features, mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from compress.data.tasks import VOID, Several
from compress.distillation.hints import Hint
from compress.distillation.losses import LogitLoss, by_position
from compress.distillation.teachers import Teachers, blended, logits_of
from compress.plan import Ramp
from compress.train import Batch, LabelObjective
from compress.train.objective import Step

if TYPE_CHECKING:
    import keras


class DistillObjective:
    """(1 - w) * label loss + w * loss on logits + h * sum of hints, each with its weight.

    Args:
        labels: The label loss.
        losses: On the logits of each output, by its name; none: w is taken as 0.
        hints: On features.
        teachers: Where they run at every step; None: `arrays` holds their outputs.
        arrays: The teachers' outputs, one row a training example; empty where they run.
        teacher_weights: Sum 1.
        temperature: T, above 0.
        weight: w, in [0, 1].
        hint_weight: h, at least 0.
        identity: What a training that goes on must agree in.
    """

    def __init__(
        self,
        labels: LabelObjective,
        losses: Mapping[str, LogitLoss],
        hints: Sequence[Hint],
        *,
        teachers: Teachers | None,
        arrays: Mapping[str, npt.NDArray[Any]],
        teacher_weights: Sequence[float],
        temperature: Ramp,
        weight: Ramp,
        hint_weight: Ramp,
        identity: str = "",
    ) -> None:
        self._labels, self._losses, self._hints = labels, losses, hints
        self._teachers, self._arrays = teachers, arrays
        self._teacher_weights = teacher_weights
        self._temperature, self._hint_weight = temperature, hint_weight
        self._weight = weight if losses else Ramp(0.0, 0.0)
        task = labels.task
        self._shares = task.loss_weights if isinstance(task, Several) else {"": 1.0}
        self.feature_layers: Sequence[str] = tuple(
            dict.fromkeys(hint.pair.student for hint in hints)
        )
        self.identity = f"{labels.identity}, {identity}"

    @property
    def models(self) -> Sequence[Any]:
        """The teachers that run in every step."""
        return () if self._teachers is None else self._teachers.models

    def variables(self) -> list[Any]:
        """Returns the hints' projections."""
        return [variable for hint in self._hints for variable in hint.variables]

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Returns the cached outputs of the teachers."""
        return self._arrays

    def live(self, inputs: Any) -> Mapping[str, Any]:
        """Runs the teachers on the batch that the student sees, unless they are cached."""
        return {} if self._teachers is None else self._teachers.outputs(inputs)

    def chance_loss(self) -> float:
        """Returns the most that a guess costs at any time; what hints cost shows at the start."""
        labels, parts = self._labels.chance_loss(), self._labels.task.parts
        taught = sum(
            self._shares[name] * loss.chance_loss(parts[name].outputs, self._temperature.largest)
            for name, loss in self._losses.items()
        )
        return max(
            (1.0 - w) * labels + w * taught for w in (self._weight.smallest, self._weight.largest)
        )

    def loss(self, batch: Batch) -> Any:
        """Returns the mixed loss per example, (batch,)."""
        w, h = self._weight.at(batch.progress), self._hint_weight.at(batch.progress)
        total = (1.0 - w) * self._labels.loss(batch)
        for name, loss in self._losses.items():
            total += w * self._shares[name] * self._taught(name, loss, batch)
        if self._hints:
            total += h * self._hinted(batch)
        return total

    def step(self, model: keras.Model, optimizer: Any) -> Step | None:
        """Leaves steps to the loop."""
        return None

    def _taught(self, name: str, loss: LogitLoss, batch: Batch) -> Any:
        """Returns the loss on the logits of one output, (batch,)."""
        import tensorflow as tf

        temperature = self._temperature.at(batch.progress)
        logits = tf.cast(batch.given[logits_of(name)], tf.float32)
        task = self._labels.task.parts[name]
        labels = batch.labels[name] if name else batch.labels
        return by_position(
            loss,
            batch.logits[name] if name else batch.logits,
            blended(logits, self._teacher_weights, task.activation, temperature),
            temperature=temperature,
            labels=labels,
            weights=batch.weights,
            # what is not learnt from labels is not learnt from the teacher: padding, say
            known=labels != VOID if task.classes else None,
        )

    def _hinted(self, batch: Batch) -> Any:
        """Returns the sum of the hints, each with its own weight, (batch,)."""
        return sum(
            hint.weight
            * hint.loss(
                batch.features[hint.pair.student],
                batch.given[f"teacher_hint{place}"],
                weights=batch.weights,
            )
            for place, hint in enumerate(self._hints)
        )
