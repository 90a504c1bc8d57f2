"""Multilayer perceptrons for tables and small vectors; images are flattened."""

from __future__ import annotations

import math
from typing import Any

from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data import Dataset
from search.spaces._base import (
    Choice,
    Chosen,
    DrawnSpace,
    ShapeTensor,
    declare_categorical,
    declare_float,
    declare_int,
    head,
)
from search.spaces._blocks import apply_normalization

MAX_LAYERS = 4
WIDTHS = (16, 32, 64, 128, 256, 512)
ACTIVATIONS = ("relu", "gelu", "silu")


class MLP(DrawnSpace):
    """flatten -> hidden layers -> softmax.

    Choices: number of hidden layers (1 to 4) and the units of each; one activation and one
    normalization (batch, layer or none) for all; residual connections around the hidden
    layers with as many inputs as outputs; dropout after every hidden layer.
    """

    name = "mlp"
    input_name = "features"

    def check(self, data: Dataset) -> None:
        """Require examples with at least one number.

        Raises:
            InputError: The examples are empty.
        """
        shape = data.input_shape
        if not shape or math.prod(shape) < 1:
            raise InputError(
                f"Space 'mlp' must have examples that are vectors or images. "
                f"Received: examples of shape {shape} ('{data.name}')."
            )

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return two hidden layers of 128 units with batch normalization and ReLU."""
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
        deep_layers = tuple(range(2, MAX_LAYERS + 1))
        return (
            declare_int("layers", 1, MAX_LAYERS),
            # the activation does not affect MACs, so any value is valid as least and most
            declare_categorical("activation", ACTIVATIONS, least="relu", most="relu"),
            declare_categorical(
                "normalization", ("batch", "layer", "none"), least="none", most="batch"
            ),
            declare_categorical("residual", (False, True), ("layers", deep_layers)),
            *(
                declare_categorical(
                    f"layer{index}.width", WIDTHS, ("layers", tuple(range(index, MAX_LAYERS + 1)))
                )
                for index in range(1, MAX_LAYERS + 1)
            ),
            declare_float("dropout", 0.5, 0.1),
        )

    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """See `DrawnSpace.net`."""
        if len(data.input_shape) > 1:
            x = _flatten(x)
        for index in range(1, chosen["layers"] + 1):
            x = _apply_hidden_layer(x, index, chosen)
        return head(x, data.task)


def _flatten(x: Any) -> Any:
    if isinstance(x, ShapeTensor):
        return x.flatten()

    return keras.layers.Flatten(name="flatten")(x)


def _apply_hidden_layer(x: Any, index: int, chosen: Chosen) -> Any:
    """Apply a hidden layer: dense layer, normalization, activation, dropout, the shortcut."""
    name, width, norm = f"layer{index}", chosen[f"layer{index}.width"], chosen["normalization"]
    if isinstance(x, ShapeTensor):
        shape_tensor = x.apply_dense(width, bias=norm == "none")
        return (
            shape_tensor
            if norm == "none"
            else shape_tensor.apply_normalization(4 if norm == "batch" else 2)
        )

    y = keras.layers.Dense(
        width, use_bias=norm == "none", kernel_initializer="he_normal", name=name
    )(x)
    if norm == "batch":
        y = apply_normalization(y, name)
    elif norm == "layer":
        y = keras.layers.LayerNormalization(name=f"{name}_ln")(y)
    activation = chosen["activation"]
    y = keras.layers.Activation(activation, name=f"{name}_{activation}")(y)
    if chosen["dropout"]:
        y = keras.layers.Dropout(chosen["dropout"], name=f"{name}_dropout")(y)
    # the first layer has no shortcut, because its inputs are data rather than features
    if index > 1 and chosen["residual"] and x.shape[-1] == width:
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    return y


SPACE = MLP()
