"""Ranges of activations, rounded to a grid of 256 integers, and their calibration.

Examples set a range by their extremes, a percentile, or what loses least to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from compress.core.arrays import count, taken
from compress.core.errors import InputError
from compress.model.activations import examples_at_once
from compress.model.ports import packed

if TYPE_CHECKING:
    from compress.quantization.twin import Twin

Floats = npt.NDArray[np.float64]
BATCH = 32
"""Examples at a time, where the memory budget allows."""
BINS = 2048
CANDIDATES = 64
"""Ends of a range that are tried on each side, from the extreme inwards."""
NARROWEST = 0.2
"""Share of the extreme that a range is narrowed to at most."""
PERCENTILE = 99.99
STEPS = 255
MOMENTUM = 0.99
"""Share of a moving range that stays at each step."""
TIE = 1e-3
"""Share of a step by which what may be a tie is moved."""
SMALLEST = 1e-6
"""Width of the narrowest range: a scale must be a number that files can hold."""


class BuiltLayer(keras.layers.Layer):  # type: ignore[misc]
    """Layer that needs no building, and whose output shape is known.

    Args:
        shape: Of its output for the shapes of its inputs; default: that of the first input.
    """

    def __init__(
        self, *, shape: Callable[..., tuple[int | None, ...]] | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.shape = shape
        self.for_file = False
        self.built = True

    def compute_output_spec(self, *inputs: Any, **settings: Any) -> Any:
        """Return the output's shape and type; nothing is computed when a model is built."""
        shapes = [tuple(tensor.shape) for tensor in inputs]
        made = shapes[0] if self.shape is None else self.shape(*shapes)
        return keras.KerasTensor(made, self.compute_dtype)


class FakeQuant(BuiltLayer):
    """Rounding of values to 256 steps between a minimum and a maximum, as integers hold them.

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
        self.moving = not learned
        self.ties = _Tie([self])
        if fixed is None:
            kept: dict[str, Any] = {"shape": (), "trainable": learned}
            self.low = self.add_weight(name="low", initializer="zeros", **kept)
            self.high = self.add_weight(name="high", initializer="zeros", **kept)

    def tie(self, other: FakeQuant) -> None:
        """Make two ranges one, unless they are fixed."""
        if self.fixed is None and self.ties is not other.ties:
            self.ties.layers += other.ties.layers
            for layer in other.ties.layers:
                layer.ties = self.ties

    def bounds(self) -> tuple[Any, Any]:
        """Return the minimum (at most 0) and the maximum (at least 0)."""
        if self.fixed is not None:
            return tf.constant(self.fixed[0], tf.float32), tf.constant(self.fixed[1], tf.float32)
        parts = self.ties.layers
        low = tf.reduce_min([tf.convert_to_tensor(part.low.value) for part in parts])
        high = tf.reduce_max([tf.convert_to_tensor(part.high.value) for part in parts])
        low = tf.minimum(low, 0.0)
        if self.cap is not None:
            high = tf.minimum(high, self.cap)
        return low, tf.maximum(high, low + SMALLEST)

    def step(self) -> Any:
        """Return the distance of two neighbours on the grid."""
        low, high = self.bounds()
        return (high - low) / STEPS

    def set(self, low: float, high: float) -> None:
        """Assign a range."""
        self.low.assign(min(low, 0.0))
        self.high.assign(max(high, 0.0))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Round; in training the range moves with the values."""
        inputs = tf.cast(inputs, self.compute_dtype)
        if self.state.watch is not None and self.rounds and self.fixed is None:
            self.state.watch(self, inputs)
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

    def _follow(self, inputs: Any) -> None:
        for bound, seen in (
            (self.low, tf.minimum(tf.reduce_min(inputs), 0.0)),
            (self.high, tf.maximum(tf.reduce_max(inputs), 0.0)),
        ):
            bound.assign(MOMENTUM * bound.value + (1.0 - MOMENTUM) * tf.stop_gradient(seen))


@dataclass(eq=False)
class State:
    """State that layers read when they are called, or traced.

    Attributes:
        quantizes: Whether values are rounded to their grids; else the model computes in floats.
        watch: Called with (layer of a range, values) in place of quantizing them.
    """

    quantizes: bool = True
    watch: Callable[[Any, Any], None] | None = None

    @contextmanager
    def in_floats(self, watch: Callable[[Any, Any], None] | None = None) -> Iterator[None]:
        """Let the model compute in floats, and show `watch` the values of its ranges."""
        before = self.quantizes, self.watch
        self.quantizes, self.watch = False, watch
        try:
            yield
        finally:
            self.quantizes, self.watch = before


@dataclass(eq=False)
class _Tie:
    """Layers of one range; no plain list, in which Keras would track them."""

    layers: list[FakeQuant]


