"""Re-estimation of batch-normalization statistics after pruning."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.lazy_modules import keras
from compress.model.activations import find_batch_size
from compress.model.normalization_statistics import average_batch_statistics
from compress.model.ports import flatten_inputs
from compress.model.recording import record_program
from compress.train.dataset_loading import as_examples

BATCH = 256
"""Number of examples run at a time, if the memory budget allows it."""


@check_arguments()
def recalibrate(model: keras.Model, data: Any, batches: int, *, seed: int = 0) -> None:
    """Set moving means and variances to those of training batches, in place.

    All layers run in inference mode except batch normalization, which normalizes each batch by its
    own statistics. The moving statistics become the plain average over the batches. No other weight
    changes.

    Args:
        model: A functional or Sequential model.
        data: Training data: x alone, (x, y), a stream, a `Dataset`, or a value of `--data`; see
            `as_dataset`. Only the training part is read.
        batches: Number of batches of 256 examples; fewer if there are not enough examples. If the
            memory budget requires smaller batches, proportionally more of them are used.
        seed: Seed of the example order.

    Raises:
        InputError: The data does not fit the model.

    Shapes:
        x: (n, ...), as the model expects.

    Example:
        >>> recalibrate(model, x, batches=1)
    """
    data = as_examples(data, model=model, seed=seed)
    program = record_program(model)
    order = np.random.default_rng(seed).permutation(len(data.train))
    size = find_batch_size(program, BATCH)
    starts = range(0, min(len(order), batches * (BATCH // size) * size), size)
    parts = (order[start : start + size] for start in starts)
    average_batch_statistics(
        program, (flatten_inputs(model, data.preprocess(data.train.take(part).x)) for part in parts)
    )
