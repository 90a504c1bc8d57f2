"""Small networks around a layer, and what is asked of their costs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.selection.costs import CostModel

HEAD = ["model output 'head'"]


def headed(inputs: Any, x: Any) -> Any:
    """Pools what is left of a sequence and ends in one head."""
    x = layers.Concatenate()([layers.Flatten()(part) for part in keras.tree.flatten(x)])
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def between(layer: Any, shape: tuple[int, ...] = (4, 3)) -> Any:
    """Dense -> layer -> flatten -> dense."""
    inputs = keras.Input(shape)
    return headed(inputs, layer(layers.Dense(6, name="before")(inputs)))


def check_macs(coupling: Coupling, sliced: Any, mask: Any) -> None:
    """The costs of a kept set are those of the sliced model, analysed anew."""
    kept = np.array([mask[group.units].sum() for group in coupling.groups])
    again = analyze_coupling(sliced)
    whole = np.array([len(group.units) for group in again.groups])
    assert CostModel.from_coupling(coupling).macs(kept) == CostModel.from_coupling(again).macs(
        whole
    )


def macs_of(model: Any, layer: str, input_shape: tuple[int, ...] | None = None) -> float:
    coupling = analyze_coupling(model, input_shape)
    whole = np.array([len(group.units) for group in coupling.groups])
    return CostModel.from_coupling(coupling).macs.compute_by_layer(whole)[layer]
