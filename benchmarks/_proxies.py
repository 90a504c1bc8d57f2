"""Scores of networks that were not trained yet: what a search could know for nothing.

They stand here and not in the package, which does not use them: see docs/search.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import keras

BATCH = 8
Images = npt.NDArray[np.float32]


def synflow(model: keras.Model, x: Images) -> float:
    """Returns the logarithm of the sum of |weight x gradient| of a net of absolute weights.

    Fed with ones; normalization passes its input on. The model's weights are put back.

    Args:
        model: Untrained.
        x: One example's shape is taken of it, (n, ...).

    Reference:
        Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving
        synaptic flow", equation 4; as a score of nets Abdelfattah et al. 2021.
    """
    import tensorflow as tf

    before = model.get_weights()
    for layer in model.layers:
        plain(layer)
    weights = model.trainable_variables
    for weight in weights:
        weight.assign(np.abs(weight.numpy()))
    logits = _logits(model)
    # of a batch of one, TensorFlow 2.21's gradient of a convolution's kernel crashes the process
    ones = tf.ones((BATCH, *x.shape[1:]))
    with tf.GradientTape() as tape:
        # none is negative, so that logits do not cancel in the sum
        total = tf.reduce_sum(logits(ones, training=False)) / BATCH
    watched = [weight.value for weight in weights]
    gradients = tape.gradient(total, watched)
    found = sum(
        float(tf.reduce_sum(tf.abs(tf.cast(value, tf.float64) * tf.cast(slope, tf.float64))))
        for value, slope in zip(watched, gradients, strict=True)
        if slope is not None
    )
    model.set_weights(before)
    return float(np.log(max(found, 1e-300)))


def plain(layer: Any) -> None:
    """Makes a normalization pass its input on."""
    import keras

    if not isinstance(layer, keras.layers.BatchNormalization):
        return
    for name, value in (("gamma", 1.0), ("beta", 0.0), ("moving_mean", 0.0)):
        weight = getattr(layer, name)
        if weight is not None:
            weight.assign(np.full(weight.shape, value, np.float32))
    layer.moving_variance.assign(np.full(layer.moving_variance.shape, 1 - layer.epsilon))


def jacob_cov(model: keras.Model, x: Images) -> float:
    """Returns how unlike the examples' gradients are.

    -sum over eigenvalues v of the correlations of the examples' input gradients (of the sum of
    the logits) of log(v + k) + 1 / (v + k), k = 1e-5.

    Args:
        model: Untrained.
        x: A batch of examples, (n, ...).

    Reference:
        Mellor et al. 2020, "Neural architecture search without training", version 1, equation 4.
    """
    import tensorflow as tf

    logits, inputs = _logits(model), tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(logits(inputs, training=True))
    slopes = tape.gradient(total, inputs).numpy().reshape(len(x), -1).astype(np.float64)
    slopes += 1e-12 * np.random.default_rng(0).normal(size=slopes.shape)
    values = np.linalg.eigvalsh(np.corrcoef(slopes)) + 1e-5
    return float(-(np.log(values) + 1 / values).sum())


def naswot(model: keras.Model, x: Images) -> float:
    """Returns the logarithm of the determinant of how alike the examples' active units are.

    K_ij is in how many units of all activations two examples agree on being above 0.

    Args:
        model: Untrained.
        x: A batch of examples, (n, ...).

    Reference:
        Mellor et al. 2021, "Neural architecture search without training", equations 1 and 2.
    """
    import keras

    outputs = [layer.output for layer in model.layers if _activates(layer)]
    found = keras.Model(model.inputs[0], outputs)(x, training=True)
    kernel = np.zeros((len(x), len(x)))
    for output in found if isinstance(found, list) else [found]:
        active = (np.asarray(output).reshape(len(x), -1) > 0).astype(np.float64)
        kernel += active @ active.T + (1 - active) @ (1 - active).T
    return float(np.linalg.slogdet(kernel)[1])


PROXIES = {"synflow": synflow, "jacob_cov": jacob_cov, "naswot": naswot}


def _activates(layer: Any) -> bool:
    import keras

    if isinstance(layer, keras.layers.ReLU):
        return True
    return getattr(getattr(layer, "activation", None), "__name__", "linear") == "relu"


def _logits(model: keras.Model) -> keras.Model:
    """Returns the model without what turns logits into probabilities."""
    import keras

    return keras.Model(model.inputs[0], model.get_layer("logits").output)
