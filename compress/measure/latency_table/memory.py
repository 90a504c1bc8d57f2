"""What whole nets take beyond the sum of their calls: weights that come from farther memory.

A call that is timed alone has its weights in the nearest cache. In a net all weights take their
turn, and what the cache does not hold comes anew in each inference: the excess grows with the
bytes of all weights beyond a threshold (on two machines of 2 MB of second-level cache a core from
0.5 to 0.9 MB on, by 25 to 37 us a MB). Both numbers are fitted to some nets measured whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.run.records import Record

Numbers = npt.NDArray[np.float64]

FEWEST = 3
_STEPS = 65
"""Thresholds that are tried, from no byte to the largest net's."""


@dataclass(frozen=True)
class MemoryCost(Record):
    """The excess of whole nets: `per_byte` x bytes of weights beyond `beyond`.

    Attributes:
        per_byte: Milliseconds, at least 0.
        beyond: Bytes, at least 0.
        nets: Nets that it was fitted to; 0: nothing was fitted, the sum of calls is all.
        error: Mean absolute relative error of a net's time that the fit has not seen (each net
            left out once); of all nets where these are too few for that.
    """

    per_byte: float = 0.0
    beyond: float = 0.0
    nets: int = 0
    error: float = 0.0

    def ms(self, weight_bytes: npt.NDArray[Any]) -> Numbers:
        """Returns the excess in ms, elementwise."""
        return np.asarray(self.per_byte * np.maximum(0.0, weight_bytes - self.beyond))


def fit_memory(
    sums: npt.NDArray[Any], weight_bytes: npt.NDArray[Any], measured: npt.NDArray[Any]
) -> MemoryCost:
    """Fits the excess by least squares of relative errors.

    Args:
        sums: Times of nets by their calls in ms, (nets,).
        weight_bytes: Of their weights, (nets,).
        measured: Times of the nets as a whole in ms, (nets,), above 0.

    Raises:
        InputError: There are fewer than three nets, or times are not above 0.
    """
    excess = np.asarray(measured, np.float64) - sums
    held, times = np.asarray(weight_bytes, np.float64), np.asarray(measured, np.float64)
    if len(times) < FEWEST or not (times > 0).all():
        raise InputError(
            f"measured must be the times of at least {FEWEST} nets, all above 0. "
            f"Received: {times.tolist()}."
        )
    per_byte, beyond = _fitted(excess, held, times)
    rest = []
    for left in range(len(times)):
        others = np.arange(len(times)) != left
        if len(times) > FEWEST:
            slope, start = _fitted(excess[others], held[others], times[others])
        else:
            slope, start = per_byte, beyond
        rest.append((slope * max(0.0, held[left] - start) - excess[left]) / times[left])
    return MemoryCost(per_byte, beyond, len(times), float(np.mean(np.abs(rest))))


def _fitted(excess: Numbers, held: Numbers, times: Numbers) -> tuple[float, float]:
    """Returns the slope and the threshold of least error; no slope where no excess grows."""
    best = (float(((excess / times) ** 2).sum()), 0.0, 0.0)
    for beyond in np.linspace(0.0, held.max(), _STEPS)[:-1]:
        over = np.maximum(0.0, held - beyond) / times
        slope = max(0.0, float(over @ (excess / times) / (over @ over)))
        error = float(((slope * over - excess / times) ** 2).sum())
        best = min(best, (error, slope, float(beyond)))
    return best[1], best[2]
