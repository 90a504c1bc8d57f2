"""Ranges from examples: the extremes, a percentile, or what loses least to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import count, taken
from compress.core.errors import InputError
from compress.model.activations import examples_at_once
from compress.model.ports import packed

if TYPE_CHECKING:
    from compress.quantization.ranges import FakeQuant
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


@dataclass(eq=False)
class _Seen:
    """What passed through a range: extremes first, then how often each value."""

    low: float = 0.0
    high: float = 0.0
    counts: Floats | None = None

    def extend(self, values: npt.NDArray[Any]) -> None:
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def add(self, values: npt.NDArray[Any]) -> None:
        # zeros are steps of every grid: they cost nothing
        found, _ = np.histogram(
            values[values != 0], BINS, (self.low, max(self.high, self.low + 1e-12))
        )
        self.counts = found if self.counts is None else self.counts + found

    @property
    def centres(self) -> Floats:
        edges = np.linspace(self.low, max(self.high, self.low + 1e-12), BINS + 1)
        centres: Floats = (edges[:-1] + edges[1:]) / 2
        return centres


Chosen = Callable[[_Seen], "tuple[float, float]"]


def extremes(seen: _Seen) -> tuple[float, float]:
    """Returns the smallest and the largest value: nothing is cut off."""
    return seen.low, seen.high


def percentile(seen: _Seen) -> tuple[float, float]:
    """Returns a range that cuts 0.01 % of the values but zeros off on each side."""
    assert seen.counts is not None
    if not seen.counts.any():
        return extremes(seen)
    share = np.cumsum(seen.counts) / seen.counts.sum()
    out = 1 - PERCENTILE / 100
    low = seen.centres[int(np.searchsorted(share, out))]
    high = seen.centres[min(int(np.searchsorted(share, 1 - out)), BINS - 1)]
    return min(float(low), 0.0), max(float(high), 0.0)


def least_error(seen: _Seen) -> tuple[float, float]:
    """Returns the range with the least mean squared error of rounding and cutting off.

    One end after the other: candidates go from the extreme inwards.

    Reference:
        Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1, equation 7.
    """
    assert seen.counts is not None
    low, high = seen.low, seen.high
    for _ in range(2):
        if high > 0:
            ends = high * np.linspace(1.0, NARROWEST, CANDIDATES)
            high = float(min(ends, key=lambda end: _error(seen, low, float(end))))
        if low < 0:
            ends = low * np.linspace(1.0, NARROWEST, CANDIDATES)
            low = float(min(ends, key=lambda end: _error(seen, float(end), high)))
    return low, high


def _error(seen: _Seen, low: float, high: float) -> float:
    """Returns the squared error of a range, summed over all values."""
    scale = max(high - low, 1e-12) / STEPS
    values = seen.centres
    kept = np.clip(values, low, high)
    # values lie anywhere between two steps; what is cut off becomes the last one
    cost = np.where(values == kept, scale**2 / 12, (values - kept) ** 2)
    assert seen.counts is not None
    return float((seen.counts * cost).sum())


METHODS: dict[str, Chosen] = {
    "minmax": extremes,
    "percentile": percentile,
    "mse": least_error,
}


def calibrate(
    twin: Twin,
    inputs: Sequence[npt.NDArray[Any]],
    method: str = "mse",
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Sets a twin's ranges by what passes through them, computed in floats.

    Args:
        twin: Its ranges are set.
        inputs: Of the model (n, ...), one array an input, in its order.
        method: "minmax", "percentile" or "mse".
        on_progress: Called with the share that is done.

    Raises:
        InputError: A layer makes NaN or infinity of the examples.
    """
    seen: dict[int, _Seen] = {id(layer): _Seen() for layer in twin.ranges}
    total = 1 if method == "minmax" else 2
    size = examples_at_once(twin.served, BATCH, holds_all=True)
    for round_ in range(total):

        def watch(layer: FakeQuant, values: Any, round_: int = round_) -> None:
            array = np.asarray(values)
            if round_:
                seen[id(layer)].add(array)
                return
            if not np.isfinite(array).all():
                raise InputError(
                    "Examples that calibrate must give finite values everywhere. Received: NaN or "
                    f"infinity at '{layer.name.removesuffix('_range')}'. Look for it in the "
                    "examples, or in the weights before."
                )
            seen[id(layer)].extend(array)

        with twin.state.watched(watch):
            for share, batch in batches(inputs, size):
                twin.served(packed(twin.served, batch), training=False)
                if on_progress is not None:
                    on_progress((round_ + share) / total)
    for layer in twin.ranges:
        if layer.rounds:
            layer.set(*METHODS[method](seen[id(layer)]))


def batches(
    inputs: Sequence[npt.NDArray[Any]], size: int
) -> Iterator[tuple[float, list[npt.NDArray[Any]]]]:
    """Yields examples some at a time, with the share that is done after them."""
    total = count(inputs[0])
    for start in range(0, total, size):
        stop = min(start + size, total)
        yield stop / total, [taken(part, slice(start, stop)) for part in inputs]
