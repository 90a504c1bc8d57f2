"""A leaky ReLU as the runtime's integer kernel computes it: its two slopes have 8 bits."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from compress.quantization.layers.ranges import TIE, FakeQuant
from compress.quantization.layers.state import State

BITS = 256.0
"""Parts of a step in which XNNPACK holds a slope."""


class LeakySlopes(keras.layers.Layer):  # type: ignore[misc]
    """Multiplies what is positive and what is negative by a slope each.

    The slopes bring one grid to another, and have few bits: about one output in thirty is a step
    away from what exact slopes would give.

    Args:
        state: Of the model.
        slope: Of what is negative.
        source: Range of the input.
        target: Range of the output.
    """

    def __init__(
        self, state: State, slope: float, source: FakeQuant, target: FakeQuant, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.state, self.slope = state, slope
        self._ranges = (source, target)
        self.for_file = False
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Applies the slopes."""
        if self.for_file or not self.state.quantizes:
            return tf.nn.leaky_relu(inputs, self.slope)
        source, target = ((high - low) / 255.0 for low, high in (r.bounds() for r in self._ranges))
        ratio = tf.stop_gradient(source / target)
        up, down = (tf.round(BITS * ratio * slope) / BITS / ratio for slope in (1.0, self.slope))
        made = inputs * tf.where(inputs > 0, up, down)
        # ties go up, and are many
        return made + tf.stop_gradient(TIE * target)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Says that shapes stay."""
        return keras.KerasTensor(inputs.shape, inputs.dtype)
