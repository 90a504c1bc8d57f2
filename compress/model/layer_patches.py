"""Temporary replacements of the `call` of layers, and temporary values of weights.

Layers that are only active in training, such as augmentation, are disabled for exports and
measurements: in inference Keras passes their input on, but still draws their random numbers, which
no converter supports.

Batch normalization is run by TensorFlow's fused kernel in training. Keras 3 composes it from
elementwise operations, which takes half of a small network's training step on a CPU, and a fifth of
a ResNet-20's inference, where TensorFlow merges the kernel into the preceding convolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from compress.core.lazy_modules import keras, tf
from compress.model.keras_internals import list_layers, set_attributes, walk_named_layers
from compress.model.layers import find_layer_class

_MIN_EPSILON = 1.001e-5  # cuDNN's limit


def find_training_only_layers(model: keras.Model) -> dict[str, Any]:
    """Return the layers of a model that are only active in training, by name.

    Args:
        model: Any model; nested models, pipelines and wrappers are searched too.
    """
    layers: dict[str, Any] = {}
    for path, layer in walk_named_layers(model):
        # layers inside another one (RandAugment) are covered by it
        is_left_out = "left_out" in find_layer_class(layer, keras_only=True).traits
        if is_left_out and not any(path.startswith(f"{outer}/") for outer in layers):
            layers[path] = layer
    return layers


@contextmanager
def restore_values(variables: Iterable[Any]) -> Iterator[None]:
    """Restore the values of variables at the end of the context."""
    saved = [(variable, variable.numpy()) for variable in variables]
    try:
        yield
    finally:
        for variable, value in saved:
            variable.assign(value)


@contextmanager
def disable_training_layers(model: keras.Model) -> Iterator[None]:
    """Disable the layers that are only active in training, within the context.

    Layers with a separate implementation for exported files (`for_file`) use it.
    """
    left_out = find_training_only_layers(model).values()
    special = [layer for layer in list_layers(model) if hasattr(layer, "for_file")]
    calls = [(layer, "call", lambda inputs, **_: inputs) for layer in left_out]
    with set_attributes([*calls, *((layer, "for_file", True) for layer in special)]):
        yield


def is_fake_quantized(model: keras.Model) -> bool:
    """Return whether a model simulates integer quantization; see `compress.quantization`."""
    return any(getattr(layer, "is_range", False) for layer in list_layers(model))


@contextmanager
def reduce_range(model: keras.Model) -> Iterator[bool]:
    """Use 7-bit weights in a fake-quantized model within the context.

    On processors without VNNI, ONNX Runtime and OpenVINO add two products of 8-bit weights in 16
    bits, which can overflow.

    Yields:
        Whether the model changes, that is, whether it was trained or calibrated with 8-bit weights.
    """
    wide = [layer for layer in list_layers(model) if not getattr(layer, "reduced_range", True)]
    with set_attributes((layer, "reduced_range", True) for layer in wide):
        yield bool(wide)


def describe_excluded_layers(model: keras.Model) -> tuple[str, ...]:
    """Return a note on the layers that are excluded from exported files, or an empty tuple."""
    names = ", ".join(
        f"{path} ({type(layer).__name__})"
        for path, layer in find_training_only_layers(model).items()
    )
    return (f"exported without layers that work in training alone: {names}",) if names else ()


@contextmanager
def use_fused_batch_norm(model: keras.Model) -> Iterator[int]:
    """Run a model's image batch normalizations with TensorFlow's fused kernel, within the context.

    The layers keep their variables, moving averages and results up to float tolerance. The variance
    of the kernel is unbiased and is converted to Keras's biased variance. Layers that the kernel
    does not support are unchanged.

    Args:
        model: Any Keras model.

    Yields:
        The number of fused layers.
    """
    layers = [
        layer
        for layer in list_layers(model)
        if type(layer) is keras.layers.BatchNormalization
        and _can_fuse(layer)
        and "call" not in vars(layer)  # fused already, by a context around this one
    ]
    with set_attributes(
        (layer, "call", _build_fused_normalization_call(layer)) for layer in layers
    ):
        yield len(layers)


def _can_fuse(layer: Any) -> bool:
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


def _build_fused_normalization_call(layer: Any) -> Any:
    """Return a `call` for a batch normalization that uses TensorFlow's fused kernel.

    It makes the original call for masks, and if the variables are not float32.
    """
    original_call = layer.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if mask is not None or layer.dtype_policy.variable_dtype != "float32":
            return original_call(inputs, training=training, mask=mask)
        is_training, empty = bool(training and layer.trainable), tf.zeros((0,))
        output, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(layer.gamma.value),
            offset=tf.convert_to_tensor(layer.beta.value),
            mean=empty if is_training else tf.convert_to_tensor(layer.moving_mean.value),
            variance=empty if is_training else tf.convert_to_tensor(layer.moving_variance.value),
            epsilon=layer.epsilon,
            is_training=is_training,
        )
        if not is_training:
            return output
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        variance *= (count - 1.0) / count
        momentum = layer.momentum
        for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(moving.value * momentum + batch * (1.0 - momentum))
        return output

    return call
