"""Temporary replacements of a model's layers.

Those that work in training alone, such as augmentation, are no part of what is exported or timed:
Keras leaves such a layer's input as it is in inference, but still draws its random numbers, which
no converter knows.

Batch normalizations run TensorFlow's fused kernel in training. Keras 3 composes them from
elementwise operations: on a CPU that takes half of a small network's training step, and a fifth of
a ResNet-20's inference, where TensorFlow merges the kernel into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compress.core.lazy_modules import keras, tf
from compress.model.internals import layers_inside, named_layers
from compress.model.layers import class_of, select_classes

TRAINING_ONLY = select_classes("left_out")
"""Keras's layers without any effect in inference. Dropout converts and is not among them."""
_MIN_EPSILON = 1.001e-5  # cuDNN's limit


def training_only(model: keras.Model) -> dict[str, Any]:
    """Return the layers of a model that work in training alone, by name.

    Args:
        model: Any model; models, pipelines and wrappers inside it are looked into.
    """
    found: dict[str, Any] = {}
    for path, layer in named_layers(model):
        # those inside another one (RandAugment's) go with it
        left = "left_out" in class_of(layer, keras_only=True).traits
        if left and not any(path.startswith(f"{outer}/") for outer in found):
            found[path] = layer
    return found


@contextmanager
def inference_alone(model: keras.Model) -> Iterator[None]:
    """Let layers that work in training alone pass their input on, while the context lasts.

    Layers that do for a file something else than for a model (`for_file`) do so.
    """
    layers = list(training_only(model).values())
    special = [layer for layer in layers_inside(model) if hasattr(layer, "for_file")]
    for layer in layers:
        layer.call = lambda inputs, **_: inputs
    for layer in special:
        layer.for_file = True
    try:
        yield
    finally:
        for layer in layers:
            del layer.call
        for layer in special:
            layer.for_file = False


def rounds_itself(model: keras.Model) -> bool:
    """Return whether a model rounds its values as integers do; see `compress.quantization`."""
    return any(getattr(layer, "is_range", False) for layer in layers_inside(model))


@contextmanager
def reduce_range(model: keras.Model) -> Iterator[bool]:
    """Give the weights of a model that rounds its values 7 bits, while the context lasts.

    Two products of 8-bit weights overflow where a processor without VNNI adds them in 16 bits, as
    ONNX Runtime and OpenVINO do there.

    Yields:
        Whether that changes the model: it was trained, or calibrated, with weights of 8 bits.
    """
    layers = [layer for layer in layers_inside(model) if hasattr(layer, "reduced_range")]
    wide = [layer for layer in layers if not layer.reduced_range]
    for layer in wide:
        layer.reduced_range = True
    try:
        yield bool(wide)
    finally:
        for layer in wide:
            layer.reduced_range = False


def left_out(model: keras.Model) -> tuple[str, ...]:
    """Return a note on the layers that are no part of exported files, where there are any."""
    names = ", ".join(
        f"{path} ({type(layer).__name__})" for path, layer in training_only(model).items()
    )
    return (f"exported without layers that work in training alone: {names}",) if names else ()


@contextmanager
def fused_normalization(model: keras.Model) -> Iterator[int]:
    """Let a model's image batch normalizations run TensorFlow's fused kernel.

    The layers stay what they are: the same variables, the same moving averages, the same
    result to float tolerance (the kernel's variance is unbiased; the bias that Keras
    keeps is put back). Everything the kernel cannot do is untouched.

    Args:
        model: Any Keras model.

    Yields:
        How many layers are fused.
    """
    layers = [
        layer
        for layer in layers_inside(model)
        if type(layer) is keras.layers.BatchNormalization and _fits(layer)
    ]
    for layer in layers:
        layer.call = _fused_call(layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.call


def _fits(layer: Any) -> bool:
    """Return whether the fused kernel can replace the layer: rank 4, channels last, affine."""
    return (
        layer.built
        and not layer.synchronized
        and layer.center
        and layer.scale
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.epsilon >= _MIN_EPSILON
    )


def _fused_call(layer: Any) -> Any:
    """Return a `call` for one layer; the plain one where there is a mask or another type."""
    plain = layer.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None or layer.dtype_policy.variable_dtype != "float32":
            return plain(inputs, training=training, mask=mask)
        train, none = bool(training and layer.trainable), tf.zeros((0,))
        output, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(layer.gamma.value),
            offset=tf.convert_to_tensor(layer.beta.value),
            mean=none if train else tf.convert_to_tensor(layer.moving_mean.value),
            variance=none if train else tf.convert_to_tensor(layer.moving_variance.value),
            epsilon=layer.epsilon,
            is_training=train,
        )
        if not train:
            return output
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        variance *= (count - 1.0) / count
        keep = layer.momentum
        for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(moving.value * keep + batch * (1.0 - keep))
        return output

    return call
