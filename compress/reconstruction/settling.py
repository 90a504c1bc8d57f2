"""Puts a solution back into a layer: kernel, bias, and the normalization behind it."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.reconstruction.kinds import Part
from compress.reconstruction.paths import Absorber, Way
from compress.reconstruction.sums import Moments, Numbers, Sums


def settle(
    part: Part,
    way: Way,
    weights: Numbers,
    shift: Numbers,
    sums: Sums,
    absorbers: list[Absorber] | None,
) -> None:
    """Assign a solution in folded coordinates: rows x weights + shift is wanted behind the way.

    The gain behind the layer is divided out of the kernel. Where a normalization or a layer scale
    right behind it has a scale of its own, the kernel keeps its norms and that scale takes the
    rest: a gain near zero is never divided by.

    Args:
        part: What was solved for.
        way: What follows it; its gain is that of the weights before.
        weights: (systems, columns, outputs).
        shift: By channel, before the way's offset.
        sums: Of all rows, for the statistics of a normalization.
        absorbers: Normalizations that take up a shift where there is no bias.
    """
    import keras

    old = part.weights()
    systems, _, outputs = weights.shape
    gain = way.gain.reshape(systems, outputs)
    norm = isinstance(way.first, keras.layers.BatchNormalization)
    bias = part.bias_vector()
    wanted = shift.reshape(-1)
    if way.first is not None:
        # a normalization takes constants itself; a layer scale multiplies them
        scaled = part.bias is not None and not norm
        constants = (bias, wanted) if scaled else (0 * bias, 0 * wanted)
        gain = _gain(way, (old, weights), constants).reshape(systems, outputs)
    # behind a gain of zero a kernel says nothing: it stays
    kernel = np.where(gain[:, None] == 0, old, weights / np.where(gain == 0, 1, gain)[:, None])
    part.assign(kernel)
    if norm:
        _normalize(way, kernel, bias, gain.reshape(-1), wanted, sums)
        return
    flat = gain.reshape(-1)
    if way.first is not None:
        _assign(way.first.gamma, flat / way.rest)
    constant = np.where(flat == 0, bias, wanted / np.where(flat == 0, 1, flat))
    if part.bias is not None:
        part.set_bias(constant)
    for absorber in absorbers or ():
        mean = absorber.layer.moving_mean.numpy()
        # z + c is normalized as z was if the mean moves by -c, c being what is missing
        mean[absorber.start : absorber.start + len(constant)] -= constant
        absorber.layer.moving_mean.assign(mean)


def _gain(
    way: Way, kernels: tuple[Numbers, Numbers], constants: tuple[Numbers, Numbers]
) -> Numbers:
    """Return the gain by channel with which weights keep their norms.

    Args:
        way: What follows the layer.
        kernels: As it is, and as it is wanted behind the way, (systems, columns, outputs).
        constants: The same of the biases, (channels,).
    """
    before, after = (
        np.sqrt((kernel**2).sum(1).reshape(-1) + constant**2)
        for kernel, constant in zip(kernels, constants, strict=True)
    )
    sign = np.where(way.gain < 0, -1.0, 1.0)
    # weights of zero have no norm to keep
    return np.asarray(sign * np.where(before > 0, after / np.where(before > 0, before, 1), 1.0))


def _normalize(
    way: Way,
    kernel: Numbers,
    bias: Numbers,
    gain: Numbers,
    shift: Numbers,
    sums: Sums,
) -> None:
    """Set statistics to those of the new output, and scale and shift to what is wanted."""
    layer = way.first
    means, spread = _statistics(sums, kernel)
    means = means + bias
    own = gain / way.rest  # what the normalization multiplies by
    # wanted: rest * (own * (z + bias) + constant) + tail = folded output + offset
    constant = (shift + way.offset - way.tail) / way.rest - own * bias
    _assign(layer.moving_mean, means)
    _assign(layer.moving_variance, spread)
    _assign(layer.gamma, own * np.sqrt(spread + layer.epsilon))
    _assign(layer.beta, constant + own * means)


def _statistics(sums: Sums, kernel: Numbers) -> tuple[Numbers, Numbers]:
    """Return mean and variance by channel of rows x kernel."""
    p = sums.means[0]
    mean = np.einsum("sd,sdm->sm", p, kernel)
    if isinstance(sums, Moments):
        a = sums.centred()[0]
        square = np.einsum("sdm,sdm->sm", kernel, a @ kernel)
        square -= sums.count * sums.noise * (kernel**2).sum(1)
    else:
        rows = sums.stacked[0]
        square = (((rows - p[:, None]) @ kernel) ** 2).sum(1)
    return mean.reshape(-1), (np.maximum(square, 0) / max(1, sums.count)).reshape(-1)


def _assign(variable: Any, value: Any) -> None:
    variable.assign(np.asarray(value).reshape(variable.shape))
