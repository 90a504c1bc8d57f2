"""Times of a trained model's parts, measured once: what its sub-networks take follows from them.

A file of each of hundreds of sub-networks would have to be written and timed, three seconds each,
beside workers that keep the processor busy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.atomic_files import write_json
from compress.core.progress import OnProgress
from compress.measure.latency_table import LatencyTable
from compress.prune.channels.selection.measured_times import Timed
from compress.run.directory import LOG
from compress.run.records import Record, read_record
from search.plan import SearchOptions
from search.spaces import Around
from search.study.directory import SearchFolder

COST = "latency_ms"
"""What is estimated, as records name it."""


@dataclass(frozen=True)
class PartTimes(Record):
    """What was timed of a model, and of some of its sub-networks as whole files.

    Attributes:
        kept: Removable units kept in each group by the sub-networks.
        whole: Milliseconds of these.
        table: Of calls, as JSON.
    """

    kept: tuple[tuple[int, ...], ...]
    whole: tuple[float, ...]
    table: Any = field(metadata={"shape": dict[str, Any]})

    def flaw(self) -> str:
        """See `Record.flaw`."""
        if len(self.kept) != len(self.whole):
            return f"kept and whole must be of as many nets; received: {self.kept}, {self.whole}"
        return "" if min(self.whole) > 0 else f"whole must be above 0; received: {self.whole}"

    @classmethod
    def of(cls, found: Timed) -> PartTimes:
        """Returns the record of what was timed."""
        kept = tuple(tuple(int(count) for count in row) for row in found.kept)
        return cls(kept, tuple(float(ms) for ms in found.whole), found.table.to_json())

    @property
    def timed(self) -> Timed:
        """The same as the engine takes it."""
        table = LatencyTable.from_json(self.table)
        return Timed(table, np.array(self.kept, np.int64), np.array(self.whole))


def measure_parts(options: SearchOptions, folder: SearchFolder, on_progress: OnProgress) -> None:
    """Times the parts of the model that a search is around, where its latency is asked for.

    To be called while the machine is quiet: before workers are.

    Args:
        options: Space, objectives, limits.
        folder: Where the record goes; one that is there stays.
        on_progress: Told how far it is.
    """
    space = options.made_space
    if not takes_times(options) or folder.part_times.exists():
        return
    assert isinstance(space, Around)
    found = space.timed(on_progress)
    write_json(folder.part_times, PartTimes.of(found).to_json())
    LOG.info(
        "latencies of candidates are estimated from %d calls and %d whole sub-networks, timed on "
        "%s (%s)", len(found.table.calls), len(found.whole), found.table.runtime,
        found.table.device,
    )  # fmt: skip


def takes_times(options: SearchOptions) -> bool:
    """Tells whether latencies of candidates follow from times of a model's parts."""
    return isinstance(options.made_space, Around) and options.needs(COST)


def latency_of(
    options: SearchOptions, folder: SearchFolder
) -> Callable[[dict[str, Any]], float] | None:
    """Returns what estimates a candidate's milliseconds; None: its file is measured.

    Args:
        options: Of the run.
        folder: The run's.
    """
    if not takes_times(options) or not folder.part_times.exists():
        return None
    space = options.made_space
    assert isinstance(space, Around)
    return _read(space, folder.part_times)


@lru_cache(maxsize=2)
def _read(space: Around, path: Path) -> Callable[[dict[str, Any]], float]:
    return space.latency(read_record(path, PartTimes).timed)
