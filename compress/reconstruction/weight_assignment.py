"""Assignment of a solution to a layer: kernel, bias, and the following normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.reconstruction.kernel_parts import KernelPart
from compress.reconstruction.linear_paths import Absorber, LinearPath
from compress.reconstruction.row_products import Numbers
from compress.reconstruction.sums import Moments, Sums


def assign_solution(
    part: KernelPart,
    path: LinearPath,
    weights: Numbers,
    shift: Numbers,
    sums: Sums,
    absorbers: list[Absorber] | None,
) -> None:
    """Assign weights and shift, solved behind the linear path of a layer, to its variables.

    The gain of the path is divided out of the kernel. If a normalization or a layer scale directly
    after the layer has a scale of its own, the kernel keeps its norms and that scale takes the
    rest, so that no gain near zero is divided by.

    Args:
        part: The reconstructed kernel.
        path: Linear path after it, with the gain of the previous weights.
        weights: (systems, columns, outputs).
        shift: (channels,) or (systems, outputs), without the offset of the path.
        sums: Sums over all rows, for the statistics of a normalization.
        absorbers: Normalizations that absorb a shift if there is no bias; None: there are none.
    """
    import keras

    old_weights = part.read_weights()
    systems, _, outputs = weights.shape
    gain = path.gain.reshape(systems, outputs)
    is_normalization = isinstance(path.scale_layer, keras.layers.BatchNormalization)
    bias = part.read_bias()
    target_shift = shift.reshape(-1)
    if path.scale_layer is not None:
        # a normalization absorbs constants itself; a layer scale multiplies them
        takes_constants = part.bias is not None and not is_normalization
        constants = (bias, target_shift) if takes_constants else (0 * bias, 0 * target_shift)
        gain = _compute_gain(path, (old_weights, weights), constants).reshape(systems, outputs)
    # the kernel has no effect where the gain is zero: it does not change there
    kernel = np.where(
        gain[:, None] == 0, old_weights, weights / np.where(gain == 0, 1, gain)[:, None]
    )
    part.assign(kernel)
    if is_normalization:
        _set_batch_norm(path, kernel, bias, gain.reshape(-1), target_shift, sums)
        return
    flat = gain.reshape(-1)
    if path.scale_layer is not None:
        _assign(path.scale_layer.gamma, flat / path.later_gain)
    constant = np.where(flat == 0, bias, target_shift / np.where(flat == 0, 1, flat))
    if part.bias is not None:
        part.set_bias(constant)
    for absorber in absorbers or ():
        mean = absorber.layer.moving_mean.numpy()
        # a missing constant c is equivalent to a change of the mean by -c
        mean[absorber.start : absorber.start + len(constant)] -= constant
        absorber.layer.moving_mean.assign(mean)


def _compute_gain(
    path: LinearPath, kernels: tuple[Numbers, Numbers], constants: tuple[Numbers, Numbers]
) -> Numbers:
    """Return the gain by channel with which the kernel keeps its norms.

    Args:
        path: Linear path after the layer.
        kernels: Current kernel, and target kernel behind the path, (systems, columns, outputs).
        constants: Current and target constants, (channels,).
    """
    before, after = (
        np.sqrt((kernel**2).sum(1).reshape(-1) + constant**2)
        for kernel, constant in zip(kernels, constants, strict=True)
    )
    sign = np.where(path.gain < 0, -1.0, 1.0)
    # weights of zero have no norm to keep
    return np.asarray(sign * np.where(before > 0, after / np.where(before > 0, before, 1), 1.0))


def _set_batch_norm(
    path: LinearPath,
    kernel: Numbers,
    bias: Numbers,
    gain: Numbers,
    shift: Numbers,
    sums: Sums,
) -> None:
    """Set the statistics, scale and shift of a normalization for the new outputs."""
    layer = path.scale_layer
    means, spread = _compute_statistics(sums, kernel)
    means = means + bias
    scale = gain / path.later_gain  # effective scale of the normalization
    # later_gain * (scale * (z + bias) + constant) + later_offset = gain * z + shift + offset
    constant = (shift + path.offset - path.later_offset) / path.later_gain - scale * bias
    _assign(layer.moving_mean, means)
    _assign(layer.moving_variance, spread)
    _assign(layer.gamma, scale * np.sqrt(spread + layer.epsilon))
    _assign(layer.beta, constant + scale * means)


def _compute_statistics(sums: Sums, kernel: Numbers) -> tuple[Numbers, Numbers]:
    """Return mean and variance of rows x kernel, by channel."""
    p = sums.means[0]
    mean = np.einsum("sd,sdm->sm", p, kernel)
    if isinstance(sums, Moments):
        a = sums.compute_centred()[0]
        square = np.einsum("sdm,sdm->sm", kernel, a @ kernel)
        square -= sums.count * sums.noise * (kernel**2).sum(1)
    else:
        rows = sums.stacked[0]
        square = (((rows - p[:, None]) @ kernel) ** 2).sum(1)
    return mean.reshape(-1), (np.maximum(square, 0) / max(1, sums.count)).reshape(-1)


def _assign(variable: Any, value: Any) -> None:
    variable.assign(np.asarray(value).reshape(variable.shape))
