"""Search for one precision per layer: estimated from single layers, verified on whole files.

The search moves from the cheapest precisions to the most expensive ones, the best trade-off first.
Latencies of precisions are estimated from a few files that are timed against each other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import RunFailed
from compress.core.pareto import Choice, Losses, trace_convex_hull
from compress.exporting.conversions import ConversionFailed, convert
from compress.exporting.file_checks import open_session
from compress.exporting.litert import ensure_float32_file
from compress.exporting.mixed.units import BITS, FLOAT32, INT8, LEVELS, Unit, build_recipe
from compress.exporting.tracing import Convertible, Examples
from compress.measure.file_agreement import compute_divergence, compute_outputs
from compress.measure.latency import measure_latency
from compress.measure.runtimes import Session, prepare_session
from compress.plan import LatencyOptions
from compress.plan.output import MIXED
from compress.plan.target import SizeTarget, TimeTarget

ALLOWED_SHARE = 0.25
"""Largest loss of an int8-mixed file, as a share of that of plain int8."""
NEGLIGIBLE = 1e-4
"""Loss that is always allowed: it hardly changes a class decision."""
TINY = 1e-6
"""Weight of latency in the cost, relative to size, when the size limit is binding."""
EquivalenceCheck = Callable[[Path, Path, Path], str]
"""Function (cheaper file, more precise file, float32 file) -> comparison that shows the first to be
as good as the second; "" if it is not."""
TIMING = LatencyOptions(budget=4.0)
"""Options for timing whole files against each other, with one thread."""
TIMING_PRECISION = 0.05


class PrecisionFiles:
    """Files of one float32 file at other precisions, each written once, and their losses.

    Args:
        traced: The model of the float32 file.
        folder: Folder of the files.
        inputs: Calibration examples (n, ...), one array per input. Their smallest and largest
            activations are the ranges of integers.
        units: Units of the float32 file.
        loss_examples: Number of leading examples on which losses are measured.

    Attributes:
        source: The float32 file.

    Raises:
        ConversionFailed: LiteRT Quantizer refuses the file.
    """

    def __init__(
        self,
        traced: Convertible,
        folder: Path,
        inputs: Examples,
        units: Sequence[Unit],
        loss_examples: int,
    ) -> None:
        self.source, self.units = ensure_float32_file(traced), tuple(units)
        self._folder, self._ranges = folder, folder / "ranges.json"
        self._paths = {(FLOAT32,) * len(self.units): self.source}
        self._counter = count()
        self._losses: dict[Path, float] = {self.source: 0.0}
        self._inputs = [array[:loss_examples] for array in inputs]
        self._reference_outputs = compute_outputs(prepare_session(self.source), self._inputs)
        convert(
            "mixed_ranges", source=str(self.source), path=str(self._ranges),
            examples=str(traced.save_examples(inputs)),
            recipe=build_recipe({unit: INT8 for unit in units if not unit.is_loop}),
        )  # fmt: skip

    def build(self, levels: Mapping[Unit, str]) -> Path:
        """Return the file whose units have the given levels; units without a level are float32.

        Args:
            levels: Level of each unit.

        Raises:
            ConversionFailed: The file cannot be converted, or LiteRT cannot run it.
        """
        key = tuple(levels.get(unit, FLOAT32) for unit in self.units)
        if key not in self._paths:
            self._paths[key], _ = self._convert(dict(zip(self.units, key, strict=True)))
        return self._paths[key]

    def assign_level(self, level: str, is_available: npt.NDArray[np.bool_]) -> dict[Unit, str]:
        """Return the same level for all units that support it.

        Args:
            level: The level.
            is_available: Whether each unit supports it, (units,).
        """
        return {unit: level for unit, ok in zip(self.units, is_available, strict=True) if ok}

    def measure_unit_loss(self, unit: Unit, level: str) -> float:
        """Return the loss of a file with one unit at a level; see `compute_divergence`.

        The file is deleted, because a large model has hundreds of such files.

        Args:
            unit: The unit; all others are float32.
            level: Level of the unit.

        Raises:
            ConversionFailed: See `build`.
        """
        if level == FLOAT32:
            return 0.0
        path, session = self._convert({unit: level})
        try:
            return self._measure_divergence(session)
        finally:
            path.unlink()

    def _convert(self, levels: Mapping[Unit, str]) -> tuple[Path, Session]:
        path = self._folder / f"mixed_{next(self._counter)}.tflite"
        convert(
            "mixed", source=str(self.source), path=str(path), ranges=str(self._ranges),
            recipe=build_recipe(levels),
        )  # fmt: skip
        return path, open_session(path, self._inputs)

    def _measure_divergence(self, session: Session) -> float:
        return max(
            0.0, compute_divergence(self._reference_outputs, compute_outputs(session, self._inputs))
        )

    def measure_loss(self, path: Path) -> float:
        """Return the divergence of a file's outputs from the float32 file's.

        Args:
            path: File returned by `build`.
        """
        if path not in self._losses:
            self._losses[path] = self._measure_divergence(prepare_session(path))
        return self._losses[path]


@dataclass(frozen=True)
class MixedLimits:
    """Limits of a mixed-precision file.

    Attributes:
        size_bytes: Maximum size; None: no limit.
        latency_ms: Maximum latency on LiteRT on this machine; None: no limit.
    """

    size_bytes: float | None = None
    latency_ms: float | None = None

    def __str__(self) -> str:
        """Return "a size of 9926B and a latency of 3ms", or "" without limits."""
        texts = []
        if self.size_bytes is not None:
            texts.append(f"a size of {SizeTarget(float(self.size_bytes), relative=False)}")
        if self.latency_ms is not None:
            texts.append(f"a latency of {TimeTarget(float(self.latency_ms), relative=False)}")
        return " and ".join(texts)


@dataclass(frozen=True)
class PrecisionChoice:
    """Result of a precision search.

    Attributes:
        path: The file.
        levels: Precision of each unit.
        unit_losses: By unit, then by level: divergence of the outputs if only this unit has this
            level.
        loss: Measured divergence of the file's outputs.
        int8_loss: Measured divergence if every unit that supports it is int8; if that file cannot
            be converted, of the file with the cheapest levels.
        notes: Limits that kept the loss above the requested one, and levels that failed.
    """

    path: Path
    levels: Mapping[Unit, str]
    unit_losses: Mapping[Unit, Mapping[str, float]]
    loss: float
    int8_loss: float
    notes: tuple[str, ...]


@dataclass
class PrecisionSearch:
    """Search for the precisions of one file.

    Args:
        files: Files of one float32 file.
        limits: Limits of the file.
        on_progress: Callback invoked with the completed share, in [0, 1].
        equivalence_check: Function that checks, on held-out examples, whether an all-int8 file is
            as good.
        notes: Notes of the search; it starts empty.
    """

    files: PrecisionFiles
    limits: MixedLimits
    on_progress: Callable[[float], None]
    equivalence_check: EquivalenceCheck
    notes: list[str] = field(default_factory=list)

    def run(self) -> PrecisionChoice:
        """Search and return the best file within the limits.

        Raises:
            RunFailed: No file is within the limits.
        """
        self.levels: tuple[str, ...] = LEVELS
        units = self.files.units
        losses = self._measure_unit_losses()
        is_available = np.isfinite(losses)
        if not is_available.any(axis=1).all():  # units that support none of the levels stay float32
            self.levels = (*self.levels, FLOAT32)
            losses = np.c_[losses, np.where(is_available.any(axis=1), np.inf, 0.0)]
            is_available = np.isfinite(losses)
        sizes, times = (
            self._compute_sizes(),
            estimate_unit_times(self.files, self.levels, is_available),
        )
        costs = np.where(is_available, sizes + times, np.inf)
        choices = trace_convex_hull(losses, costs)
        if self._is_too_large(self._build_file(choices[0])):
            costs = np.where(is_available, sizes + TINY * times, np.inf)
            choices = trace_convex_hull(losses, costs)
        self.on_progress(0.8)
        choices = choices[: 1 + self._find_last_within(choices)]
        int8_loss = self.files.measure_loss(
            self._build_int8(is_available[:, 0]) or self._build_file(choices[0])
        )
        max_loss = max(ALLOWED_SHARE * int8_loss, NEGLIGIBLE)
        choice = self._prefer_int8(self._select_cheapest(choices, max_loss), costs)
        path = self._build_file(choice)
        unit_losses = {
            unit: {level: float(loss) for level, loss in zip(self.levels, row, strict=True)
                   if np.isfinite(loss)}
            for unit, row in zip(units, losses, strict=True)
        }  # fmt: skip
        return PrecisionChoice(
            path,
            self._map_levels(choice),
            unit_losses,
            self.files.measure_loss(path),
            int8_loss,
            tuple(self.notes),
        )

    def _prefer_int8(self, choice: Choice, costs: Losses) -> Choice:
        """Return int8 for all units if that is cheaper and as good, else the given choice."""
        int8_choice = (self.levels.index(INT8),) * len(choice)
        units = np.arange(len(choice))
        if not costs[units, int8_choice].sum() < costs[units, choice].sum():
            return choice
        try:
            cheaper = self._build_file(int8_choice)
        except ConversionFailed:  # the units support int8 one by one, but not together
            return choice
        dearer, source = self._build_file(choice), self.files.source
        figures = self._is_within_limits(int8_choice) and self.equivalence_check(
            cheaper, dearer, source
        )
        if not figures:
            return choice
        raised_count = sum(level != int8_choice[0] for level in choice)
        self.notes.append(
            f"{MIXED}: all layers are int8, which is as good as {raised_count} of them in more "
            f"precision and costs less: {figures}"
        )
        return int8_choice

    def _measure_unit_losses(self) -> Any:
        """Return the loss of each unit at each level, with all others in float32."""
        losses = np.full((len(self.files.units), len(self.levels)), np.inf)
        failed = dict[str, str]()
        for row, unit in enumerate(self.files.units):
            for column, level in enumerate(self.levels):
                if unit.is_loop and level == INT8:
                    continue
                try:
                    losses[row, column] = self.files.measure_unit_loss(unit, level)
                except ConversionFailed as error:
                    failed.setdefault(f"{unit.name} was not tried in {level}", error.reason)
            self.on_progress(0.7 * (row + 1) / len(self.files.units))
        self.notes += [f"{attempt}: {reason}" for attempt, reason in failed.items()]
        return losses

    def _compute_sizes(self) -> Any:
        """Return the kernel bytes of each unit at each level, as a share of the float32 total."""
        weight_counts = np.array([unit.weights for unit in self.files.units], float)
        bits = np.array([BITS[level] for level in self.levels]) / BITS[FLOAT32]
        return weight_counts[:, None] / max(1.0, weight_counts.sum()) * bits[None, :]

    def _build_int8(self, is_available: npt.NDArray[np.bool_]) -> Path | None:
        """Return the file that is int8 throughout, or None if it cannot be converted."""
        try:
            return self.files.build(self.files.assign_level(INT8, is_available))
        except ConversionFailed as error:
            self.notes.append(f"no file is {INT8} throughout: {error.reason}")
            return None

    def _map_levels(self, choice: Choice) -> dict[Unit, str]:
        return {
            unit: self.levels[index] for unit, index in zip(self.files.units, choice, strict=True)
        }

    def _build_file(self, choice: Choice) -> Path:
        return self.files.build(self._map_levels(choice))

    def _find_last_within(self, choices: Sequence[Choice]) -> int:
        """Return the index of the most expensive choice within the limits.

        Raises:
            RunFailed: Even the cheapest choice exceeds them.
        """
        last = len(choices) - 1
        if self._is_within_limits(choices[last]):
            return last
        if not self._is_within_limits(choices[0]):
            size = self._build_file(choices[0]).stat().st_size
            raise RunFailed(
                f"The int8-mixed file must be within {self.limits}. Received: {size:,} bytes where "
                "every layer is as cheap as can be. Allow more."
            )
        return _bisect_last(last, lambda index: self._is_within_limits(choices[index]))

    def _is_too_large(self, path: Path) -> bool:
        """Return whether a file exceeds the size limit, if there is one."""
        size_bytes = self.limits.size_bytes
        return size_bytes is not None and path.stat().st_size > size_bytes

    def _is_within_limits(self, choice: Choice) -> bool:
        """Build a choice's file; return whether its bytes and measured milliseconds are allowed."""
        path = self._build_file(choice)
        if self._is_too_large(path):
            return False
        if self.limits.latency_ms is None:
            return True
        timings = measure_latency(
            {FLOAT32: self.files.source, "mixed": path}, TIMING, precision=TIMING_PRECISION
        )
        return timings["mixed"].median_ms <= self.limits.latency_ms

    def _select_cheapest(self, choices: Sequence[Choice], max_loss: float) -> Choice:
        """Return the cheapest choice whose file has a loss of at most `max_loss`.

        If there is none, it is the most expensive choice, with a note.
        """

        def is_too_lossy(index: int) -> bool:
            return self.files.measure_loss(self._build_file(choices[index])) > max_loss

        last = len(choices) - 1
        if is_too_lossy(last):
            limits = str(self.limits)
            cause = f"within {limits}" if limits else "with these levels"
            self.notes.append(f"int8-mixed cannot lose as little as was asked for {cause}")
            return choices[last]
        return choices[1 + _bisect_last(last, is_too_lossy)] if is_too_lossy(0) else choices[0]


