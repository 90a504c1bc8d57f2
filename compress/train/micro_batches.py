"""Fine-tuning within the memory budget: batches that do not fit are taken in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.core.memory_budget import current_budget
from compress.model.activations import OVERHEAD, activation_bytes
from compress.model.internals import layers_inside

if TYPE_CHECKING:
    import keras

BACKWARD = 1.3
"""Memory of a step over that of the tensors that its backward pass needs."""
COPIES = 5
"""Copies of the weights that a training makes: gradients, their sum over the parts, the two of the
optimizer, and the best epoch's."""
LEAST_NORMALIZED = 4
"""Examples that batch normalization must have at least: of fewer the statistics are noise."""


def parts_of_a_batch(
    model: keras.Model,
    batch: int,
    *,
    sizes: Sequence[tuple[int, ...]] | None = None,
    teachers: Sequence[keras.Model] = (),
) -> int:
    """Return into how many parts a batch is cut, so that a part fits into memory.

    The gradients of the parts are averaged into one step of the optimizer. Batch normalization sees
    the parts; everything else computes the same.

    Args:
        model: What is trained.
        batch: Examples.
        sizes: Of one example, an input each.
        teachers: What runs in every step, in inference mode.

    Raises:
        InputError: Not even the smallest part fits; the message names the memory that would do.
    """
    each = _bytes_of_a_step(model, sizes, teachers)
    least = min(batch, LEAST_NORMALIZED if _is_normalized(model) else 1)
    size = current_budget().batch_size(
        each,
        most=batch,
        what=f"training model '{model.name}'",
        fixed=COPIES * 4 * model.count_params(),
        least=least,
    )
    return -(-batch // size)


def note_on_parts(model: keras.Model, batch: int, parts: int) -> str:
    """Return what a report says of batches that were cut."""
    note = f"memory holds no batch of {batch}: it was trained in {parts} parts"
    if _is_normalized(model):
        note += ", whose statistics batch normalization used"
    return note


def _bytes_of_a_step(
    model: keras.Model, sizes: Sequence[tuple[int, ...]] | None, teachers: Sequence[keras.Model]
) -> int:
    """Return the bytes that a step takes for each example."""
    live = sum(activation_bytes(teacher, sizes).live for teacher in teachers)
    return int(BACKWARD * activation_bytes(model, sizes).total + OVERHEAD * live)


def _is_normalized(model: keras.Model) -> bool:
    import keras

    return any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers_inside(model))
