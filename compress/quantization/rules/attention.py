"""Attention: products of activations, and a softmax between them."""

from __future__ import annotations

import inspect
import math
from typing import Any

from compress.quantization.call import FASTER, Call
from compress.quantization.kernels import Affine
from compress.quantization.rules._base import KeptInFloats, operation_rule
from compress.quantization.rules.activations import UNIT
from compress.quantization.values import Value


@operation_rule("DotProductAttention")
def dot_product(call: Call) -> Value | list[Value]:
    """Scores, their softmax, and what it weighs; the scale of the scores is the queries'."""
    import keras
    import tensorflow as tf

    layer = call.layer
    names = inspect.signature(layer.call).parameters
    given = {**dict(zip(names, call.node.args, strict=False)), **call.node.kwargs}
    if given.get("mask") is not None or given.get("bias") is not None or layer.is_causal:
        raise KeptInFloats("scores with a mask or a bias have no integer kernel")
    if layer.attn_logits_soft_cap:
        raise KeptInFloats("capped scores have no integer kernel")
    if not call.building.integer_products:
        raise KeptInFloats(FASTER)
    query, key, value = call.inputs
    width = call.node.inputs[0].shape[-1]
    scale = given.get("scale")
    factor = 1 / math.sqrt(width) if scale is None else float(scale)

    def terms() -> tuple[Any, Any]:
        return tf.fill((width,), factor), None

    queries = call.scaled(query, Affine(None, terms))

    def scores(one: Any, two: Any) -> Any:
        return tf.matmul(tf.transpose(one, (0, 2, 1, 3)), tf.transpose(two, (0, 2, 3, 1)))

    def score_shape(one: Any, two: Any) -> tuple[int | None, ...]:
        return (one[0], one[2], one[1], two[1])

    found = call.summed(call.applied(scores, score_shape, "scores"), queries, key, fuses=False)
    shares = call.prescribed(call.applied(keras.activations.softmax, what="shares"), found, *UNIT)

    def weighed(one: Any, two: Any) -> Any:
        made = tf.matmul(one, tf.transpose(two, (0, 2, 1, 3)))
        return tf.transpose(made, (0, 2, 1, 3))

    def weighed_shape(one: Any, two: Any) -> tuple[int | None, ...]:
        return (one[0], one[2], one[1], two[3])

    return call.summed(call.applied(weighed, weighed_shape, "weighed"), shares, value, fuses=False)