def estimate_unit_times(
    files: PrecisionFiles, levels: Sequence[str], is_available: npt.NDArray[np.bool_]
) -> Any:
    """Return the extra time of each unit at each level, relative to the fastest level.

    First a file of each single level is timed. In the fastest one, all units of one kind (depthwise
    convolutions, say, for which not every level has a fast kernel) are then moved to each other
    level together. The time difference is divided among them by multiply-accumulates.

    Args:
        files: Files at other precisions.
        levels: The levels to choose from.
        is_available: Whether a unit (rows) supports a level (columns).

    Returns:
        Shares of the float32 file's time, (units, levels); negative values are faster.
    """
    uniform_levels = {
        level: files.assign_level(level, is_available[:, at]) for at, level in enumerate(levels)
    }
    uniform_times = _measure_time_shares(files, uniform_levels)
    fastest_level = min(uniform_times, key=lambda level: uniform_times[level])
    macs = Counter[str]()
    for unit in files.units:
        macs[unit.kind] += unit.macs
    swapped = {
        f"{kind} {level}": uniform_levels[fastest_level]
        | {unit: level for unit in uniform_levels[level] if unit.kind == kind}
        for kind in macs for level in levels if level != fastest_level
    }  # fmt: skip
    swapped_times = _measure_time_shares(
        files, {fastest_level: uniform_levels[fastest_level], **swapped}
    )
    slowest = max(swapped_times.values())
    result = np.zeros((len(files.units), len(levels)))
    for row, unit in enumerate(files.units):
        for column, level in enumerate(levels):
            if level != fastest_level and macs[unit.kind]:
                # a file that cannot be converted counts as slow as the slowest
                extra_time = (
                    swapped_times.get(f"{unit.kind} {level}", slowest)
                    - swapped_times[fastest_level]
                )
                result[row, column] = extra_time * unit.macs / macs[unit.kind]
    return result


def _bisect_last(end: int, holds: Callable[[int], bool]) -> int:
    """Bisect for the last index where a condition holds.

    Args:
        end: Index at which it does not hold.
        holds: The condition; it holds at 0.
    """
    return end - 1 - bisect_left(range(end - 1, 0, -1), True, key=holds)


def _measure_time_shares(
    files: PrecisionFiles, levels_by_name: Mapping[str, Mapping[Unit, str]]
) -> dict[str, float]:
    """Return times as shares of the float32 file's, by name; files that fail are left out."""
    paths = {"": files.source}
    for name, levels in levels_by_name.items():
        try:
            paths[name] = files.build(levels)
        except ConversionFailed:
            continue  # the units support these levels one by one, or not at all
    timings = measure_latency(paths, TIMING, precision=TIMING_PRECISION)
    return {name: item.quiet_ms / timings[""].quiet_ms for name, item in timings.items() if name}
