"""Logits of a model for many examples, in inference mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Columns, arrays, count, joined, mapped, taken
from compress.data import Dataset, Preprocessing
from compress.model.activations import examples_at_once
from compress.model.heads import check_head
from compress.model.logits import logits_view

if TYPE_CHECKING:
    import keras

EVALUATION_BATCH = 1024
"""Examples at a time, where the memory budget allows."""


class Predictor:
    """A model's logits for raw examples, in batches of one size (one trace).

    Args:
        view: (x, training) -> logits, as `compress.model.logits.logits_view` gives it.
        preprocess: Raw examples -> model inputs.
        model: What the view runs; of several models a list. Its activations decide how many
            examples are run at a time.
    """

    def __init__(self, view: Callable[..., Any], preprocess: Preprocessing, model: Any) -> None:
        import tensorflow as tf

        scaled = preprocess.in_graph()
        self._model = model
        self._most = 0
        self._call = tf.function(lambda x: view(scaled(x), training=False), autograph=False)

    def __call__(self, x: Columns) -> Any:
        """Returns logits (n, *output_shape) for raw examples (n, ...).

        Of several inputs arrays by name, and likewise of several outputs.
        """
        import tensorflow as tf

        total = count(x)
        size = min(self.most(x), total)
        spec = mapped(lambda values: tf.TensorSpec((size, *values.shape[1:]), values.dtype), x)
        # what is traced is called itself: TensorFlow warns of functions that are seldom reused
        run = self._call.get_concrete_function(spec)
        outputs = []
        for start in range(0, total, size):
            part = taken(x, slice(start, start + size))
            held = count(part)
            # padded, because another batch size would trace the model again
            made = run(mapped(partial(_padded, size), part))
            outputs.append(mapped(partial(_first, held), made))
        return joined(outputs)

    def most(self, x: Columns) -> int:
        """Return how many examples like these are run at a time.

        It is found once: another number would trace the model again.
        """
        if not self._most:
            sizes = [values.shape[1:] for values in arrays(x)]
            self._most = examples_at_once(self._model, EVALUATION_BATCH, sizes=sizes)
        return self._most


def _first(size: int, made: Any) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = made.numpy()[:size]
    return found


def _padded(size: int, part: npt.NDArray[Any]) -> Any:
    import tensorflow as tf

    missing = size - len(part)
    return tf.convert_to_tensor(np.concatenate([part, np.repeat(part[:1], missing, axis=0)]))


def predict_logits(model: keras.Model, data: Dataset, part: str) -> Any:
    """Returns a model's logits for a part of the data, in inference mode.

    Shapes:
        (n, *data.task.output_shape); of several outputs such arrays by name.

    Raises:
        InputError: The model does not fit the data.
    """
    check_head(model, data)
    with logits_view(model, data.task) as view:
        return Predictor(view, data.preprocess, model)(data.split(part).x)


def quality_of(model: keras.Model, data: Dataset, part: str) -> dict[str, float]:
    """Returns the qualities of a model on a part of the data, by name.

    Raises:
        InputError: The model does not fit the data.
    """
    return data.task.quality(data.labels(data.split(part)), predict_logits(model, data, part))
