"""What nets cost as files: measured before they are trained, because costs know no weights."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.measure.counting import count_macs
from compress.measure.footprint import arena_bytes
from compress.measure.latency import Entry, time_entries
from compress.plan import LatencyOptions
from compress.plan.output import ONNX_FORMATS
from compress.shrinking.converts import file_for
from compress.shrinking.dense import DenseFiles
from compress.shrinking.goals import FILES

if TYPE_CHECKING:
    import keras

    from compress.devices import DeviceTimes

PRECISION = 0.01
"""Relative half-width at which the timing of one file ends."""
SECONDS = 15.0
ONNX_SPREAD = 0.005
"""By which ONNX files of one net differ in size: their names hold counters."""


@dataclass(frozen=True)
class Meter:
    """Measures nets by files that are made of them, each against the model's own.

    Attributes:
        dense: The model's own files.
        latency: Threads of the timing.
        runtime: Which times.
        folder: In which these files lie.
        seed: Of the order of the timing.
        input_shape: At which MACs are counted.
        device: Times of another device, which a latency is of; None: it is of this machine.
    """

    dense: DenseFiles
    latency: LatencyOptions
    runtime: str
    folder: Path
    seed: int
    input_shape: Any = None
    device: DeviceTimes | None = None

    def costs(self, model: keras.Model, format: str, names: Collection[str]) -> dict[str, float]:
        """Returns costs of a net: counted, and measured on a file of a format.

        Args:
            model: Of any weights: they do not matter to costs.
            format: Of the file.
            names: Of "latency" (ms, by its ratio to the model's own file), "size" and
                "peak_memory" (bytes), "macs" and "params".

        Raises:
            RunFailed: The net could not be converted.
        """
        found: dict[str, float] = {}
        if {"macs", "params"} & set(names):
            counted = count_macs(model, self.input_shape)
            found = {"macs": float(counted.macs), "params": float(counted.params)}
        if FILES & set(names):
            with tempfile.TemporaryDirectory() as folder:
                file = file_for(model, format, Path(folder), shipped="size" in names)
                spread = ONNX_SPREAD if format in ONNX_FORMATS else 0.0
                found["size"] = (1 + spread) * file.stat().st_size
                if "peak_memory" in names:
                    found["peak_memory"] = float(arena_bytes(file))
                if "latency" in names:
                    found["latency"] = self.dense.ms / self.ratio(file)
        return {name: found[name] for name in names}

    def ratio(self, file: Path) -> float:
        """Returns the time of the model's own float32 file over that of a file."""
        threads = self.latency.threads
        found = time_entries(
            {
                "dense": Entry(self.folder / self.dense.file, self.runtime, threads),
                "small": Entry(file, self.runtime, threads),
            },
            precision=PRECISION,
            budget=min(SECONDS, self.latency.budget),
            seed=self.seed,
        )
        return found["small"].ratio
