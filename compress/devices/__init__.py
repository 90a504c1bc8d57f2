"""Devices that are not at hand: files to time there, and goals by what was timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.atomic_files import write_json
from compress.core.errors import InputError, unknown_name
from compress.measure.latency_table import LatencyTable
from compress.prune.channels.selection.measured_times import TimedCalls
from compress.run.records import Record, load_record, too_low

if TYPE_CHECKING:
    from compress.prune.channels.coupling.blocks import Block
    from compress.prune.channels.coupling.groups import Coupling
    from compress.prune.channels.selection.allowed import Allowed
    from compress.prune.channels.selection.times import TimeModel


@dataclass(frozen=True)
class DeviceTimes(Record):
    """Times of a model's calls on a device, and of some of its nets as whole files.

    Attributes:
        model: Name of the model.
        device: As the user calls it.
        tool: What measured, and its settings.
        threads: CPU threads.
        date: Of the import, YYYY-MM-DD in UTC.
        round_to: The step of kept channels that the calls were made for; see `ChannelOptions`.
        min_kept: Likewise, the least share of kept channels.
        input_shape: Sizes of one example that were given; None: the model's own.
        kept: Removable units kept in each group by the nets that were timed whole; those of the
            last are all.
        nets: For each format milliseconds of these nets.
        tables: For each format the table of calls, as JSON.
    """

    model: str
    device: str
    tool: str
    threads: int
    date: str
    round_to: int
    min_kept: float
    kept: tuple[tuple[int, ...], ...]
    nets: dict[str, tuple[float, ...]]
    tables: dict[str, Any] = field(metadata={"shape": dict[str, dict[str, Any]]})
    input_shape: Any = None

    def flaw(self) -> str:
        """See `Record.flaw`."""
        if set(self.nets) != set(self.tables) or not self.nets:
            return (
                "nets and tables must be of the same formats, at least one; received: "
                f"{', '.join(self.nets) or 'none'} and {', '.join(self.tables) or 'none'}"
            )
        return too_low(self, 1, "threads")

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of the files that were timed."""
        return tuple(self.nets)

    def own_ms(self, format: str) -> float:
        """Returns the time of the model's own file in ms, measured on the device.

        Raises:
            InputError: No file of this format was timed.
        """
        self._check(format)
        return self.nets[format][-1]

    def times(
        self, coupling: Coupling, allowed: Allowed, blocks: Sequence[Block], format: str
    ) -> TimeModel:
        """Returns how the model's time on the device follows from its widths and blocks.

        Args:
            coupling: Of the model.
            allowed: Which totals the groups may have.
            blocks: Residual branches that may leave.
            format: Of the files.

        Raises:
            InputError: No file of this format was timed, or calls of this model were not.
        """
        self._check(format)
        calls, table = TimedCalls(coupling, allowed, blocks), self._tables[format]
        missing = table.missing(calls.models())
        groups = {len(row) for row in self.kept}
        if missing or groups != {len(coupling.groups)}:
            lacks = f"{len(missing)} calls of this one, {missing[0]} among them" if missing else (
                f"one of {groups.pop()} groups of channels, where this one has "
                f"{len(coupling.groups)}"
            )  # fmt: skip
            raise InputError(
                f"A table of times must be of the model that is shrunk. Received: that of "
                f"'{self.model}' ({self.device}), which lacks {lacks}. Export the calls of this "
                "model with the same round_to, min_kept and input_shape, and time them: "
                "paretune latency-table export."
            )
        return calls.times(table).calibrated(np.array(self.kept), np.array(self.nets[format]))

    def _check(self, format: str) -> None:
        if format not in self.nets:
            raise unknown_name("format of the device's times", format, self.formats)

    @cached_property
    def _tables(self) -> dict[str, LatencyTable]:
        return {name: LatencyTable.from_json(table) for name, table in self.tables.items()}

    def save(self, path: str | Path) -> None:
        """Writes the times as JSON, atomically."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> DeviceTimes:
        """Reads what `save` wrote.

        Raises:
            InputError: No such file, or it holds something else.
        """
        rule = "A device's table must be a file written by paretune latency-table import"
        return load_record(path, cls, rule)
