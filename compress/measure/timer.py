"""The runs of one file: short blocks, whose medians count, and their spread."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.measure.runtimes import Runtime, Session, TensorInfo
from compress.measure.stats import Spread, median_spread

MIN_RUNS = 7
"""Runs in a block; the first is dropped: it pays for the previous file's cache."""
MAX_RUNS = 60
BLOCK_SECONDS = 0.003


class Timer:
    """The runs of one file: sessions, single run times, block medians."""

    def __init__(self, runtime: Runtime, path: Path, threads: int, seed: int) -> None:
        self._runtime, self._path, self._threads, self._seed = runtime, path, threads, seed
        self.instances = 0
        self.runs: list[npt.NDArray[np.float64]] = []
        self.medians: list[float] = []
        self.groups: list[int] = []
        self.renew()
        self._session.invoke()
        once = min(self._session.timed(3))
        self._block = min(MAX_RUNS, max(MIN_RUNS, math.ceil(BLOCK_SECONDS / max(once, 1e-9))))

    def renew(self) -> None:
        """Prepares the file anew and feeds it fixed random inputs."""
        self._session: Session = self._runtime.prepare(self._path, self._threads)
        random = np.random.default_rng(self._seed)
        self._session.set_inputs([drawn(info, random) for info in self._session.inputs])
        self.instances += 1

    def block(self) -> None:
        """Times one block and drops its first run."""
        kept = np.asarray(self._session.timed(self._block)[1:])
        self.runs.append(kept)
        self.medians.append(float(np.median(kept)))
        self.groups.append(self.instances)


def drawn(info: TensorInfo, random: np.random.Generator) -> npt.NDArray[Any]:
    """Returns random numbers for an input: normal; 0 and 1 where indices are taken."""
    if info.indices:
        return random.integers(2, size=info.shape)
    return random.normal(size=info.shape).astype(np.float32)


def spread_of(timer: Timer, seed: int, base: Timer | None = None) -> Spread:
    """Returns the spread of a file's times, or of the ratios of a base's to them.

    All files are prepared anew together, so their rounds have the same groups.
    """
    values = np.asarray(timer.medians)
    if base is not None:
        values = np.asarray(base.medians) / values
    return median_spread(values, np.random.default_rng(seed), groups=timer.groups)
