"""The table of measured calls: what a call's time depends on, how it is stored and kept.

Between commands tables are kept in one file for each machine, runtime, format and number of
threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.atomic_files import write_json
from compress.core.device import cpu_name
from compress.core.errors import InputError
from compress.measure.latency import BUSY
from compress.measure.rules import Shape
from compress.measure.runtimes import RUNTIMES
from compress.run.directory import LOG
from compress.run.records import Record, load_record, too_low

SHOWN = 3
_NAMES = """
    name trainable dtype built build_config registered_name module batch_shape batch_input_shape
    momentum epsilon seed rate noise_shape stddev synchronized renorm ragged sparse optional
    supports_masking zero_output_for_mask
"""
TIMELESS = frozenset(_NAMES.split())
"""Entries of a layer's config that tell nothing of the time of its inference."""


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
    calls: tuple[CallTime, ...]
    warnings: tuple[str, ...] = ()

    @cached_property
    def _by_key(self) -> dict[CallKey, CallTime]:
        return {call.key: call for call in self.calls}

    def __contains__(self, key: CallKey) -> bool:
        return key in self._by_key

    def __getitem__(self, key: CallKey) -> CallTime:
        """Return the time of a call.

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
        """Return those of some keys that the table lacks, each once."""
        return [key for key in dict.fromkeys(keys) if key not in self._by_key]

    def only(self, keys: Iterable[CallKey]) -> LatencyTable:
        """Return the table of some of its calls.

        Raises:
            InputError: It lacks one.
        """
        return replace(self, calls=tuple(self[key] for key in dict.fromkeys(keys)))

    @property
    def estimated(self) -> tuple[CallTime, ...]:
        """The calls whose times are estimates."""
        return tuple(call for call in self.calls if not call.measured)

    def joined(self, other: LatencyTable) -> LatencyTable:
        """Return both tables in one; of calls that both hold the other's times.

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

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, atomically."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table that `save` wrote.

        Raises:
            InputError: No such file, or it holds something else.
        """
        return load_record(path, cls, "A latency table must be a file written by save()")


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

    key: CallKey
    ms: float
    error: float
    rounds: int
    ops: int
    weight_bytes: int
    reason: str = ""
    date: str = ""

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return too_low(self, 0, "ms", "error", "rounds", "ops")

    @property
    def measured(self) -> bool:
        """Whether the time was measured, not estimated."""
        return not self.reason


@dataclass(frozen=True)
class CallKey(Record):
    """A call, or several that a runtime runs as one; equal keys take equal time.

    What is left out of it does not count for time: names, weights, how they were initialized
    and held in training. Whatever else a config holds is part of the key, so that calls whose
    times may differ have different keys.

    Attributes:
        kinds: Class names, in the order of the calls.
        inputs: Shapes of the inputs, the batch axis (1) first.
        outputs: Shapes of the outputs likewise.
        config: Their configs and fixed arguments, as JSON with sorted keys.
    """

    kinds: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    config: str

    def __str__(self) -> str:
        """Return "Conv2D+ReLU 28x28x16 -> 28x28x32"."""
        given, made = (
            ", ".join("x".join(map(str, shape[1:])) or "1" for shape in shapes)
            for shapes in (self.inputs, self.outputs)
        )
        return f"{'+'.join(self.kinds)} {given} -> {made}"


def key_of(
    calls: Sequence[tuple[str, Mapping[str, Any]]],
    inputs: Sequence[Shape],
    outputs: Sequence[Shape],
) -> CallKey:
    """Return the key of calls in a row.

    Args:
        calls: Class name and config of each; a config may hold anything, arguments of the call
            among it.
        inputs: Shapes of what comes from outside, the batch axis of size 1 first.
        outputs: Shapes of what they make.
    """
    return CallKey(
        tuple(kind for kind, _ in calls),
        tuple(tuple(map(int, shape)) for shape in inputs),
        tuple(tuple(map(int, shape)) for shape in outputs),
        json.dumps([_plain(config) for _, config in calls], sort_keys=True),
    )


def cache_folder() -> Path:
    """Return where tables are kept: `PARETUNE_CACHE`, or paretune/ in the user's cache folder."""
    if own := os.environ.get("PARETUNE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paretune"


def kept_table(runtime: str, format: str, threads: int) -> LatencyTable | None:
    """Return the table kept on this machine; None: there is none.

    A file that cannot be read is left alone, and a warning tells of it.

    Args:
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        format: Of the files.
        threads: CPU threads.
    """
    path = _path(RUNTIMES[runtime].describe(), format, threads, cpu_name())
    if not path.exists():
        return None
    try:
        return LatencyTable.load(path)
    except InputError as error:
        LOG.warning("a table of times that was kept is not used: %s", error)
        return None


def keep_table(table: LatencyTable) -> Path | None:
    """Add a table to the kept one and return its file; None where it cannot be kept.

    That is where it was measured while other processes worked, or cannot be written; the log
    says so.
    """
    if any(warning.startswith(BUSY) for warning in table.warnings):
        LOG.info("note: the table of times is not kept for later: %s", "; ".join(table.warnings))
        return None
    path = _path(table.runtime, table.format, table.threads, table.device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            try:
                table = LatencyTable.load(path).joined(table)
            except InputError as error:
                LOG.warning("a table of times that was kept is replaced: %s", error)
        table.save(path)
    except OSError as error:
        LOG.warning("the table of times is not kept for later: %s", error)
        return None
    return path


def _plain(value: Any) -> Any:
    """Return a value as JSON, without entries that have no effect on time."""
    if isinstance(value, Mapping):
        ends = ("_initializer", "_regularizer", "_constraint")
        return {
            str(name): _plain(item)
            for name, item in value.items()
            if str(name) not in TIMELESS and not str(name).endswith(ends)
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, slice):
        return ["slice", _plain(value.start), _plain(value.stop), _plain(value.step)]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return [*map(str, value.shape), str(value.dtype)]
    # functions and objects: an address would make equal calls differ
    return getattr(value, "__qualname__", type(value).__qualname__)


def _path(runtime: str, format: str, threads: int, device: str) -> Path:
    # times of other than quiet blocks are not mixed with these
    text = f"{runtime}|{format}|{threads}|{device}|quiet blocks"
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{runtime} {format} {threads} threads").strip("-").lower()
    return (
        cache_folder() / "latency" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    )
