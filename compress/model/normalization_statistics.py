"""Statistics of batch normalization, taken from batches of inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from compress.core.lazy_modules import keras
from compress.model.keras_internals import set_attributes
from compress.model.layer_patches import restore_values
from compress.model.program import Program


def _find_batch_norms(program: Program) -> dict[int, Any]:
    """Return the batch normalizations that a program calls, by id."""
    return {
        id(node.operation): node.operation
        for node in program.walk()
        if isinstance(node.operation, keras.layers.BatchNormalization)
    }


def average_batch_statistics(program: Program, batches: Iterable[Sequence[Any]]) -> None:
    """Set moving means and variances to their plain averages over batches, in place.

    All layers run in inference mode except batch normalization, which normalizes each batch by its
    own statistics. No other weight changes.

    Args:
        program: A flat or nested program.
        batches: Inputs of each batch, in the order of the program's inputs.
    """
    layers = _find_batch_norms(program)
    if not layers:
        return
    # a frozen layer would ignore the batch statistics
    flags = [(layer, "trainable", True) for layer in layers.values()]
    # set for each batch below, and restored here
    momenta = [(layer, "momentum", layer.momentum) for layer in layers.values()]
    with set_attributes([*flags, *momenta]):
        for index, inputs in enumerate(batches):
            for layer in layers.values():
                # so that moving * momentum + batch * (1 - momentum) is the running average
                layer.momentum = index / (index + 1)
            program.run(inputs, training=lambda operation: id(operation) in layers)


@contextmanager
def use_batch_statistics(program: Program, inputs: Sequence[Any]) -> Iterator[None]:
    """Normalize by the statistics of one batch within the context; then restore the weights.

    Args:
        program: A flat or nested program.
        inputs: The batch, in the order of the program's inputs.
    """
    layers = _find_batch_norms(program).values()
    with restore_values(v for layer in layers for v in (layer.moving_mean, layer.moving_variance)):
        average_batch_statistics(program, [inputs])
        yield
