"""Measures what the times of all choices follow from: single calls, and some whole nets."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.errors import RunFailed
from compress.core.progress import OnProgress, silent
from compress.measure.latency import Entry, time_entries
from compress.measure.latency_table import LatencyTable, measure_calls
from compress.measure.latency_table.measuring import ERROR, Convert
from compress.measure.latency_table.prediction import MOST
from compress.measure.latency_table.record import keep_table, kept_table
from compress.prune.channels.selection.solver import Allowed, Counts
from compress.prune.channels.selection.timed_calls import Branch, TimedCalls
from compress.prune.channels.selection.times import TimeModel
from compress.prune.channels.surgery import sliced_model

if TYPE_CHECKING:
    import keras

    from compress.prune.channels.coupling.blocks import Block
    from compress.prune.channels.coupling.groups import Coupling

NETS = 8
"""Whole nets beside the calls: what they tell has three unknowns."""
NET_ERROR = 0.01
SECONDS_A_NET = 2.0
HERE_ERROR, HERE_SECONDS = 0.05, 60.0
"""Timing of calls ends at this relative error, or after so long, where files put times right."""
_CALLS = 0.7
"""Share of the work that is done when all calls are measured."""


class Timed(NamedTuple):
    """What was timed of a model: all that the times of its choices follow from.

    Attributes:
        table: Single calls.
        kept: Removable units kept in each group by some nets, (nets, groups); all by the last.
        whole: Their times as whole files in ms, (nets,).
    """

    table: LatencyTable
    kept: Counts
    whole: npt.NDArray[np.float64]

    def times(self, calls: TimedCalls) -> TimeModel:
        """Returns how a model's time follows from its widths and blocks.

        Args:
            calls: Of the model.

        Raises:
            InputError: One of them was not timed.
        """
        return calls.times(self.table).calibrated(self.kept, self.whole)


def measured_times(
    coupling: Coupling,
    allowed: Allowed,
    convert: Convert,
    blocks: Sequence[Branch] = (),
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    known: LatencyTable | None = None,
    error: float = ERROR,
    budget: float | None = None,
    most: int = MOST,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[TimeModel, LatencyTable]:
    """Measures how a model's time follows from its widths and blocks.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        convert: Writes files of models: `compress.exporting.side_by_side.litert_files`, handed
            in because exporting stands beside pruning.
        blocks: Residual branches that may leave.
        runtime, format, threads, error, budget, seed: See `measure_calls`; whole nets take as
            much again.
        known: A table measured before, on the same runtime and machine: what it holds is not
            measured again.
        most: See `TimedCalls`.
        on_progress: Told what is done now, and the share of all that is done.

    Returns:
        The times, and the table that they are made of.

    Raises:
        InputError: An input size is unknown, or `known` was measured otherwise.
        RunFailed: No call could be measured, or no whole net could be converted.
        MissingDependency: The runtime is not installed.
    """
    calls = TimedCalls(coupling, allowed, blocks, most=most)
    found = timed(
        calls, coupling, allowed, convert, runtime=runtime, format=format, threads=threads,
        known=known, error=error, budget=budget, seed=seed, on_progress=on_progress,
    )  # fmt: skip
    return found.times(calls), found.table


def timed(
    calls: TimedCalls,
    coupling: Coupling,
    allowed: Allowed,
    convert: Convert,
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    known: LatencyTable | None = None,
    error: float = ERROR,
    budget: float | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Timed:
    """Times calls that are not known yet, and some whole nets; see `measured_times`.

    Args:
        calls: Of the model.
        coupling, allowed, convert, runtime, format, threads, known, error, budget, seed,
            on_progress: See there.

    Raises:
        InputError, RunFailed, MissingDependency: Likewise.
    """
    told = on_progress or silent
    models = calls.models()
    table = known
    if missing := models if known is None else {key: models[key] for key in known.missing(models)}:
        found = measure_calls(
            missing, convert, runtime=runtime, format=format, threads=threads, error=error,
            budget=budget, seed=seed, on_progress=lambda text, share: told(text, _CALLS * share),
        )  # fmt: skip
        table = found if known is None else known.joined(found)
    assert table is not None
    kept = some_choices(allowed, NETS, seed)
    told(f"timing {len(kept)} whole nets", _CALLS)
    whole = time_nets(
        coupling, kept, convert, runtime=runtime, format=format, threads=threads, budget=budget,
        seed=seed,
    )  # fmt: skip
    told("measured", 1.0)
    return Timed(table, kept, whole)


def timed_here(
    calls: TimedCalls,
    coupling: Coupling,
    allowed: Allowed,
    convert: Convert,
    *,
    runtime: str,
    format: str,
    threads: int,
    seed: int,
    on_progress: OnProgress,
) -> Timed:
    """Times a model on this machine as its own commands do: calls that any timed are read.

    Errors of a call are larger than `timed` leaves them by itself, for files put estimates right.

    Args:
        calls, coupling, allowed, convert, runtime, format, threads, seed, on_progress: See `timed`.

    Raises:
        InputError, RunFailed, MissingDependency: Likewise.
    """
    known = kept_table(runtime, format, threads)
    found = timed(
        calls, coupling, allowed, convert, runtime=runtime, format=format, threads=threads,
        known=known, error=HERE_ERROR, budget=HERE_SECONDS, seed=seed, on_progress=on_progress,
    )  # fmt: skip
    if found.table is not known:
        keep_table(found.table)
    return found


def some_choices(allowed: Allowed, count: int, seed: int) -> Counts:
    """Returns kept units of some choices: everything, the least, and random ones of all sizes.

    Returns:
        (count, groups).
    """
    rng = np.random.default_rng(seed)
    shares = np.linspace(0.0, 1.0, count)[:, None]
    # around a common share, so that small and large nets are among them
    around = np.clip(shares + rng.uniform(-0.3, 0.3, (count, len(allowed.total))), 0.0, 1.0)
    around[0], around[-1] = 0.0, 1.0
    totals = allowed.nearest(allowed.lowest + around * (allowed.total - allowed.lowest))
    return np.asarray(totals - allowed.fixed)


def thinner_nets(
    coupling: Coupling, kept: Counts, dropped: Sequence[tuple[Block, ...]] = ()
) -> list[keras.Model]:
    """Returns models of some widths, whichever units they keep.

    Args:
        coupling: Of the original.
        kept: Removable units kept in each group, (nets, groups); the first ones of each.
        dropped: The blocks that leave each; default: none of any.
    """
    nets = []
    for row, blocks in zip(kept, dropped or [()] * len(kept), strict=True):
        mask = np.ones(coupling.units, bool)
        for group, count in zip(coupling.groups, row, strict=True):
            mask[group.units[count:]] = False
        nets.append(sliced_model(coupling, mask, blocks))
    return nets


def time_nets(
    coupling: Coupling,
    kept: Counts,
    convert: Convert,
    *,
    runtime: str = "litert",
    format: str = "float32",
    threads: int = 1,
    budget: float | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Returns the quiet times (`Latency.quiet_ms`) of whole nets in ms, (nets,).

    They are timed against each other.

    Args:
        coupling: Of the original.
        kept: Removable units kept in each group, (nets, groups); the first ones of each.
        convert, runtime, format, threads, seed: See `measured_times`.
        budget: Seconds of timing; default: two a net.

    Raises:
        RunFailed: One could not be converted.
    """
    nets = thinner_nets(coupling, kept)
    with tempfile.TemporaryDirectory() as folder:
        files = convert(nets, Path(folder), format)
        for file in files:
            if isinstance(file, str):
                name = coupling.program.model.name
                raise RunFailed(f"Model '{name}' must become a file to be timed: {file}")
        entries = {str(place): Entry(Path(file), runtime, threads)
                   for place, file in enumerate(files)}  # fmt: skip
        found = time_entries(
            entries, precision=NET_ERROR, seed=seed,
            budget=SECONDS_A_NET * len(nets) if budget is None else budget,
            baselines={name: name for name in entries},
        )  # fmt: skip
    return np.array([found[name].quiet_ms for name in entries])
