"""The table: measured times of calls on one runtime, and how it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from compress.core.atomic_files import write_json
from compress.core.errors import InputError
from compress.measure.latency_table.key import CallKey
from compress.run.records import Record, load_record

SHOWN = 3


@dataclass(frozen=True)
class CallTime(Record):
    """The time of one call.

    Attributes:
        key: Of which.
        ms: Milliseconds at batch 1, without what a run costs beside (`LatencyTable.overhead_ms`).
        error: Standard error of `ms`; 0 where it is an estimate.
        rounds: Of the measurement; 0 where it is an estimate.
        ops: MACs and elementwise operations of the call.
        weight_bytes: Of its weights, as float32.
        reason: Why `ms` is an estimate (by `ops`, at the rate of all that was measured); empty:
            it was measured.
        date: When it was measured, YYYY-MM-DD in UTC; empty in tables of older versions.
    """

    key: CallKey = field(metadata={"shape": dict[str, Any]})
    ms: float
    error: float
    rounds: int
    ops: int
    weight_bytes: int
    reason: str = ""
    date: str = ""

    def flaw(self) -> str:
        """See `Record.flaw`."""
        low = [name for name in ("ms", "error", "rounds", "ops") if getattr(self, name) < 0]
        return f"{low[0]} must be at least 0; received: {getattr(self, low[0])}" if low else ""

    @property
    def measured(self) -> bool:
        """Whether the time was measured, not estimated."""
        return not self.reason


@dataclass(frozen=True)
class LatencyTable(Record):
    """Measured times of calls on one runtime and machine.

    Attributes:
        runtime: Name and version.
        format: Of the files: "float32", ...
        threads: CPU threads.
        device: Name of the processor.
        overhead_ms: What a run of a file costs beside its calls: that of a file of one operation
            on one number. A model's time is that once, and the sum over its calls.
        overhead_error: Standard error of it.
        calls: In the order in which they were measured, each key once.
        warnings: What may have disturbed the measurement.
    """

    runtime: str
    format: str
    threads: int
    device: str
    overhead_ms: float
    overhead_error: float
    calls: tuple[CallTime, ...] = field(metadata={"shape": tuple[dict[str, Any], ...]})
    warnings: tuple[str, ...] = ()

    @cached_property
    def _by_key(self) -> dict[CallKey, CallTime]:
        return {call.key: call for call in self.calls}

    def __contains__(self, key: CallKey) -> bool:
        return key in self._by_key

    def __getitem__(self, key: CallKey) -> CallTime:
        """Returns the time of a call.

        Raises:
            InputError: The table does not hold it.
        """
        if key not in self._by_key:
            alike = [str(call.key) for call in self.calls if call.key.kinds == key.kinds]
            held = ", ".join(alike[:SHOWN]) or "none of this kind"
            more = f" and {len(alike) - SHOWN} more" if len(alike) > SHOWN else ""
            raise InputError(
                f"The latency table must hold the call '{key}' with this config. Received: "
                f"{held}{more}. Measure it with measure_calls()."
            )
        return self._by_key[key]

    def missing(self, keys: Iterable[CallKey]) -> list[CallKey]:
        """Returns those of some keys that the table lacks, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self._by_key]

    def only(self, keys: Iterable[CallKey]) -> LatencyTable:
        """Returns the table of some of its calls.

        Raises:
            InputError: It lacks one.
        """
        return replace(self, calls=tuple(self[key] for key in dict.fromkeys(keys)))

    @property
    def estimated(self) -> tuple[CallTime, ...]:
        """The calls whose times are estimates."""
        return tuple(call for call in self.calls if not call.measured)

    def joined(self, other: LatencyTable) -> LatencyTable:
        """Returns both tables in one; of calls that both hold the other's times.

        Raises:
            InputError: They were not measured alike.
        """
        for name in ("runtime", "format", "threads", "device"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise InputError(
                    f"Latency tables must have the same {name} to be joined. "
                    f"Received: {ours} and {theirs}."
                )
        calls = {**self._by_key, **other._by_key}
        warnings = tuple(dict.fromkeys((*self.warnings, *other.warnings)))
        return replace(other, calls=tuple(calls.values()), warnings=warnings)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str | Path = "") -> LatencyTable:
        """See `Record.from_json`."""
        record = super().from_json(content, where)
        calls = []
        for row in record.calls:
            time = CallTime.from_json(cast(Any, row))
            calls.append(replace(time, key=CallKey.from_json(cast(Any, time.key))))
        return replace(record, calls=tuple(calls))

    def save(self, path: str | Path) -> None:
        """Writes the table as JSON, atomically."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Reads what `save` wrote.

        Raises:
            InputError: No such file, or it holds something else.
        """
        return load_record(path, cls, "A latency table must be a file written by save()")
