"""A model's own `train_step`: found in its class, and put to work on a smaller model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.core.user_code import told
from compress.model.internals import compile_arguments, graph_of_class, prepare_compiled

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class OwnStep:
    """The `train_step` of a user's class, and what it finds in `self`.

    Of the model's attributes numbers, functions and counters are shared, metrics are made anew.
    Layers and trainable weights belong to the larger model: `train_step` has to reach those of
    the smaller one by `self(x)`, `self.get_layer` or `self.trainable_variables`.

    Attributes:
        model: The user's; it stays as it is.
    """

    model: keras.Model

    @property
    def name(self) -> str:
        """Of the class."""
        return type(self.model).__name__

    def on(self, student: keras.Model, optimizer: Any) -> keras.Model:
        """Returns a model of the user's class with the layers of a graph.

        It is compiled as the user's model is, with another optimizer.

        Args:
            student: A functional or Sequential model, which `train_step` then trains.
            optimizer: Built for its weights.
        """
        made = graph_of_class(student, type(self.model))
        given = compile_arguments(self.model) or {}
        made.compile(
            optimizer=optimizer,
            loss=given.get("loss"),
            loss_weights=given.get("loss_weights"),
            metrics=_anew(given.get("metrics")),
            weighted_metrics=_anew(given.get("weighted_metrics")),
        )
        for name, value in vars(self.model).items():
            if name not in vars(made):
                _hand_over(made, name, value)
        return made


def own_step_of(model: keras.Model) -> OwnStep | None:
    """Returns a model's own `train_step`; None: it is trained as Keras trains any."""
    import keras

    own = type(model).train_step is not keras.Model.train_step
    return OwnStep(model) if own else None


def step_on(model: keras.Model, batch: tuple[Any, Any, Any]) -> Any:
    """Makes one call of a compiled model's `train_step` (graph code).

    Args:
        model: From `OwnStep.on`.
        batch: Inputs, labels and weights (or None) as its class takes them.

    Returns:
        The loss: what it calls "loss", else the first that it returns; of this batch alone.

    Raises:
        InputError: It fails, or returns no numbers by name.
    """
    import tensorflow as tf

    with _explained(model):
        prepare_compiled(model, batch)
        # metrics are means over an epoch: those of one step are wanted
        model.reset_metrics()
        logs = model.train_step(batch)
        if not isinstance(logs, dict) or not logs:
            raise InputError(
                f"train_step of {type(model).__name__} must return numbers by name, as Keras's "
                f"does. Received: {type(logs).__name__}."
            )
        return tf.cast(logs.get("loss", next(iter(logs.values()))), tf.float32)


@contextmanager
def _explained(model: keras.Model) -> Iterator[None]:
    """Names the user's `train_step` where it raises an error."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the user's own code
        remedy = (
            " Layers and trainable weights that are attributes stay with the larger model: reach "
            "them by self(x), self.get_layer(name) or self.trainable_variables."
            if isinstance(error, AttributeError)
            else ""
        )
        raise InputError(
            f"train_step of {type(model).__name__} must run on the smaller model. It raised "
            f"{told(error)}.{remedy}"
        ) from error


def _hand_over(made: Any, name: str, value: Any) -> None:
    """Gives an attribute of the user's model to the smaller one."""
    import keras

    parts = keras.tree.flatten(value) if isinstance(value, (list, tuple, dict)) else [value]
    if any(isinstance(part, keras.Metric) for part in parts):
        setattr(made, name, _anew(value))
        return
    larger = (keras.layers.Layer, keras.optimizers.Optimizer, keras.KerasTensor)
    held = [isinstance(part, larger) or _is_learnt(part) for part in parts]
    if not any(held):
        vars(made)[name] = value  # past Keras's tracking: a counter is no weight of this model


def _is_learnt(value: Any) -> bool:
    import keras

    return isinstance(value, keras.Variable) and bool(value.trainable)


def _anew(structure: Any) -> Any:
    """Returns metrics that count for themselves; what else there is stays."""
    import keras

    if isinstance(structure, dict):
        return {name: _anew(item) for name, item in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_anew(item) for item in structure]
    if isinstance(structure, keras.Metric):
        return type(structure).from_config(structure.get_config())
    return structure
