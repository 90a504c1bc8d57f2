"""Ranges of activations on a grid of 256 integers, and their calibration.

A range is set from examples by the least error of rounding and clipping.
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

from compress.core.arrays import count_examples, take_examples
from compress.core.errors import InputError
from compress.model.activations import find_batch_size
from compress.model.ports import pack_inputs

if TYPE_CHECKING:
    from compress.quantization.fake_quantization import FakeQuantizedModel

Floats = npt.NDArray[np.float64]
BATCH = 32
"""Maximum number of calibration examples per batch; the memory budget may allow fewer."""
BINS = 2048  # of the histogram of a range
CANDIDATES = 64
"""Number of candidates for each end of a range, from the extreme inwards."""
NARROWEST = 0.2
"""Smallest share of the extreme that a range is narrowed to."""
STEPS = 255  # between the minimum and the maximum of a range
MOMENTUM = 0.99
"""Momentum of moving-average ranges: share of the old range that is kept in each step."""
TIE = 1e-3
"""Shift of possible ties, as a share of a step."""
SMALLEST = 1e-6
"""Smallest width of a range: files must be able to store its scale."""


class BuiltLayer(keras.layers.Layer):  # type: ignore[misc]
    """Layer that needs no build and has a known output shape.

    Args:
        shape: Function that returns the output shape for the input shapes; default: the shape of
            the first input.
        settings: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self, *, shape: Callable[..., tuple[int | None, ...]] | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.shape = shape
        self.for_file = False
        self.built = True

    def compute_output_spec(self, *inputs: Any, **settings: Any) -> Any:
        """Return the output's shape and type without computing anything."""
        shapes = [tuple(tensor.shape) for tensor in inputs]
        output_shape = shapes[0] if self.shape is None else self.shape(*shapes)
        return keras.KerasTensor(output_shape, self.compute_dtype)


