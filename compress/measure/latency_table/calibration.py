"""What whole nets take where that is not the sum of their calls.

A call that is timed alone has its weights in the nearest cache. In a net all weights take their
turn, and what the cache does not hold comes anew in each inference: the excess grows with the
bytes of all weights beyond a threshold (0.5 to 0.9 MB, by 25 to 37 us a MB, on the one machine
that was looked at, with 2 MB of second-level cache a core; that the cache is the cause is a guess).
On the other hand a net pays what lies around a call (copies at the borders of what a delegate
runs) once, each call alone too: that is a factor. All are fitted to some nets measured whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.run.records import Record

Numbers = npt.NDArray[np.float64]

FEWEST = 4
_STEPS = 65
"""Thresholds that are tried, from no byte to the largest net's."""


@dataclass(frozen=True)
class Calibration(Record):
    """A net's time from its calls': `factor` x their sum + `per_byte` x bytes beyond `beyond`.

    Attributes:
        factor: Above 0.
        per_byte: Milliseconds a byte of weights, at least 0.
        beyond: Bytes, at least 0.
        nets: Nets that it was fitted to; 0: nothing was fitted, the sum of calls is all.
        error: Mean absolute relative error of the time of nets that the fit has not seen: each
            was left out once.
    """

    factor: float = 1.0
    per_byte: float = 0.0
    beyond: float = 0.0
    nets: int = 0
    error: float = 0.0

    def weights_ms(self, weight_bytes: npt.NDArray[Any]) -> Numbers:
        """Returns what weights cost beside the calls in ms, elementwise."""
        return np.asarray(self.per_byte * np.maximum(0.0, weight_bytes - self.beyond))


def calibrate(
    sums: npt.NDArray[Any], weight_bytes: npt.NDArray[Any], measured: npt.NDArray[Any]
) -> Calibration:
    """Fits by least squares of relative errors.

    Args:
        sums: Times of nets by their calls in ms, (nets,), above 0.
        weight_bytes: Of their weights, (nets,).
        measured: Times of the nets as a whole in ms, (nets,), above 0.

    Raises:
        InputError: There are fewer than four nets, or times are not above 0.
    """
    added, held, times = (
        np.asarray(values, np.float64) for values in (sums, weight_bytes, measured)
    )
    if len(times) < FEWEST or not (times > 0).all() or not (added > 0).all():
        raise InputError(
            f"measured must be the times of at least {FEWEST} nets, all above 0. "
            f"Received: {times.tolist()} (by their calls: {added.tolist()})."
        )
    factor, per_byte, beyond = _fitted(added / times, held, times)
    errors = []
    for left in range(len(times)):
        others = np.arange(len(times)) != left
        one, slope, start = _fitted((added / times)[others], held[others], times[others])
        found = one * added[left] + slope * max(0.0, held[left] - start)
        errors.append(abs(found / times[left] - 1.0))
    return Calibration(factor, per_byte, beyond, len(times), float(np.mean(errors)))


def _fitted(relative: Numbers, held: Numbers, times: Numbers) -> tuple[float, float, float]:
    """Returns factor, slope and threshold of least error; no slope where no excess grows."""
    factor = float(relative.sum() / (relative @ relative))
    best = (float(((factor * relative - 1.0) ** 2).sum()), factor, 0.0, 0.0)
    for beyond in np.linspace(0.0, held.max(), _STEPS)[:-1]:
        columns = np.stack([relative, np.maximum(0.0, held - beyond) / times], 1)
        (factor, slope), *_ = np.linalg.lstsq(columns, np.ones(len(times)), rcond=None)
        error = float(((columns @ (factor, slope) - 1.0) ** 2).sum())
        if factor > 0.0 and slope >= 0.0:
            best = min(best, (error, float(factor), float(slope), float(beyond)))
    return best[1], best[2], best[3]
