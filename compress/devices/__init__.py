"""Latencies for targets: measured on other devices, and on this machine.

`import_latency_table` reads the times of files that were run on a device; `channel_times` measures
the latency on this machine as a function of channel counts and blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError, RunFailed, one_line, unknown_name
from compress.devices.exporting import EMPTY, RESULTS, CallFile, Manifest, read_manifest
from compress.exporting.side_by_side import litert_files
from compress.measure.latency_record import QUIET, quantile_and_error
from compress.measure.latency_table import CallKey, CallTime, LatencyTable
from compress.measure.latency_table.measuring import estimated
from compress.model.io import as_model
from compress.plan import ChannelOptions
from compress.plan.fields import require
from compress.plan.keywords import PRUNE_CHANNELS
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.blocks import Block, blocks_of
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.selection.allowed import Allowed, allowed_for, ladder
from compress.prune.channels.selection.measured_times import TimedCalls, measured_times
from compress.prune.channels.selection.times import TimeModel
from compress.run.records import Record, load_record, too_low

if TYPE_CHECKING:
    import keras

    from compress.plan.settings import PruneChannelsSettings


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
        """Return the time of the model's own file in ms, measured on the device.

        Raises:
            InputError: No file of this format was timed.
        """
        self._check(format)
        return self.nets[format][-1]

    def times(
        self, coupling: Coupling, allowed: Allowed, blocks: Sequence[Block], format: str
    ) -> TimeModel:
        """Return the model's latency on the device as a function of its channel counts and blocks.

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
        """Write the times as JSON, atomically."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> DeviceTimes:
        """Read a file of `save`.

        Raises:
            InputError: No such file, or it holds something else.
        """
        return load_record(
            path, cls, "A device's table must be a file written by paretune latency-table import"
        )


_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_AVERAGE = re.compile(rf"Inference \(avg\): {_NUMBER}")
_MEDIAN = re.compile(rf"^.*\bcount=\d+ .*\bmedian={_NUMBER}", re.M)
_THREADS = re.compile(r"(?:[Nn]um threads|#threads used for CPU inference): \[(\d+)\]")
_BETWEEN = "~"
"""Stands for "/" in the names of logs."""


@check_arguments()
def import_latency_table(
    folder: str | Path, device: str, out: str | Path | None = None
) -> DeviceTimes:
    """Read the times that were measured on a device.

    Args:
        folder: That `export_latency_table` wrote, with results/ of the device in it.
        device: What to call it: "Pixel 8, one big core".
        out: A file for the table, ending in .json; `shrink(latency_table=...)` takes it.

    Returns:
        The times of calls (without what a run costs beside them) and of whole nets. A call that
        the device could not run has an estimate, by its operations, and the reason.

    Raises:
        InputError: There are no results, or not of all files, or of several numbers of threads.
        RunFailed: No call could be timed.

    Example:
        >>> import subprocess, sys
        >>> made = export_latency_table(model, folder / "board", formats=["float32"], round_to=4)
        >>> _ = subprocess.run([sys.executable, made / "measure.py"], check=True)
        >>> times = import_latency_table(made, "this very machine", folder / "board.json")
        >>> times.formats, times.own_ms("float32") > 0
        (('float32',), True)
    """
    place = Path(folder)
    require(bool(device.strip()), "device", "be the name of the device", repr(device))
    if out is not None:
        require(Path(out).suffix == ".json", "out", "be a file ending in .json", f"'{out}'")
    manifest, results = read_manifest(place), read_results(place)
    missing = [
        file for file in manifest.files()
        if file not in results.milliseconds and file not in results.refused
    ]  # fmt: skip
    if missing:
        raise InputError(
            f"Every file must have been timed. Received: no result for {len(missing)} of "
            f"{len(manifest.files())}, {missing[0]} among them. Run the script to its end: it goes "
            "on where it ended."
        )
    if len(results.threads) > 1:
        raise InputError(
            "All files must be timed with one number of threads. Received: "
            f"{', '.join(map(str, sorted(results.threads)))}. Empty results/ and run the script "
            "again."
        )
    (threads,) = results.threads or {manifest.threads}
    now = f"{datetime.now(UTC):%Y-%m-%d}"
    found = DeviceTimes(
        manifest.model, device, results.tool, threads, now, manifest.round_to, manifest.min_kept,
        manifest.kept,
        {name: tuple(results.time(file)[0] for file in nets)
         for name, nets in manifest.nets.items()},
        {name: _table(manifest, name, results, device, threads, now).to_json()
         for name in manifest.nets},
        manifest.input_shape,
    )  # fmt: skip
    if out is not None:
        found.save(out)
    return found


def _table(
    manifest: Manifest, format: str, results: Results, device: str, threads: int, date: str
) -> LatencyTable:
    base, spread = results.time(f"{format}/{EMPTY}")
    calls = [
        _time(call, results, base, spread, date) for call in manifest.calls_of(format)
    ]  # fmt: skip
    return LatencyTable(results.tool, format, threads, device, base, spread, estimated(calls))


def _time(call: CallFile, results: Results, base: float, spread: float, date: str) -> CallTime:
    key = CallKey.from_json(call.key)
    reason = call.reason
    if call.file and call.file not in results.milliseconds:
        reason = f"the device does not run it alone: {results.refused[call.file]}"
    if reason:
        return CallTime(key, 0.0, 0.0, 0, call.ops, call.weight_bytes, reason)
    found, own = results.time(call.file)
    # a call of some nanoseconds may come out below the empty file
    ms, error = max(0.0, found - base), (own**2 + spread**2) ** 0.5
    return CallTime(
        key, ms, error, len(results.milliseconds[call.file]), call.ops, call.weight_bytes, date=date
    )


@dataclass
class Results:
    """Times of files.

    Attributes:
        tool: What measured.
        threads: CPU threads that it told of; empty: it did not tell.
        milliseconds: Of each file, one number a round.
        refused: Of files that could not be run the reason.
    """

    tool: str = ""
    threads: set[int] = field(default_factory=set)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def time(self, file: str) -> tuple[float, float]:
        """Return a file's time in ms, that of its quiet rounds, and the standard error.

        Raises:
            RunFailed: The device could not run it.
        """
        if file not in self.milliseconds:
            raise RunFailed(f"The device must be able to run {file}: {self.refused[file]}")
        return quantile_and_error(self.milliseconds[file], QUIET)


def read_results(folder: Path) -> Results:
    """Read results/ of a folder that `export_latency_table` wrote.

    Raises:
        InputError: There are none, of both tools, or a file holds something else.
    """
    place = folder / RESULTS
    logs, own = sorted(place.glob("*.tflite.*.txt")), place / "python.json"
    if bool(logs) == own.exists():
        found = "logs of benchmark_model and python.json" if logs else "none"
        raise InputError(
            f"'{place}' must hold what measure.sh or measure.py wrote, one of them. Received: "
            f"{found}. Run one on the device, and copy results/ back."
        )
    return _of_logs(logs) if logs else _of_json(own)


def _of_logs(logs: list[Path]) -> Results:
    found = Results("LiteRT's benchmark_model")
    for path in logs:
        name = path.name.rpartition(".tflite")[0].replace(_BETWEEN, "/") + ".tflite"
        text = path.read_text(encoding="utf-8", errors="replace")
        average, medians = _AVERAGE.findall(text), _MEDIAN.findall(text)
        if not average:
            lines = [line for line in text.splitlines() if line.strip()]
            found.refused[name] = one_line(lines[-1].strip() if lines else "it said nothing")
            continue
        # the first line with counts is that of the warm-up
        microseconds = float(medians[-1] if len(medians) > 1 else average[-1])
        found.milliseconds.setdefault(name, []).append(microseconds / 1000)
        found.threads |= set(map(int, _THREADS.findall(text)))
    return found


def _of_json(path: Path) -> Results:
    try:
        content: Any = read_json(path)
        return Results(
            str(content["tool"]),
            {int(content["threads"])},
            {
                str(name): [float(value) / 1000 for value in values]
                for name, values in content["microseconds"].items()
            },
            {str(name): one_line(str(why)) for name, why in content["refused"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' must be what measure.py wrote. Received: {type(error).__name__}: {error}."
        ) from None


@check_arguments()
def channel_times(
    model: keras.Model | str | Path,
    options: ChannelOptions | None = None,
    *,
    format: str = "float32",
    threads: int = 1,
    budget: float | None = None,
    seed: int = 0,
    input_shape: Any = None,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[PruneChannelsSettings],
) -> TimeModel:
    """Measure the latency of any channel counts and blocks: LiteRT, on this machine, now.

    Each call of the model is timed by itself at some widths; a few whole nets put the sum right.
    What comes out is the `cost` of `prune_channels`: channels leave where they take time.

    Args:
        model: A Keras model, or the path of its file; it stays as it is.
        options: The plan's section: what may leave, `round_to`, `min_kept`, `blocks`.
        format: Of the files: "float32", "float16", "dynamic" or "int8".
        threads: Of the runtime, at least 1.
        budget: Seconds of timing calls, and as many of timing nets, above 0; default: until each
            call is known to 3 %, and two seconds a net.
        seed: Of the order of measuring.
        input_shape: Of one example, where the model's own has open sizes.
        on_progress: Called with (text, share that is done).
        **settings: Other fields of `ChannelOptions`.

    Returns:
        A function of kept units (..., groups) and present blocks (..., blocks) -> milliseconds
        (...), estimated from what was measured: time a file before you call it faster. Its
        `calibration` says how far off sums of calls were, `estimated` what could not be timed.

    Raises:
        InputError: A model or option that `prune_channels` refuses, or an open input size.
        RunFailed: No call could be measured.

    Example:
        >>> times = channel_times(model, budget=0.5)
        >>> times.calibration.nets  # prune_channels(model, cost=times, share=0.5): half of the time
        8

    Reference:
        Shen et al. 2022, "Structural Pruning via Latency-Saliency Knapsack", section 3.2; there
        a table of layers alone, here one put right by whole nets.
    """
    found = PRUNE_CHANNELS.section("channels", options, ChannelOptions, settings)
    coupling = coupling_of(as_model(model), input_shape)
    allowed = allowed_for(coupling, found, ladder(found)[-1])
    blocks = blocks_of(coupling) if found.blocks else ()
    return measured_times(
        coupling, allowed, litert_files, blocks, format=format, threads=threads, budget=budget,
        seed=seed, on_progress=on_progress,
    )[0]  # fmt: skip
