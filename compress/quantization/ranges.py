"""Ranges of activations, rounded to a grid of 256 whole numbers, and whether a model rounds now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

MOMENTUM = 0.99
"""Share of a moving range that stays at each step."""
TIE = 1e-3
"""Share of a step by which what may be a tie is moved."""
SMALLEST = 1e-6
"""Width of the narrowest range: a scale must be a number that files can hold."""


class FakeQuant(keras.layers.Layer):  # type: ignore[misc]
    """Rounds values to 256 steps between a minimum and a maximum, as integers would hold them.

    Integers, such as pixels, become floats first.

    The range always holds 0, which is one of the steps exactly. Ranges that have to be equal, of
    the parts of a concatenation, say, are tied: the smallest minimum and the largest maximum of
    all count.

    Args:
        state: Of the model.
        fixed: Range that the runtime prescribes: of a softmax (0, 255/256); None: it is observed.
        rounds: False where values lie on the grid already: it is there for the converter.
        cap: Largest value of the range: what lies above is cut off; None: no such.
        away: Ties are rounded away from the whole number 0, as integer pooling does it.
        learned: Minimum and maximum are trained with the weights; else they move with what
            passes in training.

    Shapes:
        Any in, the same out.

    Reference:
        Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", equations 12 and 13; learned ranges: the gradients of
        TensorFlow's operation (Krishnamoorthi 2018, section 3.2).
    """

    is_range = True
    """What rooms below this one know such a layer by."""

    def __init__(
        self,
        state: State,
        *,
        fixed: tuple[float, float] | None = None,
        rounds: bool = True,
        cap: float | None = None,
        away: bool = False,
        learned: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.state, self.fixed, self.rounds = state, fixed, rounds
        self.cap, self.away = cap, away
        self.for_file = False
        self.moving = not learned
        self.ties = _Tie([self])
        if fixed is None:
            kept: dict[str, Any] = {"shape": (), "trainable": learned}
            self.low = self.add_weight(name="low", initializer="zeros", **kept)
            self.high = self.add_weight(name="high", initializer="zeros", **kept)

    def tie(self, other: FakeQuant) -> None:
        """Makes two ranges one; neither may be fixed."""
        if self.ties is not other.ties:
            self.ties.layers += other.ties.layers
            for layer in other.ties.layers:
                layer.ties = self.ties

    def bounds(self) -> tuple[Any, Any]:
        """Returns minimum and maximum: at most 0, and at least 0."""
        if self.fixed is not None:
            return tf.constant(self.fixed[0], tf.float32), tf.constant(self.fixed[1], tf.float32)
        parts = self.ties.layers
        low = tf.reduce_min([tf.convert_to_tensor(part.low.value) for part in parts])
        high = tf.reduce_max([tf.convert_to_tensor(part.high.value) for part in parts])
        low = tf.minimum(low, 0.0)
        if self.cap is not None:
            high = tf.minimum(high, self.cap)
        return low, tf.maximum(high, low + SMALLEST)

    def set(self, low: float, high: float) -> None:
        """Assigns a range."""
        self.low.assign(min(low, 0.0))
        self.high.assign(max(high, 0.0))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Rounds; in training the range moves with what passes."""
        inputs = tf.cast(inputs, self.compute_dtype)
        watch = self.state.watch
        if watch is not None and self.rounds and self.fixed is None:
            watch(self, inputs)
        if not self.state.quantizes:
            return inputs if self.cap is None else tf.minimum(inputs, self.cap)
        if training and not self.rounds:
            return inputs
        if training and self.moving and self.fixed is None:
            self._follow(inputs)
        low, high = self.bounds()
        if self.away and not self.for_file:
            inputs = _ties_away(inputs, low, high)
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Says that shapes stay; nothing is observed when a model is built."""
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    def _follow(self, inputs: Any) -> None:
        for bound, seen in (
            (self.low, tf.minimum(tf.reduce_min(inputs), 0.0)),
            (self.high, tf.maximum(tf.reduce_max(inputs), 0.0)),
        ):
            bound.assign(MOMENTUM * bound.value + (1.0 - MOMENTUM) * tf.stop_gradient(seen))


@dataclass(eq=False)
class State:
    """Read when a call is made, or traced.

    Attributes:
        quantizes: Whether values are rounded to their grids; else the model computes in floats.
        watch: Called with (layer of a range, values) in place of quantizing them.
    """

    quantizes: bool = True
    watch: Callable[[Any, Any], None] | None = None

    @contextmanager
    def watched(self, watch: Callable[[Any, Any], None]) -> Iterator[None]:
        """Lets the model compute in floats and shows what its ranges are of."""
        before = self.quantizes, self.watch
        self.quantizes, self.watch = False, watch
        try:
            yield
        finally:
            self.quantizes, self.watch = before

    @contextmanager
    def in_floats(self) -> Iterator[None]:
        """Lets the model compute in floats."""
        before, self.quantizes = self.quantizes, False
        try:
            yield
        finally:
            self.quantizes = before


@dataclass(eq=False)
class _Tie:
    """Layers whose ranges are one; no list of its own, in which Keras would track them."""

    layers: list[FakeQuant]


def _ties_away(values: Any, low: Any, high: Any) -> Any:
    """Moves values a little, so that ties are rounded away from the whole number 0.

    The operation rounds them up, or down where a float happens to lie below its tie.
    """
    scale = (high - low) / 255.0
    zero = tf.round(-low / scale) - 128.0
    little = TIE * scale
    return values + tf.where(values / scale + zero < 0, -little, little)
