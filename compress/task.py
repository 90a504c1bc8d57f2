"""The task: classification. Its loss, its metrics and what a model's head must look like."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.errors import InputError

if TYPE_CHECKING:
    import keras

QUALITIES = ("accuracy", "f1_macro", "precision_macro", "recall_macro")

Floats = npt.NDArray[np.float32]
LogitsView = Callable[..., Any]


class Objective(Protocol):
    """What training minimises: a loss per example, so that example weights apply."""

    def arrays(self) -> dict[str, Floats]:
        """Returns further arrays over the training examples, gathered with each batch."""
        ...

    def guessing(self) -> float:
        """Returns the most that a uniform guess costs; far above it training has diverged."""
        ...

    def loss(self, labels: Any, logits: Any, extra: dict[str, Any]) -> Any:
        """Returns the loss per example.

        Args:
            labels: (batch,) class indices.
            logits: (batch, classes), float32.
            extra: The batch's rows of `arrays()`.

        Returns:
            (batch,), float32.
        """
        ...


class CrossEntropy:
    """Softmax cross-entropy on logits, with label smoothing.

    Args:
        num_classes: Number of classes.
        label_smoothing: Share s of the target moved evenly to all classes, in [0, 1).

    Reference:
        Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """

    def __init__(self, num_classes: int, label_smoothing: float = 0.0) -> None:
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing

    def arrays(self) -> dict[str, Floats]:
        """Needs no further arrays."""
        return {}

    def guessing(self) -> float:
        """Returns log K: the cross-entropy of a uniform guess with any target."""
        return math.log(self.num_classes)

    def loss(self, labels: Any, logits: Any, extra: dict[str, Any]) -> Any:
        """Returns -sum_k q_k log softmax(logits)_k, q = (1 - s) onehot + s / K, (batch,)."""
        import tensorflow as tf

        target = tf.one_hot(labels, self.num_classes)
        target = target * (1.0 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return tf.nn.softmax_cross_entropy_with_logits(target, logits)


def check_head(model: keras.Model, num_classes: int, input_shape: tuple[int, ...]) -> None:
    """Checks that a model classifies data of this shape into this many classes.

    Raises:
        InputError: Several inputs or outputs, another input shape or number of classes.
    """
    if len(model.inputs or []) != 1 or len(model.outputs or []) != 1:
        raise InputError(
            f"Model '{model.name}' must be built with one input and one output. "
            f"Received: {len(model.inputs or [])} and {len(model.outputs or [])}."
        )
    expected = tuple(model.inputs[0].shape[1:])
    fits = len(expected) == len(input_shape) and all(
        want in (None, got) for want, got in zip(expected, input_shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"Model '{model.name}' must take inputs of the data's shape {input_shape}. "
            f"Received: a model for {expected}."
        )
    classes = model.outputs[0].shape[-1]
    if len(model.outputs[0].shape) != 2 or classes != num_classes:
        raise InputError(
            f"Model '{model.name}' must output (batch, {num_classes}) for the data's "
            f"{num_classes} classes. Received: {tuple(model.outputs[0].shape)}."
        )


@contextmanager
def logits_view(model: keras.Model) -> Iterator[LogitsView]:
    """Gives the model as a function to logits, whatever its head.

    A final Softmax (or Activation) layer is left out; a softmax inside the last layer
    is switched off while the context lasts; a head that outputs logits stays. Of a head
    whose rows are probabilities for another reason the logarithm is taken, which equals
    logits up to a constant per row.

    Args:
        model: A checked classifier (see `check_head`).

    Yields:
        `view(x, training=...)` -> (batch, classes) float32.
    """
    import keras

    last = producer(model)
    if is_softmax_layer(last):
        body = keras.Model(model.input, last.input)
        yield lambda x, training: keras.ops.cast(body(x, training=training), "float32")
        return
    if getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
        try:
            yield lambda x, training: keras.ops.cast(model(x, training=training), "float32")
        finally:
            last.activation = keras.activations.softmax
        return
    if outputs_probabilities(model):
        tiny = np.finfo(np.float32).tiny
        yield lambda x, training: keras.ops.log(
            keras.ops.cast(model(x, training=training), "float32") + tiny
        )
        return
    yield lambda x, training: keras.ops.cast(model(x, training=training), "float32")


def producer(model: keras.Model) -> Any:
    """Returns the layer or operation that makes the model's output, or None if unknown."""
    history = getattr(model.outputs[0], "_keras_history", None)
    return history.operation if history is not None else None


def is_softmax_layer(layer: Any) -> bool:
    """Tells whether a layer does nothing but softmax over the last axis."""
    import keras

    if isinstance(layer, keras.layers.Softmax):
        return bool(layer.axis == -1)
    activation = getattr(layer, "activation", None)
    return isinstance(layer, keras.layers.Activation) and activation is keras.activations.softmax


def outputs_probabilities(model: keras.Model) -> bool:
    """Tells whether the rows of the output are probabilities, judged on random inputs."""
    shape = tuple(8 if size is None else size for size in model.inputs[0].shape[1:])
    probe = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    rows = np.asarray(model(probe, training=False), np.float64)
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=-1), 1.0, atol=1e-3))


def quality(labels: npt.NDArray[np.int64], scores: Floats) -> dict[str, float]:
    """Returns the qualities of predictions, all in [0, 1].

    Args:
        labels: True classes, (n,).
        scores: (n, classes), the largest wins; logits, probabilities or int8 levels.

    Returns:
        accuracy, and the unweighted means over classes of precision, recall and F1. A
        class that is never predicted counts precision 0.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predicted = scores.argmax(axis=-1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels,
        predicted,
        labels=np.arange(scores.shape[-1]),
        average="macro",
        zero_division=0.0,
    )
    return {
        "accuracy": float((predicted == labels).mean()),
        "f1_macro": float(f1),
        "precision_macro": float(precision),
        "recall_macro": float(recall),
    }


def cross_entropy(labels: npt.NDArray[np.int64], logits: Floats) -> float:
    """Returns the mean cross-entropy of logits (n, classes), in nats."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1))
    return float((log_sum - shifted[np.arange(len(labels)), labels]).mean())