class FakeQuant(BuiltLayer):
    """Fake quantization: values are rounded to 256 equally spaced values of a range.

    Integer inputs, such as pixels, are cast to floats first.

    The range always includes 0, which lies exactly on the grid. Ranges that must be equal (those of
    the parts of a concatenation, say) are tied: they share the smallest minimum and the largest
    maximum.

    Args:
        state: State of the model.
        fixed: Range that the runtime prescribes, (0, 255/256) for a softmax; None: it is observed.
        rounds: Whether to round; False: values lie on the grid already, and only the converter
            needs the layer.
        cap: Upper limit of the range; larger values are clipped. None: no limit.
        away: Whether ties are rounded away from integer 0, as integer pooling does.
        settings: Arguments of `BuiltLayer`.

    Shapes:
        Input: any. Output: the same shape.

    Reference:
        Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference", equations 12 and 13.
    """

    is_range = True
    """Marker by which packages that do not import this one recognize such a layer."""

    def __init__(
        self,
        state: QuantizationState,
        *,
        fixed: tuple[float, float] | None = None,
        rounds: bool = True,
        cap: float | None = None,
        away: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.state, self.fixed, self.rounds = state, fixed, rounds
        self.cap, self.away = cap, away
        self.ties = _Tie([self])
        if fixed is None:
            kept: dict[str, Any] = {"shape": (), "trainable": False}
            self.low = self.add_weight(name="low", initializer="zeros", **kept)
            self.high = self.add_weight(name="high", initializer="zeros", **kept)

    def tie(self, other: FakeQuant) -> None:
        """Tie this range to another one, unless it is fixed.

        Args:
            other: The other range; fixed if and only if this one is.
        """
        if self.fixed is None and self.ties is not other.ties:
            self.ties.layers += other.ties.layers
            for layer in other.ties.layers:
                layer.ties = self.ties

    def compute_bounds(self) -> tuple[Any, Any]:
        """Return the minimum (at most 0) and the maximum of the range, at least 1e-6 apart."""
        if self.fixed is not None:
            return tf.constant(self.fixed[0], tf.float32), tf.constant(self.fixed[1], tf.float32)
        parts = self.ties.layers
        low = tf.reduce_min([tf.convert_to_tensor(part.low.value) for part in parts])
        high = tf.reduce_max([tf.convert_to_tensor(part.high.value) for part in parts])
        low = tf.minimum(low, 0.0)
        if self.cap is not None:
            high = tf.minimum(high, self.cap)
        return low, tf.maximum(high, low + SMALLEST)

    def compute_step(self) -> Any:
        """Return the distance between two neighbouring grid values."""
        low, high = self.compute_bounds()
        return (high - low) / STEPS

    def assign_range(self, low: float, high: float) -> None:
        """Assign the minimum and the maximum of the range.

        Args:
            low: Minimum, at most 0.
            high: Maximum, at least 0.
        """
        self.low.assign(min(low, 0.0))
        self.high.assign(max(high, 0.0))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Round the inputs; in training, update the range as a moving average."""
        inputs = tf.cast(inputs, self.compute_dtype)
        if self.state.watch is not None and self.rounds and self.fixed is None:
            self.state.watch(self, inputs)
        if not self.state.quantizes:
            return inputs if self.cap is None else tf.minimum(inputs, self.cap)
        if training and not self.rounds:
            return inputs
        if training and self.fixed is None:
            self._update_range(inputs)
        low, high = self.compute_bounds()
        if self.away and not self.for_file:
            inputs = _shift_ties(inputs, low, high)
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)

    def _update_range(self, inputs: Any) -> None:
        for bound, seen in (
            (self.low, tf.minimum(tf.reduce_min(inputs), 0.0)),
            (self.high, tf.maximum(tf.reduce_max(inputs), 0.0)),
        ):
            bound.assign(MOMENTUM * bound.value + (1.0 - MOMENTUM) * tf.stop_gradient(seen))


@dataclass(eq=False)
class QuantizationState:
    """State that layers read when they are called or traced.

    Attributes:
        quantizes: Whether values are rounded to their grids; else the model computes in float.
        watch: Callback invoked with (range layer, values before rounding); None: no callback.
    """

    quantizes: bool = True
    watch: Callable[[Any, Any], None] | None = None

    @contextmanager
    def disable_quantization(
        self, watch: Callable[[Any, Any], None] | None = None
    ) -> Iterator[None]:
        """Compute in float within the context, and pass the values of ranges to `watch`.

        Args:
            watch: Callback invoked with (range layer, values); None: no callback.
        """
        previous = self.quantizes, self.watch
        self.quantizes, self.watch = False, watch
        try:
            yield
        finally:
            self.quantizes, self.watch = previous


@dataclass(eq=False)
class _Tie:
    """Layers that share a range; not a plain list, which Keras would track."""

    layers: list[FakeQuant]


@dataclass(eq=False)
class _RangeStatistics:
    """Statistics of the values of a range: first the extremes, then a histogram."""

    low: float = 0.0
    high: float = 0.0
    counts: Floats = field(default_factory=lambda: np.zeros(BINS))

    def update_extremes(self, values: npt.NDArray[Any]) -> None:
        """Extend the range by values."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def update_histogram(self, values: npt.NDArray[Any]) -> None:
        """Add values to the histogram."""
        # zeros lie on every grid, so they have no error
        histogram, _ = np.histogram(values[values != 0], BINS, self._ends)
        self.counts = self.counts + histogram

    @property
    def centres(self) -> Floats:
        """Centres of the bins of the histogram."""
        edges = np.linspace(*self._ends, BINS + 1)
        centres: Floats = (edges[:-1] + edges[1:]) / 2
        return centres

    @property
    def _ends(self) -> tuple[float, float]:
        return self.low, max(self.high, self.low + 1e-12)


def calibrate(
    fake_quantized: FakeQuantizedModel,
    inputs: Sequence[npt.NDArray[Any]],
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Set the ranges of a fake-quantized model from the activations of examples.

    Args:
        fake_quantized: The fake-quantized model; it computes in float meanwhile.
        inputs: Calibration examples (n, ...), one array per input, in the model's order.
        on_progress: Callback invoked with the completed share, in [0, 1].

    Raises:
        InputError: A layer computes NaN or infinity from the examples.
    """
    statistics = {id(layer): _RangeStatistics() for layer in fake_quantized.ranges}

    def collect_extremes(layer: FakeQuant, values: Any) -> None:
        array = np.asarray(values)
        if not np.isfinite(array).all():
            raise InputError(
                "Examples that calibrate must give finite values everywhere. Received: NaN or "
                f"infinity at '{layer.name.removesuffix('_range')}'. Look for it in the "
                "examples, or in the weights before."
            )
        statistics[id(layer)].update_extremes(array)

    def collect_histogram(layer: FakeQuant, values: Any) -> None:
        statistics[id(layer)].update_histogram(np.asarray(values))

    passes = (collect_extremes, collect_histogram)
    total = count_examples(inputs[0])
    size = find_batch_size(fake_quantized.served, BATCH, keeps_all=True)
    for done, watch in enumerate(passes):
        with fake_quantized.state.disable_quantization(watch):
            for start in range(0, total, size):
                batch = [take_examples(part, slice(start, start + size)) for part in inputs]
                fake_quantized.served(pack_inputs(fake_quantized.served, batch), training=False)
                if on_progress is not None:
                    on_progress((done + min(start + size, total) / total) / len(passes))
    for layer in fake_quantized.ranges:
        if layer.rounds:
            layer.assign_range(*find_least_error(statistics[id(layer)]))


def find_least_error(statistics: _RangeStatistics) -> tuple[float, float]:
    """Return the range with the least mean squared error of rounding and clipping.

    One end is optimized after the other, with candidates from the extreme inwards.

    Reference:
        Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1, equation 7.
    """
    low, high = statistics.low, statistics.high
    for _ in range(2):
        if high > 0:
            ends = high * np.linspace(1.0, NARROWEST, CANDIDATES)
            high = float(min(ends, key=lambda end: _compute_error(statistics, low, float(end))))
        if low < 0:
            ends = low * np.linspace(1.0, NARROWEST, CANDIDATES)
            low = float(min(ends, key=lambda end: _compute_error(statistics, float(end), high)))
    return low, high


def _compute_error(statistics: _RangeStatistics, low: float, high: float) -> float:
    """Return the squared error of a range, summed over all non-zero values."""
    scale = max(high - low, 1e-12) / STEPS
    values = statistics.centres
    kept = np.clip(values, low, high)
    # values are uniform between two steps; clipped values become the last step
    cost = np.where(values == kept, scale**2 / 12, (values - kept) ** 2)
    return float((statistics.counts * cost).sum())


def _shift_ties(values: Any, low: Any, high: Any) -> Any:
    """Shift values slightly, so that ties are rounded away from integer 0.

    TensorFlow's operation rounds ties up, or down if the float lies slightly below the tie.
    """
    scale = (high - low) / STEPS
    zero = tf.round(-low / scale) - 128.0
    little = TIE * scale
    return values + tf.where(values / scale + zero < 0, -little, little)
