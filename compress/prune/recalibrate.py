"""Re-estimates the statistics of batch normalization after channels left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.model.activations import examples_at_once
from compress.model.ports import listed
from compress.model.recording import record
from compress.train.given import as_examples

if TYPE_CHECKING:
    import keras

BATCH = 256
"""Examples at a time, where the memory budget allows."""


@check_arguments()
def recalibrate(model: keras.Model, data: Any, batches: int, *, seed: int = 0) -> None:
    """Set moving means and variances to those of training batches, in place.

    Every layer runs in inference mode but batch normalization, which normalizes by the
    batch; its statistics become the plain average over the batches. Weights stay.

    Args:
        model: A graph.
        data: Its training part is read: x alone, (x, y), a stream, a `Dataset`, or what `--data`
            takes; see `as_dataset`.
        batches: Number of batches of 256 examples (fewer where there are not as many); of smaller
            batches as many more where the memory budget does not hold so many.
        seed: Of the order.

    Raises:
        InputError: The data do not fit the model.

    Shapes:
        x: (n, ...), as the model takes them.

    Example:
        >>> recalibrate(model, x, batches=1)
    """
    import keras

    data = as_examples(data, model=model, seed=seed)

    program = record(model)
    layers = {
        id(node.operation): node.operation
        for node in program.walk()
        if isinstance(node.operation, keras.layers.BatchNormalization)
    }
    if not layers:
        return
    before = {key: (layer.momentum, layer.trainable) for key, layer in layers.items()}
    order = np.random.default_rng(seed).permutation(len(data.train))
    size = examples_at_once(program, BATCH)
    try:
        for layer in layers.values():
            layer.trainable = True  # a frozen layer would not use the batch
        for index in range(batches * (BATCH // size)):
            part = order[index * size : (index + 1) * size]
            if not len(part):
                break
            for layer in layers.values():
                # moving * momentum + batch * (1 - momentum) is then the running average
                layer.momentum = index / (index + 1)
            x = data.preprocess(data.train.take(part).x)
            program.run(listed(model, x), training=lambda operation: id(operation) in layers)
    finally:
        for key, layer in layers.items():
            layer.momentum, layer.trainable = before[key]
