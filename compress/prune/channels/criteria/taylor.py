"""Taylor criterion: first-order change of the loss if a unit is set to zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores

BATCH = 128  # examples whose mean loss is differentiated
BACKWARD = 1.3
"""Ratio of the memory of a backward pass to that of the tensors that it needs."""


def score_taylor(group: Group, context: Context) -> Scores:
    """Score units by the mean over batches of (sum of gradient x weight)^2, (units,).

    It needs labelled training data. Weights that are not trainable (normalization statistics,
    frozen layers) are excluded.

    Reference:
        Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", eq. 8; the sum is
        over all weights of a unit.

    Raises:
        InputError: There is no data, or it has no labels.
    """
    return np.asarray(context.compute_once(_score_all_units)[group.units])


def _score_all_units(context: Context) -> Scores:
    import tensorflow as tf

    from compress.data import Dataset
    from compress.model.activations import find_batch_size
    from compress.model.heads import check_head
    from compress.model.logits import open_logits_view

    data, coupling = context.data, context.coupling
    if not isinstance(data, Dataset):
        raise InputError(
            "Criterion 'taylor' must have data with labels to take gradients on. Received: "
            f"{'none' if data is None else 'examples alone'}. Give data=(x, y)."
        )
    model = coupling.program.model
    check_head(model, data)
    variables: list[Any] = [
        weight for weight in model.weights if "float" in str(weight.dtype) and weight.trainable
    ]
    order = np.random.default_rng(context.seed).permutation(len(data.train))[: context.examples]
    scores = np.zeros(coupling.unit_count)
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    size = find_batch_size(model, BATCH, keeps_all=True, copies=BACKWARD)
    with open_logits_view(model, data.task) as view:

        def compute_gradients(index: Any) -> list[Any]:
            """Return the gradients of the mean loss over some examples."""
            part = data.train.take(index)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                for variable in variables:
                    tape.watch(variable.value)
                logits = view(data.preprocess(part.x), training=False)
                loss = tf.reduce_mean(data.task.loss(data.labels(part), logits))
            loss_gradients: list[Any] = tape.gradient(
                loss, [variable.value for variable in variables]
            )
            return loss_gradients

        for index in batches:
            sums = np.zeros(coupling.unit_count)
            for start in range(0, len(index), size):
                part = index[start : start + size]
                sums += (
                    len(part)
                    / len(index)
                    * _reduce_products(context, variables, compute_gradients(part))
                )
            scores += sums**2
    return scores / len(batches)


def _reduce_products(context: Context, variables: list[Any], gradients: list[Any]) -> Scores:
    coupling = context.coupling
    products = {
        id(variable): variable.numpy() * np.asarray(gradient)
        for variable, gradient in zip(variables, gradients, strict=True)
        if gradient is not None
    }
    sums = np.zeros(coupling.unit_count)
    for binding in coupling.bindings:
        product = products.get(id(binding.variable))
        if product is None:
            continue
        others = tuple(axis for axis in range(product.ndim) if axis != binding.axis)
        sums += np.bincount(
            coupling.unit_of_slot[binding.ids], product.sum(others), minlength=coupling.unit_count
        )
    return sums
