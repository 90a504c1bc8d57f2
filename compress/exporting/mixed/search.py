"""Search for a precision of each layer: by its own loss first, then by files in between.

The way goes from the cheapest precisions to the dearest, the best trade first. What a precision
costs in time comes from a few files that are timed against each other.
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
from compress.exporting.answering import runnable
from compress.exporting.conversions import ConversionFailed, convert
from compress.exporting.mixed.units import BITS, FLOAT32, IN_LOOPS, INT8, Unit, recipe_of
from compress.exporting.traced import Port, write_examples
from compress.measure.latency import measure_latency
from compress.measure.quality import divergence, outputs_of
from compress.measure.runtimes import Session, session_for
from compress.plan import LatencyOptions
from compress.plan.output import MIXED, ExportOptions

NEGLIGIBLE = 1e-4
"""A loss that is always allowed, unless none is: it hardly changes an answer of a classifier."""
TINY = 1e-6
"""What time counts beside bytes, where bytes are what is short."""
AsGood = Callable[[Path, Path, Path], str]
"""Called with a cheaper file, a dearer one and the float32 file: the figures by which the first is
as good as the second; "": it is not."""
Numbers = npt.NDArray[np.float64]
Choice = tuple[int, ...]
"""The place of each unit's level."""
TIMING = LatencyOptions(precision=0.05, budget=4.0)
"""Of whole files against each other, one thread."""


def observe(
    source: Path,
    path: Path,
    inputs: Sequence[npt.NDArray[Any]],
    ports: Sequence[Port],
    units: Sequence[Unit],
) -> None:
    """Write the smallest and largest values of the activations that may become integers.

    Args:
        source: A float32 file.
        path: The file to write.
        inputs: Examples (n, ...), an array an input.
        ports: Of the file.
        units: Of the file.

    Raises:
        ConversionFailed: LiteRT Quantizer refuses the file.
    """
    examples = path.with_suffix(".npz")
    write_examples(examples, inputs, ports)
    convert(
        "mixed_ranges", source=str(source), path=str(path), examples=str(examples),
        recipe=recipe_of({unit: INT8 for unit in units if not unit.loops}),
    )  # fmt: skip


class Files:
    """Files of one float32 file at other precisions, each made once, and their losses.

    Args:
        source: The float32 file.
        folder: Where files go.
        inputs: An array (n, ...) an input.
        ports: Of the file.
        units: Of the file.
        sensed: Number of examples, the first ones, on which losses are measured.
    """

    def __init__(
        self,
        source: Path,
        folder: Path,
        inputs: Sequence[npt.NDArray[Any]],
        ports: Sequence[Port],
        units: Sequence[Unit],
        sensed: int,
    ) -> None:
        self.source, self.units = source, tuple(units)
        self._folder, self._ranges = folder, folder / "ranges.json"
        self._made = {(FLOAT32,) * len(self.units): source}
        self._numbers = count()
        self._losses: dict[Path, float] = {source: 0.0}
        self._inputs = [array[:sensed] for array in inputs]
        self._wanted = outputs_of(session_for(source), self._inputs)
        observe(source, self._ranges, inputs, ports, units)

    def made(self, levels: Mapping[Unit, str]) -> Path:
        """Return the file whose units have these levels; units without a level are float32.

        Raises:
            ConversionFailed: It cannot be made, or LiteRT cannot run it.
        """
        key = tuple(levels.get(unit, FLOAT32) for unit in self.units)
        if key not in self._made:
            self._made[key], _ = self._new(dict(zip(self.units, key, strict=True)))
        return self._made[key]

    def throughout(self, level: str, had: npt.NDArray[np.bool_]) -> dict[Unit, str]:
        """Return the same level for all units that can have it.

        Args:
            level: The level.
            had: Whether each unit can, (units,).
        """
        return {unit: level for unit, ok in zip(self.units, had, strict=True) if ok}

    def alone(self, unit: Unit, level: str) -> float:
        """Return the loss of a file in which one unit alone has a level; see `divergence`.

        The file is not kept: of a large model there are hundreds.

        Raises:
            ConversionFailed: See `made`.
        """
        if level == FLOAT32:
            return 0.0
        path, session = self._new({unit: level})
        try:
            return self._measured(session)
        finally:
            path.unlink()

    def _new(self, levels: Mapping[Unit, str]) -> tuple[Path, Session]:
        path = self._folder / f"mixed_{next(self._numbers)}.tflite"
        convert(
            "mixed", source=str(self.source), path=str(path), ranges=str(self._ranges),
            recipe=recipe_of(levels),
        )  # fmt: skip
        return path, runnable(path, self._inputs)

    def _measured(self, session: Session) -> float:
        return max(0.0, divergence(self._wanted, outputs_of(session, self._inputs)))

    def loss(self, path: Path) -> float:
        """Return the divergence of a file's outputs from the float32 file's; see `divergence`."""
        if path not in self._losses:
            self._losses[path] = self._measured(session_for(path))
        return self._losses[path]


