"""Which weights a fine-tuning leaves: its last epoch's, or those before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from compress.train.predict import quality_of
from compress.train.records import TrainResult

if TYPE_CHECKING:
    import keras

    from compress.data import Dataset


class StartingPoint:
    """A model as it comes to a fine-tuning, and its validation quality.

    Args:
        model: Trained, or cut and repaired; it is trained in place afterwards.
        data: Its validation part judges.
        quality: Which of its qualities selects.
    """

    def __init__(self, model: keras.Model, data: Dataset, quality: str) -> None:
        self._quality = quality
        self._val = quality_of(model, data, "val")
        self._weights = model.get_weights()

    def settled(self, model: keras.Model, result: TrainResult) -> TrainResult:
        """Returns the training's result; where no epoch was as good, the model is as it came."""
        before = self._val[self._quality]
        notes = [f"validation {self._quality} before fine-tuning {before:.4f}"]
        if before > result.val[self._quality]:
            notes.append("fine-tuning made it no better: its weights are those before")
            model.set_weights(self._weights)
            result = replace(result, val=self._val, best_epoch=0)
        return replace(result, notes=(*notes, *result.notes))


class LastEpoch:
    """A training hook that lets only the last epoch's weights stand."""

    def start(
        self,
        model: Any,
        step: Any,
        total_steps: int,
        steps_per_epoch: int,
        *,
        jit: bool,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """See `compress.train.Hook.start`."""
        self._total = total_steps

    def may_select(self, step: int) -> bool:
        """Tells whether training is over."""
        return step >= self._total

    def state(self) -> Mapping[str, npt.NDArray[Any]]:
        """Returns nothing: there is no state."""
        return {}
