"""Multilayer perceptrons: for tables and small vectors; images are flattened."""

from __future__ import annotations

import math
from typing import Any

from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data import Dataset
from search.spaces._base import Choice, Chosen, DrawnSpace, Sketch, head, pick, steps, whole
from search.spaces._blocks import normalize

MAX_LAYERS = 4
WIDTHS = (16, 32, 64, 128, 256, 512)
ACTIVATIONS = ("relu", "gelu", "silu")


class MLP(DrawnSpace):
    """flatten -> hidden layers -> softmax.

    Choices: number of hidden layers (1 to 4) and the width of each; one activation and one
    normalization (batch, layer or none) for all; residual connections around the hidden
    layers whose input is as wide as their output; dropout after every hidden layer.
    """

    name = "mlp"
    input_name = "features"

    def check(self, data: Dataset) -> None:
        """Require examples of at least one number.

        Raises:
            InputError: Others.
        """
        shape = data.input_shape
        if not shape or math.prod(shape) < 1:
            raise InputError(
                f"Space 'mlp' must have examples that are vectors or images. "
                f"Received: examples of shape {shape} ('{data.name}')."
            )

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return two hidden layers of 128 with batch normalization and ReLU."""
        return {
            "layers": 2,
            "activation": "relu",
            "normalization": "batch",
            "residual": False,
            "layer1.width": 128,
            "layer2.width": 128,
            "dropout": 0.0,
        }

    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """See `DeclaredSpace.choices`."""
        several = tuple(range(2, MAX_LAYERS + 1))
        return (
            whole("layers", 1, MAX_LAYERS),
            # costs nothing that is counted as MACs; any stands for all
            pick("activation", ACTIVATIONS, least="relu", most="relu"),
            pick("normalization", ("batch", "layer", "none"), least="none", most="batch"),
            pick("residual", (False, True), ("layers", several)),
            *(
                pick(f"layer{index}.width", WIDTHS, ("layers", tuple(range(index, MAX_LAYERS + 1))))
                for index in range(1, MAX_LAYERS + 1)
            ),
            steps("dropout", 0.5, 0.1),
        )

    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """See `DrawnSpace.net`."""
        if len(data.input_shape) > 1:
            x = _flat(x)
        for index in range(1, chosen["layers"] + 1):
            x = _hidden(x, index, chosen)
        return head(x, data.task)


def _flat(x: Any) -> Any:
    if isinstance(x, Sketch):
        return x.flat()

    return keras.layers.Flatten(name="flatten")(x)


def _hidden(x: Any, index: int, chosen: Chosen) -> Any:
    """Apply a hidden layer: matrix, normalization, activation, dropout, the shortcut."""
    name, width, norm = f"layer{index}", chosen[f"layer{index}.width"], chosen["normalization"]
    if isinstance(x, Sketch):
        made = x.dense(width, bias=norm == "none")
        return made if norm == "none" else made.normalize(4 if norm == "batch" else 2)

    y = keras.layers.Dense(
        width, use_bias=norm == "none", kernel_initializer="he_normal", name=name
    )(x)
    if norm == "batch":
        y = normalize(y, name)
    elif norm == "layer":
        y = keras.layers.LayerNormalization(name=f"{name}_ln")(y)
    activation = chosen["activation"]
    y = keras.layers.Activation(activation, name=f"{name}_{activation}")(y)
    if chosen["dropout"]:
        y = keras.layers.Dropout(chosen["dropout"], name=f"{name}_dropout")(y)
    # not around the first layer: inputs are data, not features
    if index > 1 and chosen["residual"] and x.shape[-1] == width:
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    return y


SPACE = MLP()