@dataclass(frozen=True)
class Found:
    """File that the search chose.

    Attributes:
        path: Of the file.
        levels: The precision of each unit.
        alone: By unit, then by level that it can have: how far the outputs move where it alone has
            that level.
        loss: How far they move in the file, measured.
        lowest: The least precise level.
        most: How far they move where every unit that can has the lowest level, measured.
        notes: Limits that kept the loss above what was asked for, and levels that failed.
    """

    path: Path
    levels: Mapping[Unit, str]
    alone: Mapping[Unit, Mapping[str, float]]
    loss: float
    lowest: str
    most: float
    notes: tuple[str, ...]


@dataclass
class Search:
    """Search for the precisions of one file.

    Args:
        files: Of one float32 file.
        options: Levels, loss and limits.
        told: Called with the share that is done.
        as_good: Decides whether int8 throughout serves as well, on examples that chose nothing.
            None: that is not asked.
    """

    files: Files
    options: ExportOptions
    told: Callable[[float], None]
    as_good: AsGood | None = None
    notes: list[str] = field(default_factory=list)

    def found(self) -> Found:
        """Return the chosen file.

        Raises:
            RunFailed: No file is within the limits.
        """
        self.levels, units = self.options.mixed_levels, self.files.units
        losses = self._alone()
        had = np.isfinite(losses)
        if not had.any(axis=1).all():  # what can have none of the levels stays as it is
            self.levels = (*self.levels, FLOAT32)
            losses = np.c_[losses, np.where(had.any(axis=1), np.inf, 0.0)]
            had = np.isfinite(losses)
        sizes, times = self._sizes(), unit_times(self.files, self.levels, had)
        costs = np.where(had, sizes + times, np.inf)
        choices = path_of_choices(losses, costs)
        if self._too_large(self._file(choices[0])):
            costs = np.where(had, sizes + TINY * times, np.inf)
            choices = path_of_choices(losses, costs)
        self.told(0.8)
        choices = choices[: 1 + self._last_within(choices)]
        most = self.files.loss(self._lowest(had[:, 0]) or self._file(choices[0]))
        share = self.options.mixed_loss
        choice = self._reaching(choices, max(share * most, NEGLIGIBLE) if share else 0.0)
        if share:
            choice = self._or_int8(choice, costs)
        path = self._file(choice)
        alone = {
            unit: {level: float(loss) for level, loss in zip(self.levels, row, strict=True)
                   if np.isfinite(loss)}
            for unit, row in zip(units, losses, strict=True)
        }  # fmt: skip
        return Found(
            path, self._levels_of(choice), alone, self.files.loss(path), self.levels[0], most,
            tuple(self.notes),
        )  # fmt: skip

    def _or_int8(self, choice: Choice, costs: Numbers) -> Choice:
        """Return int8 for all units where that is cheaper and as good, else the choice."""
        if self.as_good is None or INT8 not in self.levels:
            return choice
        plain = (self.levels.index(INT8),) * len(choice)
        units = np.arange(len(choice))
        if not costs[units, plain].sum() < costs[units, choice].sum():
            return choice
        try:
            cheaper = self._file(plain)
        except ConversionFailed:  # its units have int8 one by one, not together
            return choice
        dearer, source = self._file(choice), self.files.source
        figures = self._fits(plain) and self.as_good(cheaper, dearer, source)
        if not figures:
            return choice
        raised = sum(level != plain[0] for level in choice)
        self.notes.append(
            f"{MIXED}: all layers are int8, which is as good as {raised} of them in more precision "
            f"and costs less: {figures}"
        )
        return plain

    def _alone(self) -> Any:
        """Return the loss of each unit at each level, the others in float32."""
        losses = np.full((len(self.files.units), len(self.levels)), np.inf)
        failed = dict[str, str]()
        for row, unit in enumerate(self.files.units):
            for column, level in enumerate(self.levels):
                if unit.loops and level not in IN_LOOPS:
                    continue
                try:
                    losses[row, column] = self.files.alone(unit, level)
                except ConversionFailed as error:
                    failed.setdefault(f"{unit.name} was not tried in {level}", error.reason)
            self.told(0.7 * (row + 1) / len(self.files.units))
        self.notes += [f"{what}: {why}" for what, why in failed.items()]
        return losses

    def _sizes(self) -> Any:
        """Return the bytes of each unit's kernel at each level, as a share of all in float32."""
        counted = np.array([unit.weights for unit in self.files.units], float)
        bits = np.array([BITS[level] for level in self.levels]) / BITS[FLOAT32]
        return counted[:, None] / max(1.0, counted.sum()) * bits[None, :]

    def _lowest(self, had: npt.NDArray[np.bool_]) -> Path | None:
        """Return the file of the least precise level, or None if it cannot be made."""
        level = self.levels[0]
        try:
            return self.files.made(self.files.throughout(level, had))
        except ConversionFailed as error:
            self.notes.append(f"no file is {level} throughout: {error.reason}")
            return None

    def _levels_of(self, choice: Choice) -> dict[Unit, str]:
        return {unit: self.levels[at] for unit, at in zip(self.files.units, choice, strict=True)}

    def _file(self, choice: Choice) -> Path:
        return self.files.made(self._levels_of(choice))

    def _last_within(self, choices: Sequence[Choice]) -> int:
        """Return the index of the dearest choice that is within the limits.

        Raises:
            RunFailed: The cheapest is not.
        """
        last = len(choices) - 1
        if self._fits(choices[last]):
            return last
        if not self._fits(choices[0]):
            size = self._file(choices[0]).stat().st_size
            raise RunFailed(
                f"The int8-mixed file must be within {self._limits()}. Received: {size:,} bytes "
                "where every layer is as cheap as can be. Allow more, or allow int4 "
                "(--mixed-levels)."
            )
        return _last(last, lambda place: self._fits(choices[place]))

    def _too_large(self, path: Path) -> bool:
        """Tell whether a file exceeds the size limit, if there is one."""
        size = self.options.mixed_size
        if size is None:
            return False
        whole = self.files.source.stat().st_size if size.relative else 1
        return path.stat().st_size > size.amount * whole

    def _limits(self) -> str:
        limits = {"size": self.options.mixed_size, "latency": self.options.mixed_latency}
        told = [f"a {name} of {limit}" for name, limit in limits.items() if limit is not None]
        return " and ".join(told)

    def _fits(self, choice: Choice) -> bool:
        path, latency = self._file(choice), self.options.mixed_latency
        if self._too_large(path):
            return False
        if latency is None:
            return True
        timed = measure_latency({FLOAT32: self.files.source, "mixed": path}, TIMING)
        limit = latency.amount * (timed[FLOAT32].median_ms if latency.relative else 1)
        return timed["mixed"].median_ms <= limit

    def _reaching(self, choices: Sequence[Choice], most: float) -> Choice:
        """Return the cheapest choice whose file loses no more than `most`."""

        def loses_more(place: int) -> bool:
            return self.files.loss(self._file(choices[place])) > most

        last = len(choices) - 1
        if loses_more(last):
            limits = self._limits()
            why = f"within {limits}" if limits else "with these levels"
            self.notes.append(f"int8-mixed cannot lose as little as was asked for {why}")
            return choices[last]
        return choices[1 + _last(last, loses_more)] if loses_more(0) else choices[0]


