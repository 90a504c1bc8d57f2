"""Activations, of layers and of raw operations, and attention."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from compress.quantization.call import FASTER, Call, Value
from compress.quantization.kernels import Affine
from compress.quantization.rules._base import (
    KeptInFloats,
    layer_rule,
    operation_rule,
    refuse_mask,
)

UNIT = (0.0, 255 / 256)
"""Range of a softmax or sigmoid in LiteRT: steps of 1/256 from 0 on."""
PRESCRIBED = {"sigmoid": UNIT, "softmax": UNIT, "tanh": (-1.0, 127 / 128)}
"""Ranges in LiteRT; that of a tanh has steps of 1/128 on both sides of 0."""


def activated(call: Call, value: Value, activation: Any) -> Value:
    """Return a value behind a layer's activation, in floats if that has no integer kernel.

    Args:
        call: Of the layer.
        value: What comes before its activation.
        activation: Of `keras.activations`; None: nothing is done.
    """
    name = name_of(activation)
    if name == "linear":
        return value

    def layer(tensor: Any) -> Any:
        made = keras.layers.Activation(activation, name=call.building.name(f"{call.path}_{name}"))
        return made(tensor)

    return _apply_activation(call, value, name, layer)


def name_of(activation: Any) -> str:
    """Return the name of an activation as Keras calls it."""
    if activation is None:
        return "linear"
    found = getattr(activation, "__name__", type(activation).__name__)
    known = getattr(keras.activations, found, None)
    return str(found) if known is activation else f"'{found}'"


def _apply_activation(call: Call, value: Value, name: str, function: Callable[[Any], Any]) -> Value:
    """Return a value behind the activation of a name.

    Args:
        call: Of the activation, or of the layer that it ends.
        value: What comes before it.
        name: As Keras calls it.
        function: Computes it (of a symbolic tensor).
    """
    if name in ("relu", "relu6"):
        return call.rectified(value, function)
    if name in PRESCRIBED:
        return call.prescribed(function, value, *PRESCRIBED[name])
    if name == "silu":  # times its own gate
        settled = call.on_grid(value)
        gate = call.applied(keras.activations.sigmoid, what="gate")
        opened = call.prescribed(gate, settled, *UNIT)
        gated = call.applied(keras.ops.multiply, what="gated")
        return call.summed(gated, settled, opened, fuses=False)
    if name == "leaky_relu":
        return call.leaky(value, 0.2)  # Keras's default slope of the function
    if name == "gelu":  # looked up, step by step
        return call.summed(function, value, fuses=False)
    return call.step_in_float(function, value, f"activation {name} has no integer kernel")


@layer_rule("Activation")
def activation(call: Call) -> Value:
    """Apply the function of the layer."""
    refuse_mask(call)
    return activated(call, call.inputs[0], call.layer.activation)


@operation_rule("Relu", "Relu6", "Sigmoid", "Tanh", "Silu", "Gelu")
def activation_operation(call: Call) -> Value:
    """Apply the function of the operation's name."""
    return _apply_activation(call, call.inputs[0], type(call.layer).__name__.lower(), call.itself)


@layer_rule("ReLU")
def rectifier(call: Call) -> Value | list[Value]:
    """Fuse a ReLU; its limit is where the range ends."""
    layer, value = call.layer, call.inputs[0]
    if layer.threshold:
        raise KeptInFloats("a ReLU with a threshold has no integer kernel")
    if layer.negative_slope and layer.max_value is not None:
        raise KeptInFloats("a leaky ReLU with a limit has no integer kernel")
    if layer.negative_slope:
        return call.leaky(value, float(layer.negative_slope))
    if layer.max_value in (None, 6.0):
        return call.rectified(value, call.itself)
    return call.rectified(value, call.applied(keras.activations.relu), float(layer.max_value))


@layer_rule("LeakyReLU")
@operation_rule("LeakyRelu")
def leaky(call: Call) -> Value:
    """Apply two slopes."""
    return call.leaky(call.inputs[0], float(call.layer.negative_slope))


@layer_rule("Softmax")
@operation_rule("Softmax")
def softmax(call: Call) -> Value | list[Value]:
    """Apply a softmax, whose steps are prescribed."""
    refuse_mask(call)
    if call.layer.axis not in (-1, len(call.shape) - 1):
        raise KeptInFloats("a softmax over another axis than the last has no integer kernel")
    return call.prescribed(call.itself, call.inputs[0], *UNIT)


@operation_rule("DotProductAttention")
def dot_product(call: Call) -> Value | list[Value]:
    """Compute scores, their softmax and the weighted values; the queries are scaled."""
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
    queries = call.scaled(query, Affine(None, lambda: (tf.fill((width,), factor), None)))

    def scores(one: Any, two: Any) -> Any:
        return tf.matmul(tf.transpose(one, (0, 2, 1, 3)), tf.transpose(two, (0, 2, 3, 1)))

    scored = call.applied(scores, lambda one, two: (one[0], one[2], one[1], two[1]), "scores")
    found = call.summed(scored, queries, key, fuses=False)
    shares = call.prescribed(call.applied(keras.activations.softmax, what="shares"), found, *UNIT)

    def weighed(one: Any, two: Any) -> Any:
        made = tf.matmul(one, tf.transpose(two, (0, 2, 1, 3)))
        return tf.transpose(made, (0, 2, 1, 3))

    mixed = call.applied(weighed, lambda one, two: (one[0], one[2], one[1], two[3]), "weighed")
    return call.summed(mixed, shares, value, fuses=False)
