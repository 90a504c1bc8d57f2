"""Latency of any channel counts and blocks, from a table of measured calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.latency_table.prediction import (
    Calibration,
    calibrate,
    find_intervals,
    interpolate_table,
)
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.coupling.slots import Numbers
from compress.prune.channels.selection.call_grid import CountAxis, TimedUnit


@dataclass(frozen=True, eq=False)
class LatencySurface:
    """The latency of one unit: tables over the channel counts that it depends on.

    Attributes:
        part: The unit.
        axes: Channel counts that it depends on, one for each axis of the tables.
        times: Latency in ms, with the counts of one of `axes` along each axis.
        weight_bytes: Size of its weights in bytes, shaped as `times`.
        reason: Reason why some times are estimates; empty if all are measured or interpolated.
    """

    part: TimedUnit
    axes: tuple[CountAxis, ...]
    times: Numbers
    weight_bytes: Numbers
    reason: str


class LatencyModel:
    """Latency of one inference, in ms, as a function of kept units and present blocks.

    The latency of each unit is interpolated between measured channel counts. The latency of the
    model is the sum over its units plus the overhead of a run, calibrated on some models that were
    measured as whole files (`calibrate`). It is created by `TimedCalls.build_latency_model`.

    Args:
        coupling: Coupling of the model.
        blocks: Number of blocks.
        overhead: Overhead of a run in ms.
        surfaces: Latency of each unit.
        calibration: Calibration; default: none.

    Attributes:
        calibration: The calibration; the default one changes nothing.
        estimated: Units whose times, or whose interpolation, are estimates, with the reasons:
            "softmax: ...".
    """

    def __init__(
        self, coupling: Coupling, blocks: int, overhead: float, surfaces: Sequence[LatencySurface],
        calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        self._coupling, self._blocks = coupling, blocks
        self._overhead, self._surfaces = overhead, list(surfaces)
        self.calibration = calibration or Calibration()
        self.estimated = tuple(_iter_reasons(self._surfaces))

    def calibrate(self, kept: npt.NDArray[Any], measured_ms: npt.NDArray[Any]) -> LatencyModel:
        """Return a latency model with the least squared relative error on some whole models.

        Args:
            kept: Removable units kept in each group by some models, (models, groups).
            measured_ms: Latency of these models as whole files in ms, (models,).

        Raises:
            InputError: There are fewer than four models, or times not above 0; or see `predict`.
        """
        sums, weight_bytes = self._sum_units(kept, None)
        return LatencyModel(
            self._coupling,
            self._blocks,
            self._overhead,
            self._surfaces,
            calibrate(sums, weight_bytes, measured_ms),
        )

    def predict(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Return the latency of whole inferences in ms.

        Args:
            kept: Removable units kept in each group, (..., groups).
            present: 1 for each kept block, 0 for each removed one, (..., blocks); default: all
                blocks are kept.

        Returns:
            (...), the broadcast leading axes of both arguments.

        Raises:
            InputError: A group keeps fewer or more units than were measured, or a shape is wrong.
        """
        sums, weight_bytes = self._sum_units(kept, present)
        return np.asarray(
            self.calibration.factor * sums + self.calibration.predict_weights_ms(weight_bytes)
        )

    def predict_by_layer(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> dict[str, Numbers]:
        """Return the latency of each unit in ms, by the name of its kernel layer; see `predict`.

        The overhead of a run has the name "(run)". The calibrated cost of weights is distributed by
        their bytes. The sum equals the result of `predict`.
        """
        rows = list(self._iter_units(kept, present))
        total = np.asarray(sum(unit_bytes for _, _, unit_bytes in rows))
        share = self.calibration.predict_weights_ms(total) / np.maximum(total, 1.0)
        factor = self.calibration.factor
        times: dict[str, Numbers] = {"(run)": np.asarray(factor * self._overhead)}
        for name, time, unit_bytes in rows:
            times[name] = times.get(name, 0.0) + factor * time + share * unit_bytes
        return times

    __call__ = predict

    def _sum_units(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None
    ) -> tuple[Numbers, Numbers]:
        """Return the total latency of units and run overhead, and the total bytes of weights."""
        total, weight_bytes = np.asarray(self._overhead), np.zeros(())
        for _, time, unit_bytes in self._iter_units(kept, present):
            total, weight_bytes = total + time, weight_bytes + unit_bytes
        return np.asarray(total), np.asarray(weight_bytes)

    def _iter_units(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None
    ) -> Iterator[tuple[str, Numbers, Numbers]]:
        """Yield the name, latency and weight bytes of each unit."""
        counts = np.asarray(kept, np.float64)
        block_presence = (
            np.ones(self._blocks) if present is None else np.asarray(present, np.float64)
        )
        for name, array, size in (("kept", counts, len(self._coupling.groups)),
                                  ("present", block_presence, self._blocks)):  # fmt: skip
            if array.shape[-1:] != (size,):
                raise InputError(
                    f"{name} must have a last axis of {size}. Received: shape {array.shape}."
                )
        shape = np.broadcast_shapes(counts.shape[:-1], block_presence.shape[:-1])
        located_axes: dict[int, Any] = {}
        for surface in self._surfaces:
            for axis in surface.axes:
                if id(axis) not in located_axes:
                    located_axes[id(axis)] = self._locate_counts(axis, counts)
            places = [located_axes[id(axis)] for axis in surface.axes]
            presence = surface.part.compute_presence(block_presence)
            # the latency of a unit with fixed channels is constant
            time, weight_bytes = (
                np.broadcast_to(interpolate_table(table, places) * presence, shape)
                for table in (surface.times, surface.weight_bytes)
            )
            yield surface.part.unit.name, time, weight_bytes

    def _locate_counts(self, axis: CountAxis, kept: Numbers) -> Any:
        values = axis.compute_counts(kept)
        low, high = axis.counts[0], axis.counts[-1]
        if values.size and (values.min() < low - 1e-9 or values.max() > high + 1e-9):
            names = ", ".join(f"'{self._coupling.groups[group].name}'" for group in axis.groups)
            raise InputError(
                f"Kept units of {names} must be within the measured channel counts, "
                f"{low - axis.fixed:g} to {high - axis.fixed:g}. "
                f"Received: {values.min() - axis.fixed:g} to {values.max() - axis.fixed:g}."
            )
        return find_intervals(np.clip(values, low, high), axis.counts)


def _iter_reasons(surfaces: Sequence[LatencySurface]) -> Iterator[str]:
    for surface in surfaces:
        if surface.reason:
            yield f"{surface.part.unit.name}: {surface.reason}"
        elif any(axis.is_joint for axis in surface.axes):
            yield (
                f"{surface.part.unit.name}: several groups meet on one axis; they are measured "
                "all thinned alike"
            )
