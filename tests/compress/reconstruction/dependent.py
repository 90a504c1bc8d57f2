"""Nets whose last quarter of channels depends on the others, pruned of exactly these."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compress.prune.channels import prune_channels

WIDTH = 8
GONE = 2
"""Of the channels of each layer, the last."""


def combination(kind: str) -> npt.NDArray[np.float64]:
    """How the last channels are made of the first, (WIDTH - GONE, GONE).

    Args:
        kind: "any"; or "scaled": each is one other times a positive number, as it must be where
            a ReLU follows.
    """
    if kind == "any":
        return np.random.default_rng(5).normal(size=(WIDTH - GONE, GONE))
    found = np.zeros((WIDTH - GONE, GONE))
    found[[1, 3], [0, 1]] = 1.7, 0.6
    return found


def make_dependent(model: Any, kind: str, *, seed: int = 0, keep: tuple[str, ...] = ()) -> None:
    """Draws all weights anew, so that the last channels of every layer depend on the others.

    Args:
        model: Each layer but the last has WIDTH channels, grouped ones in each group.
        kind: See `combination`.
        seed: Of the weights.
        keep: Layers whose outputs do not depend on each other.
    """
    rng = np.random.default_rng(seed)
    mix = combination(kind)
    first = WIDTH - GONE

    def tied(values: Any) -> Any:
        """Ties the last axis, group by group."""
        parts = values.reshape(*values.shape[:-1], -1, WIDTH)
        parts[..., first:] = parts[..., :first] @ mix
        return parts.reshape(values.shape)

    def equal(kernel: Any) -> Any:
        """Makes depthwise filters equal where channels are mixed, (*size, channels, 1)."""
        if kind == "any":
            return np.broadcast_to(kernel[..., :1, :], kernel.shape).copy()
        for target, source in ((first, 1), (first + 1, 3)):
            kernel[..., target, :] = kernel[..., source, :]
        return kernel

    for layer in model._flatten_layers(include_self=False):
        for weight in layer.weights:
            values = rng.normal(size=weight.shape)
            if len(weight.shape) > 1:
                values /= np.sqrt(max(1, np.prod(weight.shape) / weight.shape[-1]))
            if "variance" in weight.path:
                values = np.abs(values) + 0.5
            elif "gamma" in weight.path:
                values = values + np.sign(values)
            elif "bias" in weight.path and kind == "scaled":
                values = np.abs(values)  # no ReLU is dead
            weight.assign(values)
        name = type(layer).__name__
        if layer.name in keep or not layer.weights:
            continue
        if "Depthwise" in name:
            layer.kernel.assign(equal(layer.kernel.numpy()))
            # a bias is a combination, too
            layer.bias.assign(tied(layer.bias.numpy()[None])[0]) if layer.use_bias else None
        elif "Separable" in name:
            layer.depthwise_kernel.assign(equal(layer.depthwise_kernel.numpy()))
            layer.pointwise_kernel.assign(tied(layer.pointwise_kernel.numpy()))
            layer.bias.assign(tied(layer.bias.numpy()[None])[0])
        elif hasattr(layer, "kernel"):
            swap = "Transpose" in name
            kernel = layer.kernel.numpy()
            kernel = tied(np.swapaxes(kernel, -1, -2) if swap else kernel)
            layer.kernel.assign(np.swapaxes(kernel, -1, -2) if swap else kernel)
            if layer.bias is not None:
                layer.bias.assign(tied(layer.bias.numpy()[None])[0])


def last_channels(group: Any, context: Any) -> Any:
    """Scores channels so that the last ones leave."""
    return -np.arange(len(group.units), dtype=np.float64)


def pruned(model: Any) -> Any:
    """Removes the last quarter of every layer's channels; nothing is repaired."""
    return prune_channels(
        model,
        cost=lambda kept, _: kept.sum(-1),
        share=1 - GONE / WIDTH,
        scope="layer",
        round_to=1,
        criterion=last_channels,
        repair=False,
    )


def smooth(shape: tuple[int, ...], count: int = 200, seed: int = 1) -> npt.NDArray[np.float32]:
    """Draws examples whose neighbouring positions depend on each other."""
    x = np.random.default_rng(seed).normal(size=(count, *shape))
    for axis in range(1, len(shape)):
        x = x + 0.7 * np.roll(x, 1, axis)
    return x.astype(np.float32)


def off(model: Any, dense: Any, x: Any) -> float:
    """Returns the error of outputs relative to their spread (root of squares)."""
    mine, theirs = (
        np.concatenate([part.reshape(len(part), -1) for part in flat_outputs(net, x)], 1)
        for net in (model, dense)
    )
    return float(np.sqrt(((mine - theirs) ** 2).sum() / ((theirs - theirs.mean(0)) ** 2).sum()))


def flat_outputs(model: Any, x: Any) -> list[Any]:
    """Returns all outputs as float64 arrays."""
    import keras

    made = keras.tree.flatten(model(x, training=False))
    return [np.asarray(part, np.float64) for part in made]
