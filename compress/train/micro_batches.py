"""Fine-tuning within the memory budget: batches that do not fit are taken in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.core.memory_budget import current_budget, gigabytes
from compress.model.activations import OVERHEAD, activation_bytes
from compress.model.internals import layers_inside
from compress.plan import TrainSettings

if TYPE_CHECKING:
    import keras

BACKWARD = 1.3
"""Memory of a step over that of the tensors that its backward pass needs."""
COPIES = 4
"""Copies of the weights that a training makes: gradients, the optimizer's two, the best epoch's."""
LEAST_NORMALIZED = 4
"""Examples that batch normalization must have at least: of fewer the statistics are noise."""


def fit_batch(
    settings: TrainSettings,
    model: keras.Model,
    examples: int,
    *,
    sizes: Sequence[tuple[int, ...]] | None = None,
    teachers: Sequence[keras.Model] = (),
) -> tuple[TrainSettings, str]:
    """Return settings whose batches fit into memory, and a note on what was changed.

    A batch that does not fit is cut into equal parts whose gradients are averaged into one step of
    the optimizer. Batch normalization sees the parts; everything else computes the same.

    Args:
        settings: How to train.
        model: What is trained.
        examples: Of the training part.
        sizes: Of one example, an input each.
        teachers: What runs in every step, in inference mode.

    Raises:
        InputError: Not even the smallest part fits; the message names the memory that would do.
    """
    batch = min(settings.batch_size, examples)
    each = _bytes_of_a_step(model, sizes, teachers)
    least = min(batch, LEAST_NORMALIZED if _is_normalized(model) else 1)
    size = current_budget().batch_size(
        each,
        most=batch,
        what=f"training model '{model.name}'",
        fixed=COPIES * 4 * model.count_params(),
        least=least,
    )
    if size >= batch:
        return settings, ""
    parts = -(-batch // size)
    size = -(-batch // parts)
    note = (
        f"batches of {batch} were trained in {parts} parts of {size} examples: a whole one takes "
        f"about {gigabytes(batch * each)}"
    )
    if _is_normalized(model):
        note += "; batch normalization used the statistics of the parts"
    epochs = settings.epochs_for(max(1, examples // batch))
    accumulate = settings.accumulate * parts
    changed = replace(settings, batch_size=size, accumulate=accumulate, epochs=epochs)
    return changed, note


def _bytes_of_a_step(
    model: keras.Model, sizes: Sequence[tuple[int, ...]] | None, teachers: Sequence[keras.Model]
) -> int:
    """Return the bytes that a step takes for each example."""
    live = sum(activation_bytes(teacher, sizes).live for teacher in teachers)
    return int(BACKWARD * activation_bytes(model, sizes).total + OVERHEAD * live)


def _is_normalized(model: keras.Model) -> bool:
    import keras

    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers_inside(model))
