"""What a search space is: choices asked of a trial, and the model they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from compress.data import Dataset
from compress.task import Task

if TYPE_CHECKING:
    import keras
    import optuna


class Space(Protocol):
    """A search space.

    Attributes:
        name: As users type it.
    """

    name: str

    def check(self, data: Dataset) -> None:
        """Raises InputError where the space cannot serve this data."""
        ...

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Returns sensible choices, tried first: what a search has to beat."""
        ...

    def build(self, trial: optuna.Trial, data: Dataset) -> keras.Model:
        """Asks `trial` for all choices and builds the untrained model.

        The model takes `data.input_shape` and ends in `head`.
        """
        ...


def head(features: Any, task: Task) -> Any:
    """Returns predictions (batch, outputs) from features (batch, size): the end of a model.

    It computes in float32 under every policy: softmax needs the range.
    """
    import keras

    logits = keras.layers.Dense(task.outputs, name="logits", dtype="float32")(features)
    if task.activation == "linear":
        return logits
    if task.activation == "softmax":
        return keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")(logits)