@dataclass(eq=False)
class _Seen:
    """Values of a range: extremes first, then their histogram."""

    low: float = 0.0
    high: float = 0.0
    counts: Floats = field(default_factory=lambda: np.zeros(BINS))

    def extend(self, values: npt.NDArray[Any]) -> None:
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def add(self, values: npt.NDArray[Any]) -> None:
        # zeros are steps of every grid: they cost nothing
        found, _ = np.histogram(values[values != 0], BINS, self._ends)
        self.counts = self.counts + found

    @property
    def centres(self) -> Floats:
        edges = np.linspace(*self._ends, BINS + 1)
        centres: Floats = (edges[:-1] + edges[1:]) / 2
        return centres

    @property
    def _ends(self) -> tuple[float, float]:
        return self.low, max(self.high, self.low + 1e-12)


def calibrate(
    twin: Twin,
    inputs: Sequence[npt.NDArray[Any]],
    method: str = "mse",
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Set a twin's ranges by the values of examples, computed in floats.

    Args:
        twin: Its ranges are set.
        inputs: Of the model (n, ...), one array an input, in its order.
        method: "minmax", "percentile" or "mse".
        on_progress: Called with the share that is done.

    Raises:
        InputError: A layer makes NaN or infinity of the examples.
    """
    seen = {id(layer): _Seen() for layer in twin.ranges}

    def extend(layer: FakeQuant, values: Any) -> None:
        array = np.asarray(values)
        if not np.isfinite(array).all():
            raise InputError(
                "Examples that calibrate must give finite values everywhere. Received: NaN or "
                f"infinity at '{layer.name.removesuffix('_range')}'. Look for it in the "
                "examples, or in the weights before."
            )
        seen[id(layer)].extend(array)

    def add(layer: FakeQuant, values: Any) -> None:
        seen[id(layer)].add(np.asarray(values))

    rounds = (extend,) if method == "minmax" else (extend, add)
    total = count(inputs[0])
    size = examples_at_once(twin.served, BATCH, holds_all=True)
    for done, watch in enumerate(rounds):
        with twin.state.in_floats(watch):
            for start in range(0, total, size):
                batch = [taken(part, slice(start, start + size)) for part in inputs]
                twin.served(packed(twin.served, batch), training=False)
                if on_progress is not None:
                    on_progress((done + min(start + size, total) / total) / len(rounds))
    for layer in twin.ranges:
        if layer.rounds:
            layer.set(*METHODS[method](seen[id(layer)]))


def extremes(seen: _Seen) -> tuple[float, float]:
    """Return the smallest and the largest value: nothing is cut off."""
    return seen.low, seen.high


def percentile(seen: _Seen) -> tuple[float, float]:
    """Return a range that cuts off 0.01 % of the values other than zero on each side."""
    if not seen.counts.any():
        return extremes(seen)
    share = np.cumsum(seen.counts) / seen.counts.sum()
    out = 1 - PERCENTILE / 100
    low = seen.centres[int(np.searchsorted(share, out))]
    high = seen.centres[min(int(np.searchsorted(share, 1 - out)), BINS - 1)]
    return min(float(low), 0.0), max(float(high), 0.0)


def least_error(seen: _Seen) -> tuple[float, float]:
    """Return the range with the least mean squared error of rounding and cutting off.

    One end after the other: candidates go from the extreme inwards.

    Reference:
        Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1, equation 7.
    """
    low, high = seen.low, seen.high
    for _ in range(2):
        if high > 0:
            ends = high * np.linspace(1.0, NARROWEST, CANDIDATES)
            high = float(min(ends, key=lambda end: _error(seen, low, float(end))))
        if low < 0:
            ends = low * np.linspace(1.0, NARROWEST, CANDIDATES)
            low = float(min(ends, key=lambda end: _error(seen, float(end), high)))
    return low, high


METHODS = {"minmax": extremes, "percentile": percentile, "mse": least_error}


def _error(seen: _Seen, low: float, high: float) -> float:
    """Return the squared error of a range, summed over all values."""
    scale = max(high - low, 1e-12) / STEPS
    values = seen.centres
    kept = np.clip(values, low, high)
    # values lie anywhere between two steps; what is cut off becomes the last one
    cost = np.where(values == kept, scale**2 / 12, (values - kept) ** 2)
    return float((seen.counts * cost).sum())


def _ties_away(values: Any, low: Any, high: Any) -> Any:
    """Move values a little, so that ties are rounded away from the whole number 0.

    The operation rounds them up, or down where a float happens to lie below its tie.
    """
    scale = (high - low) / STEPS
    zero = tf.round(-low / scale) - 128.0
    little = TIE * scale
    return values + tf.where(values / scale + zero < 0, -little, little)