def path_of_choices(losses: Numbers, costs: Numbers) -> list[Choice]:
    """Return choices of one level per unit, from the cheapest on, each with a smaller loss.

    Losses and costs of units add up. Each step raises one unit to the level that saves the most
    loss for its cost. These choices are the corners of the lower convex hull of all (cost, loss):
    none with as small a cost lies below it.

    Args:
        losses: Of each unit (rows) at each level (columns), at least 0; infinite where it cannot
            have the level.
        costs: The same.

    Returns:
        The choices; the first is the cheapest (of equal costs the smaller loss).

    Reference:
        Multiple-choice knapsack by its linear relaxation: Sinha and Zoltners 1979, "The
        Multiple-Choice Knapsack Problem"; of precisions: Dong et al. 2020, "HAWQ-V2", section 3.2,
        where losses are estimated by Hessians and not measured.
    """
    units = len(losses)
    now = [
        min(range(len(costs[unit])), key=lambda level: (costs[unit, level], losses[unit, level]))
        for unit in range(units)
    ]
    found = [tuple(now)]
    while True:
        best, step = 0.0, None
        for unit in range(units):
            saved = losses[unit, now[unit]] - losses[unit]
            spent = costs[unit] - costs[unit, now[unit]]
            better = (saved > 0) & (spent > 0)
            gain = np.divide(saved, spent, out=np.zeros_like(saved), where=better)
            level = int(gain.argmax())
            if gain[level] > best:
                best, step = float(gain[level]), (unit, level)
        if step is None:
            return found
        now[step[0]] = step[1]
        found.append(tuple(now))


