"""The table of measured calls: keys of calls, file format and cache.

Tables are cached between commands, in one file per machine, runtime, format and number of threads.
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
from compress.core.device import read_cpu_name
from compress.core.errors import InputError
from compress.measure.latency import BUSY
from compress.measure.rules import Shape
from compress.measure.runtimes import RUNTIMES
from compress.run.directory import LOG
from compress.run.records import Record, find_too_low, load_record

MAX_LISTED = 3
BUSY_ERROR = 0.03
"""Relative error up to which a table is cached that was measured beside other processes."""
_NAMES = """
    name trainable dtype built build_config registered_name module batch_shape batch_input_shape
    momentum epsilon seed rate noise_shape stddev synchronized renorm ragged sparse optional
    supports_masking zero_output_for_mask
"""
TIMELESS = frozenset(_NAMES.split())
"""Config entries of layers that do not affect the latency."""


@dataclass(frozen=True)
class LatencyTable(Record):
    """Measured times of calls with one runtime on one machine.

    Attributes:
        runtime: Name and version of the runtime.
        format: Format of the files: "float32", ...
        threads: Number of CPU threads.
        device: Name of the processor.
        overhead_ms: Overhead of one run in ms, measured with a file of one operation on one number.
            The time of a model is this once plus the sum over its calls.
        overhead_error: Standard error of `overhead_ms`.
        calls: Calls in the order of measurement, with unique keys.
        warnings: Conditions that may have disturbed the measurement.
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
            InputError: The call is not in the table.
        """
        if key not in self._by_key:
            similar = [str(call.key) for call in self.calls if call.key.kinds == key.kinds]
            listed = ", ".join(similar[:MAX_LISTED]) or "none of this kind"
            more = f" and {len(similar) - MAX_LISTED} more" if len(similar) > MAX_LISTED else ""
            raise InputError(
                f"The latency table must hold the call '{key}' with this config. Received: "
                f"{listed}{more}. Measure it with measure_calls()."
            )
        return self._by_key[key]

    @property
    def relative_error(self) -> float:
        """Sum of the standard errors of the measured calls over the sum of their times."""
        times = sum(call.ms for call in self.calls if call.is_measured)
        return sum(call.error for call in self.calls) / times if times else 0.0

    def find_missing(self, keys: Iterable[CallKey]) -> list[CallKey]:
        """Return the keys that are not in the table, without duplicates."""
        return [key for key in dict.fromkeys(keys) if key not in self._by_key]

    def merge(self, other: LatencyTable) -> LatencyTable:
        """Return the union of both tables; times of the other table take precedence.

        Raises:
            InputError: The tables differ in runtime, format, threads or device.
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
            InputError: The file does not exist or is not a latency table.
        """
        return load_record(path, cls, "A latency table must be a file written by save()")


@dataclass(frozen=True)
class CallTime(Record):
    """The time of one call.

    Attributes:
        key: Key of the call.
        ms: Milliseconds at batch 1, without the overhead of a run (`LatencyTable.overhead_ms`).
        error: Standard error of `ms`; 0 for an estimate.
        rounds: Number of measured rounds; 0 for an estimate.
        ops: MACs and elementwise operations of the call.
        weight_bytes: Bytes of its weights as float32.
        reason: Why `ms` is an estimate (from `ops`, at the rate of all measured calls); empty if it
            was measured.
        date: Date of the measurement, YYYY-MM-DD in UTC; empty in tables of older versions.
    """

    key: CallKey
    ms: float
    error: float
    rounds: int
    ops: int
    weight_bytes: int
    reason: str = ""
    date: str = ""

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        return find_too_low(self, 0, "ms", "error", "rounds", "ops")

    @property
    def is_measured(self) -> bool:
        """Whether the time was measured, not estimated."""
        return not self.reason


@dataclass(frozen=True)
class CallKey(Record):
    """Key of a call, or of several fused calls; calls with equal keys take equal time.

    Names, weights, initializers and training settings are not part of the key because they do not
    affect the latency. All other config entries are, so calls whose times may differ have different
    keys.

    Attributes:
        kinds: Class names, in the order of the calls.
        inputs: Shapes of the inputs, with the batch axis (1) first.
        outputs: Shapes of the outputs, with the batch axis (1) first.
        config: Configs and constant arguments of the calls, as JSON with sorted keys.
    """

    kinds: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    config: str

    def __str__(self) -> str:
        """Return "Conv2D+ReLU 28x28x16 -> 28x28x32"."""
        input_text, output_text = (
            ", ".join("x".join(map(str, shape[1:])) or "1" for shape in shapes)
            for shapes in (self.inputs, self.outputs)
        )
        return f"{'+'.join(self.kinds)} {input_text} -> {output_text}"


def build_call_key(
    calls: Sequence[tuple[str, Mapping[str, Any]]],
    inputs: Sequence[Shape],
    outputs: Sequence[Shape],
) -> CallKey:
    """Return the key of consecutive calls.

    Args:
        calls: Class name and config of each call; the config may also hold arguments of the call.
        inputs: Shapes of the inputs from other calls, with the batch axis of size 1 first.
        outputs: Shapes of the outputs, with the batch axis of size 1 first.
    """
    return CallKey(
        tuple(kind for kind, _ in calls),
        tuple(tuple(map(int, shape)) for shape in inputs),
        tuple(tuple(map(int, shape)) for shape in outputs),
        json.dumps([_normalize_config(config) for _, config in calls], sort_keys=True),
    )


def find_cache_folder() -> Path:
    """Return the cache folder: `PARETUNE_CACHE`, or paretune/ in the user's cache folder."""
    if override := os.environ.get("PARETUNE_CACHE"):
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paretune"


