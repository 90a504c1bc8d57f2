"""Finds a precision a layer: what each costs alone, then the files on the way between.

The way goes from the cheapest precisions to the dearest, the best trade first. What a precision
costs in time comes from a few files that are timed against each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import RunFailed
from compress.exporting.conversions import ConversionFailed
from compress.exporting.mixed.candidates import Files
from compress.exporting.mixed.units import BITS, FLOAT32, IN_LOOPS, INT8, Unit
from compress.measure.latency import measure_latency
from compress.plan import LatencyOptions
from compress.plan.output import MIXED, ExportOptions

NEGLIGIBLE = 1e-4
"""A loss that is always allowed, unless none is: it hardly changes an answer of a classifier."""
TINY = 1e-6
"""What time counts beside bytes, where bytes are what is short."""
Told = Callable[[float], None]
AsGood = Callable[[Path, Path, Path], str]
"""Called with a cheaper file, a dearer one and the float32 file: the figures by which the first is
as good as the second; "": it is not."""
Numbers = npt.NDArray[np.float64]
Choice = tuple[int, ...]
"""The place of each unit's level."""
TIMING = LatencyOptions(precision=0.05, budget=4.0)
"""Of whole files against each other, one thread."""


@dataclass(frozen=True)
class Found:
    """The file that was chosen.

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
    """The search of one file.

    Args:
        files: Of one float32 file.
        options: Levels, loss and limits.
        told: Called with the share that is done.
        as_good: Decides whether int8 throughout serves as well, on examples that chose nothing.
            None: that is not asked.
    """

    files: Files
    options: ExportOptions
    told: Told
    as_good: AsGood | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.levels = self.options.mixed_levels

    def found(self) -> Found:
        """Returns the file that was chosen.

        Raises:
            RunFailed: No file is within the limits.
        """
        levels, units = self.levels, self.files.units
        losses = self._alone(levels)
        had = np.isfinite(losses)
        if not had.any(axis=1).all():  # what can have none of the levels stays as it is
            self.levels = levels = (*levels, FLOAT32)
            losses = np.c_[losses, np.where(had.any(axis=1), np.inf, 0.0)]
            had = np.isfinite(losses)
        sizes, times = self._sizes(levels), unit_times(self.files, levels, had)
        costs = np.where(had, sizes + times, np.inf)
        choices = path_of_choices(losses, costs)
        if self._too_large(choices[0]):
            costs = np.where(had, sizes + TINY * times, np.inf)
            choices = path_of_choices(losses, costs)
        self.told(0.8)
        most = self._within(choices)
        reference = self.files.loss(self._lowest(had[:, 0]) or self._path(choices, 0))
        share = self.options.mixed_loss
        allowed = max(share * reference, NEGLIGIBLE) if share else 0.0
        place = self._reaching(choices[: most + 1], allowed)
        choice = self._or_int8(choices[place], costs) if share else choices[place]
        chosen = self._levels_of(choice)
        path = self.files.made(chosen)
        return Found(
            path,
            chosen,
            {
                unit: {
                    level: float(loss)
                    for level, loss in zip(levels, row, strict=True)
                    if np.isfinite(loss)
                }
                for unit, row in zip(units, losses, strict=True)
            },
            self.files.loss(path),
            levels[0],
            reference,
            tuple(self.notes),
        )

    def _or_int8(self, choice: Choice, costs: npt.NDArray[np.float64]) -> Choice:
        """Returns int8 throughout where that is cheaper and as good, else the choice."""
        if self.as_good is None or INT8 not in self.levels:
            return choice
        plain = (self.levels.index(INT8),) * len(choice)
        units = np.arange(len(choice))
        if not costs[units, plain].sum() < costs[units, choice].sum():
            return choice
        try:
            fits = self._fits([plain], 0)
        except ConversionFailed:  # its units have int8 one by one, not together
            return choice
        if not fits:
            return choice
        cheaper, dearer = (self.files.made(self._levels_of(one)) for one in (plain, choice))
        figures = self.as_good(cheaper, dearer, self.files.source)
        if not figures:
            return choice
        raised = sum(level != plain[0] for level in choice)
        self.notes.append(
            f"{MIXED}: all layers are int8, which is as good as {raised} of them in more precision "
            f"and costs less: {figures}"
        )
        return plain

    def _alone(self, levels: Sequence[str]) -> Any:
        """Returns the loss of each unit at each level, the others in float32."""
        losses = np.zeros((len(self.files.units), len(levels)))
        failed = dict[str, str]()
        for row, unit in enumerate(self.files.units):
            for column, level in enumerate(levels):
                if unit.loops and level not in IN_LOOPS:
                    losses[row, column] = np.inf
                    continue
                try:
                    losses[row, column] = self.files.alone(unit, level)
                except ConversionFailed as error:
                    losses[row, column] = np.inf
                    failed.setdefault(f"{unit.name} was not tried in {level}", error.reason)
            self.told(0.7 * (row + 1) / len(self.files.units))
        self.notes += [f"{what}: {why}" for what, why in failed.items()]
        return losses

    def _sizes(self, levels: Sequence[str]) -> Any:
        """Returns the bytes of each unit's kernel at each level, as a share of all in float32."""
        counted = np.array([unit.weights for unit in self.files.units], float)
        bits = np.array([BITS[level] for level in levels]) / BITS[FLOAT32]
        return counted[:, None] / max(1.0, counted.sum()) * bits[None, :]

    def _lowest(self, had: npt.NDArray[np.bool_]) -> Path | None:
        """Returns the file of the least precise level; None: it cannot be made."""
        level = self.levels[0]
        try:
            return self.files.made(self.files.throughout(level, had))
        except ConversionFailed as error:
            self.notes.append(f"no file is {level} throughout: {error.reason}")
            return None

    def _levels_of(self, choice: Choice) -> dict[Unit, str]:
        return {unit: self.levels[at] for unit, at in zip(self.files.units, choice, strict=True)}

    def _path(self, choices: Sequence[Choice], place: int) -> Path:
        return self.files.made(self._levels_of(choices[place]))

    def _loss_at(self, choices: Sequence[Choice], place: int) -> float:
        return self.files.loss(self._path(choices, place))

    def _within(self, choices: Sequence[Choice]) -> int:
        """Returns the place of the dearest choice that is within the limits.

        Raises:
            RunFailed: The cheapest is not.
        """
        if self._fits(choices, len(choices) - 1):
            return len(choices) - 1
        if not self._fits(choices, 0):
            limits = " and ".join(self._limits())
            size = self._path(choices, 0).stat().st_size
            raise RunFailed(
                f"The int8-mixed file must be within {limits}. Received: {size:,} bytes where "
                "every layer is as cheap as can be. Allow more, or allow int4 (--mixed-levels)."
            )
        return _last(len(choices) - 1, lambda place: self._fits(choices, place))

    def _too_large(self, choice: Choice) -> bool:
        """Tells whether a choice's file is beyond the limit of size, if there is one."""
        size = self.options.mixed_size
        if size is None:
            return False
        whole = self.files.source.stat().st_size if size.relative else 1
        return self.files.made(self._levels_of(choice)).stat().st_size > size.amount * whole

    def _limits(self) -> list[str]:
        given = {"size": self.options.mixed_size, "latency": self.options.mixed_latency}
        return [f"a {name} of {limit}" for name, limit in given.items() if limit is not None]

    def _fits(self, choices: Sequence[Choice], place: int) -> bool:
        latency, whole = self.options.mixed_latency, self.files.source
        path = self._path(choices, place)
        if self._too_large(choices[place]):
            return False
        if latency is None:
            return True
        timed = measure_latency({FLOAT32: whole, "mixed": path}, TIMING)
        limit = latency.amount * (timed[FLOAT32].median_ms if latency.relative else 1)
        return timed["mixed"].median_ms <= limit

    def _reaching(self, choices: Sequence[Choice], loss: float) -> int:
        """Returns the place of the cheapest choice whose file moves the outputs no further."""
        last = len(choices) - 1
        if self._loss_at(choices, last) > loss:
            limits = self._limits()
            why = f"within {' and '.join(limits)}" if limits else "with these levels"
            self.notes.append(f"int8-mixed cannot lose as little as was asked for {why}")
            return last
        if self._loss_at(choices, 0) <= loss:
            return 0
        return 1 + _last(last, lambda place: self._loss_at(choices, place) > loss)


def path_of_choices(losses: Numbers, costs: Numbers) -> list[Choice]:
    """Returns choices of a level a unit, from the cheapest on, each with a smaller loss.

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
    now = [_cheapest(losses[unit], costs[unit]) for unit in range(units)]
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
    """Returns how much longer a run takes with a unit at each level, than at the fastest one.

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
    """Returns the last place at which something holds that holds at 0, not at `end`, by halving."""
    low, high = 0, end
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _cheapest(losses: Sequence[float] | Numbers, costs: Sequence[float] | Numbers) -> int:
    """Returns the level of the smallest cost, of equal ones that of the smallest loss."""
    return min(range(len(losses)), key=lambda level: (costs[level], losses[level]))


def _times(files: Files, wanted: Mapping[str, Mapping[Unit, str]]) -> dict[str, float]:
    """Returns the times of files by name, as shares of the float32 file's."""
    paths = {"": files.source}
    for name, levels in wanted.items():
        try:
            paths[name] = files.made(levels)
        except ConversionFailed:
            continue  # units have these levels one by one, or are known to have not
    timed = measure_latency(paths, TIMING)
    return {name: item.quiet_ms / timed[""].quiet_ms for name, item in timed.items() if name}