def unit_times(files: Files, levels: Sequence[str], had: npt.NDArray[np.bool_]) -> Any:
    """Return the extra time of each unit at each level, compared with the fastest level.

    Of files of one level each the fastest is taken; then the units of one kind of kernel
    (convolutions by depth, say, which not every level has a fast one of) take each other level
    together, and share the difference by multiply-accumulates.

    Args:
        files: Makes the files.
        levels: Among which is chosen.
        had: Whether a unit (rows) can have a level (columns).

    Returns:
        Shares of the float32 file's time, (units, levels); negative: faster.
    """
    everywhere = {level: files.throughout(level, had[:, at]) for at, level in enumerate(levels)}
    timed = _times(files, everywhere)
    base = min(timed, key=lambda level: timed[level])
    macs = Counter[str]()
    for unit in files.units:
        macs[unit.kind] += unit.macs
    swapped = {
        f"{kind} {level}": everywhere[base]
        | {unit: level for unit in everywhere[level] if unit.kind == kind}
        for kind in macs for level in levels if level != base
    }  # fmt: skip
    found = _times(files, {base: everywhere[base], **swapped})
    slowest = max(found.values())
    result = np.zeros((len(files.units), len(levels)))
    for row, unit in enumerate(files.units):
        for column, level in enumerate(levels):
            if level != base and macs[unit.kind]:
                # a file that cannot be made takes as long as the slowest
                more = found.get(f"{unit.kind} {level}", slowest) - found[base]
                result[row, column] = more * unit.macs / macs[unit.kind]
    return result


def _last(end: int, holds: Callable[[int], bool]) -> int:
    """Return the last index at which a condition holds that holds at 0 and not at `end`, by
    bisection."""
    return end - 1 - bisect_left(range(end - 1, 0, -1), True, key=holds)


def _times(files: Files, wanted: Mapping[str, Mapping[Unit, str]]) -> dict[str, float]:
    """Return the times of files by name, as shares of the float32 file's."""
    paths = {"": files.source}
    for name, levels in wanted.items():
        try:
            paths[name] = files.made(levels)
        except ConversionFailed:
            continue  # units have these levels one by one, or are known to have not
    timed = measure_latency(paths, TIMING)
    return {name: item.quiet_ms / timed[""].quiet_ms for name, item in timed.items() if name}