def load_cached_table(runtime: str, format: str, threads: int) -> LatencyTable | None:
    """Return the cached table of this machine; None if there is none.

    A file that cannot be read is ignored with a warning and not deleted.

    Args:
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        format: Format of the files.
        threads: Number of CPU threads.
    """
    path = _build_cache_path(RUNTIMES[runtime].describe(), format, threads, read_cpu_name())
    if not path.exists():
        return None
    try:
        return LatencyTable.load(path)
    except InputError as error:
        LOG.warning("a table of times that was kept is not used: %s", error)
        return None


def cache_table(table: LatencyTable) -> Path | None:
    """Merge a table into the cached one and return the cache file; None if it is not cached.

    A table that was measured while other processes were busy is cached, with its warning, if its
    times are precise all the same. The log says so, and why a table is not cached.

    Args:
        table: The new table.
    """
    if any(warning.startswith(BUSY) for warning in table.warnings):
        reasons, error = "; ".join(table.warnings), table.relative_error
        if error > BUSY_ERROR:
            LOG.info(
                "note: the table of times, uncertain by %.0f %%, is not kept for later: %s",
                100 * error, reasons,
            )  # fmt: skip
            return None
        LOG.info("note: the table of times is kept for later although %s", reasons)
    path = _build_cache_path(table.runtime, table.format, table.threads, table.device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            try:
                table = LatencyTable.load(path).merge(table)
            except InputError as error:
                LOG.warning("a table of times that was kept is replaced: %s", error)
        table.save(path)
    except OSError as error:
        LOG.warning("the table of times is not kept for later: %s", error)
        return None
    return path


def _normalize_config(value: Any) -> Any:
    """Return a config as values that JSON can hold, without entries that do not affect latency."""
    if isinstance(value, Mapping):
        ends = ("_initializer", "_regularizer", "_constraint")
        return {
            str(name): _normalize_config(item)
            for name, item in value.items()
            if str(name) not in TIMELESS and not str(name).endswith(ends)
        }
    if isinstance(value, (list, tuple)):
        return [_normalize_config(item) for item in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, slice):
        return [
            "slice",
            _normalize_config(value.start),
            _normalize_config(value.stop),
            _normalize_config(value.step),
        ]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return [*map(str, value.shape), str(value.dtype)]
    # the repr of an object may hold its address, which differs between equal calls
    return getattr(value, "__qualname__", type(value).__qualname__)


def _build_cache_path(runtime: str, format: str, threads: int, device: str) -> Path:
    # "quiet blocks" in the key: tables of older versions hold other quantiles
    text = f"{runtime}|{format}|{threads}|{device}|quiet blocks"
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{runtime} {format} {threads} threads").strip("-").lower()
    return (
        find_cache_folder()
        / "latency"
        / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    )
