"""Says of a layer of your own what its axes are, so that channels around and in it can leave.

python custom_layer_rule.py
"""

from __future__ import annotations

import keras
import numpy as np

import paretune as pt
from compress.prune.channels import LayerCall, Slots, register_rule


@keras.saving.register_keras_serializable("example")
class Gated(keras.layers.Layer):
    """y = x * sigmoid(gate): one gate per channel."""

    def build(self, shape):
        self.gate = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="gate")

    def call(self, x):
        return x * keras.ops.sigmoid(self.gate)


def network():
    """Return a network with the layer between two convolutions."""
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(32, 3, activation="relu", name="before"),
            Gated(name="gated"),
            keras.layers.Conv2D(32, 3, activation="relu", name="behind"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )


def rule(call: LayerCall) -> Slots:
    """Slice the gate with its channel: a removed channel is zero behind it."""
    x = call.inputs[0]
    call.bind(call.layer.gate, 0, x.axes[-1])  # axis 0 of the gate is indexed by x's channels
    return call.passed(x, zero=True)


if __name__ == "__main__":
    for name, _, reason in pt.prune_channels(network(), macs=0.5).report.unknown:
        print(f"without a rule, {name} is held: {reason}")
    register_rule(Gated)(rule)
    small = pt.prune_channels(network(), macs=0.5)
    print(small)
    print("gates left:", small.model.get_layer("gated").gate.shape[0], "of 32")
    assert np.isfinite(small.model.predict(np.zeros((1, 16, 16, 3)), verbose=0)).all()
