"""The time of every choice of widths and blocks, from a table of measured calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.measure.latency_table.fused import Unit
from compress.measure.latency_table.prediction import Calibration, calibrate, located, multilinear
from compress.prune.channels.selection.call_grid import Widths

if TYPE_CHECKING:
    from compress.prune.channels.coupling.groups import Coupling

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Part:
    """A unit, and when it runs.

    Attributes:
        unit: The calls.
        present: It runs where all of these blocks are present,
        absent: and, where this is not empty, one of these is absent.
    """

    unit: Unit
    present: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()

    def runs(self, present: Numbers) -> Numbers:
        """Returns 1 where it runs, else 0; (..., blocks) -> (...)."""
        found = present[..., list(self.present)].prod(-1)
        if self.absent:
            found = found * (1.0 - present[..., list(self.absent)].prod(-1))
        return np.asarray(found)


@dataclass(frozen=True, eq=False)
class Surface:
    """The times of one unit: tables over the widths that it depends on.

    Attributes:
        part: The unit.
        widths: What it depends on, one axis of the tables each.
        times: In ms.
        weight_bytes: Of its weights.
        reason: Why some times are estimates; empty: they are measured, or between measured ones.
    """

    part: Part
    widths: tuple[Widths, ...]
    times: Numbers
    weight_bytes: Numbers
    reason: str


class TimeModel:
    """Milliseconds of one inference as a function of kept units and present blocks.

    Each unit's time is interpolated between measured widths. The model's time is the sum over its
    units and what a run costs beside them, put right by some nets that were measured whole
    (`calibrated`). Made by `TimedCalls.times`.

    Attributes:
        calibration: The last; of no nets where nothing was put right.
        estimated: Units whose times, or whose courses between the ends, are estimates, with the
            reasons: "softmax: ...".
    """

    def __init__(
        self, coupling: Coupling, blocks: int, overhead: float, surfaces: Sequence[Surface],
        calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        self._coupling, self._blocks = coupling, blocks
        self._overhead, self._surfaces = overhead, list(surfaces)
        self.calibration = calibration or Calibration()
        self.estimated = tuple(_reasons(self._surfaces))

    def calibrated(
        self,
        kept: npt.NDArray[Any],
        measured: npt.NDArray[Any],
        present: npt.NDArray[Any] | None = None,
    ) -> TimeModel:
        """Returns the model that is right about whole nets on the average.

        Args:
            kept: Removable units kept in each group by some nets, (nets, groups).
            measured: Their times as whole files in ms, (nets,).
            present: See `time`.

        Raises:
            InputError: There are fewer than four nets; or see `time`.
        """
        sums, held = self._sums(kept, present)
        found = calibrate(sums, held, measured)
        return TimeModel(self._coupling, self._blocks, self._overhead, self._surfaces, found)

    def time(self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None) -> Numbers:
        """Returns the time of whole inferences in ms.

        Args:
            kept: Removable units kept in each group, (..., groups).
            present: 1 where a block stays, 0 where it leaves, (..., blocks); default: all stay.

        Returns:
            (...), with leading axes broadcast.

        Raises:
            InputError: A group keeps fewer or more units than were measured, or a shape is wrong.
        """
        sums, held = self._sums(kept, present)
        return np.asarray(self.calibration.factor * sums + self.calibration.weights_ms(held))

    def by_layer(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None = None
    ) -> dict[str, Numbers]:
        """Returns the time of each unit in ms, by the name of its kernel layer; see `time`.

        What a run costs beside them is "(run)"; what weights cost goes by their bytes. The sum
        is that of `time`.
        """
        rows = list(self._each(kept, present))
        total = np.asarray(sum(held for _, _, held in rows))
        share = self.calibration.weights_ms(total) / np.maximum(total, 1.0)
        factor = self.calibration.factor
        found: dict[str, Numbers] = {"(run)": np.asarray(factor * self._overhead)}
        for name, time, held in rows:
            found[name] = found.get(name, 0.0) + factor * time + share * held
        return found

    __call__ = time

    def _sums(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None
    ) -> tuple[Numbers, Numbers]:
        """Returns the sums of the units' times, with a run's cost, and of their weights' bytes."""
        total, weight_bytes = np.asarray(self._overhead), np.zeros(())
        for _, time, held in self._each(kept, present):
            total, weight_bytes = total + time, weight_bytes + held
        return np.asarray(total), np.asarray(weight_bytes)

    def _each(
        self, kept: npt.NDArray[Any], present: npt.NDArray[Any] | None
    ) -> Iterator[tuple[str, Numbers, Numbers]]:
        """Yields name, time and bytes of the weights of each unit."""
        counts = np.asarray(kept, np.float64)
        stays = np.ones(self._blocks) if present is None else np.asarray(present, np.float64)
        for name, given, size in (("kept", counts, len(self._coupling.groups)),
                                  ("present", stays, self._blocks)):  # fmt: skip
            if given.shape[-1:] != (size,):
                raise InputError(
                    f"{name} must have a last axis of {size}. Received: shape {given.shape}."
                )
        shape = np.broadcast_shapes(counts.shape[:-1], stays.shape[:-1])
        where: dict[int, Any] = {}
        for surface in self._surfaces:
            for width in surface.widths:
                if id(width) not in where:
                    where[id(width)] = self._located(width, counts)
            places = [where[id(width)] for width in surface.widths]
            runs = surface.part.runs(stays)
            # a unit of fixed channels takes one time for all
            time, held = (
                np.broadcast_to(multilinear(table, places) * runs, shape)
                for table in (surface.times, surface.weight_bytes)
            )
            yield surface.part.unit.name, time, held

    def _located(self, width: Widths, kept: Numbers) -> Any:
        values = width.of(kept)
        low, high = width.at[0], width.at[-1]
        if values.size and (values.min() < low - 1e-9 or values.max() > high + 1e-9):
            names = ", ".join(f"'{self._coupling.groups[group].name}'" for group in width.groups)
            raise InputError(
                f"Kept units of {names} must be within the widths that were measured, "
                f"{low - width.fixed:g} to {high - width.fixed:g}. "
                f"Received: {values.min() - width.fixed:g} to {values.max() - width.fixed:g}."
            )
        return located(np.clip(values, low, high), width.at)


def _reasons(surfaces: Sequence[Surface]) -> Iterator[str]:
    for surface in surfaces:
        if surface.reason:
            yield f"{surface.part.unit.name}: {surface.reason}"
        elif any(width.together for width in surface.widths):
            yield (
                f"{surface.part.unit.name}: several groups meet on one axis; they are measured "
                "all thinned alike"
            )
