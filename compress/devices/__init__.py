"""Latencies for pruning targets: measured on other devices, or on this machine.

`import_latency_table` reads the times of files that were run on a device. `channel_times` measures
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
from compress.core.errors import InputError, RunFailed, build_unknown_name_error, to_one_line
from compress.devices.exporting import EMPTY_FILE, RESULTS, CallFile, Manifest, read_manifest
from compress.exporting.batch_conversion import write_latency_files
from compress.measure.latency_record import QUIET, estimate_quantile
from compress.measure.latency_table import CallKey, CallTime, LatencyTable
from compress.measure.latency_table.measurement import estimate_missing
from compress.model.io import as_model
from compress.plan import ChannelOptions
from compress.plan.fields import require
from compress.plan.keywords import PRUNE_CHANNELS
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.blocks import Block, list_blocks
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.selection.allowed_counts import (
    AllowedCounts,
    compute_allowed_counts,
    list_rounding_steps,
)
from compress.prune.channels.selection.latency_measurement import TimedCalls, measure_latency_model
from compress.prune.channels.selection.latency_model import LatencyModel
from compress.run.records import Record, find_too_low, load_record

if TYPE_CHECKING:
    import keras

    from compress.plan.settings import PruneChannelsSettings


@dataclass(frozen=True)
class DeviceTimes(Record):
    """Times of a model's calls, and of some of its pruned models, on a device.

    Attributes:
        model: Name of the model.
        device: Device name from the user.
        tool: Measuring tool and its settings.
        threads: Number of CPU threads.
        date: Date of the import, YYYY-MM-DD in UTC.
        round_to: Step of kept channels for which calls were exported, see `ChannelOptions`.
        min_kept: Least share of kept channels for which calls were exported.
        input_shape: Given shape of one example; None: the model's own.
        kept: Number of kept removable units in each group, for each model that was timed as a whole
            file. The last one keeps all.
        nets: Format -> milliseconds of these models.
        tables: Format -> table of calls, as JSON.
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

    def find_violation(self) -> str:
        """See `Record.find_violation`."""
        if set(self.nets) != set(self.tables) or not self.nets:
            return (
                "nets and tables must be of the same formats, at least one; received: "
                f"{', '.join(self.nets) or 'none'} and {', '.join(self.tables) or 'none'}"
            )
        return find_too_low(self, 1, "threads")

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of the timed files."""
        return tuple(self.nets)

    def own_ms(self, format: str) -> float:
        """Return the time of the unpruned model's file in ms, measured on the device.

        Args:
            format: Format of the file.

        Raises:
            InputError: No file of this format was timed.
        """
        self._check_format(format)
        return self.nets[format][-1]

    def times(
        self, coupling: Coupling, allowed: AllowedCounts, blocks: Sequence[Block], format: str
    ) -> LatencyModel:
        """Return the model's latency on the device as a function of channel counts and blocks.

        Args:
            coupling: Channel groups of the model.
            allowed: Allowed channel counts of each group.
            blocks: Residual blocks that may be removed.
            format: Format of the files.

        Raises:
            InputError: No file of this format was timed, or calls of this model were not.
        """
        self._check_format(format)
        calls, table = TimedCalls(coupling, allowed, blocks), self._tables[format]
        missing = table.find_missing(calls.list_model_makers())
        groups = {len(row) for row in self.kept}
        if missing or groups != {len(coupling.groups)}:
            gaps = f"{len(missing)} calls of this one, {missing[0]} among them" if missing else (
                f"one of {groups.pop()} groups of channels, where this one has "
                f"{len(coupling.groups)}"
            )  # fmt: skip
            raise InputError(
                f"A table of times must be of the model that is shrunk. Received: that of "
                f"'{self.model}' ({self.device}), which lacks {gaps}. Export the calls of this "
                "model with the same round_to, min_kept and input_shape, and time them: "
                "paretune latency-table export."
            )
        return calls.build_latency_model(table).calibrate(
            np.array(self.kept), np.array(self.nets[format])
        )

    def _check_format(self, format: str) -> None:
        if format not in self.nets:
            raise build_unknown_name_error("format of the device's times", format, self.formats)

    @cached_property
    def _tables(self) -> dict[str, LatencyTable]:
        return {name: LatencyTable.from_json(table) for name, table in self.tables.items()}

    def save(self, path: str | Path) -> None:
        """Write the times as JSON, atomically."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> DeviceTimes:
        """Read a file that `save` wrote.

        Args:
            path: The file.

        Raises:
            InputError: The file does not exist or is not a device table.
        """
        return load_record(
            path, cls, "A device's table must be a file written by paretune latency-table import"
        )


_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_AVERAGE = re.compile(rf"Inference \(avg\): {_NUMBER}")
_MEDIAN = re.compile(rf"^.*\bcount=\d+ .*\bmedian={_NUMBER}", re.M)
_THREADS = re.compile(r"(?:[Nn]um threads|#threads used for CPU inference): \[(\d+)\]")
_SEPARATOR = "~"
"""Replacement of "/" in the names of logs."""


@check_arguments()
def import_latency_table(
    folder: str | Path, device: str, out: str | Path | None = None
) -> DeviceTimes:
    """Read the times that were measured on a device.

    Args:
        folder: Folder from `export_latency_table`, with the device's results/ in it.
        device: Name of the device: "Pixel 8, one big core".
        out: A file for the table, ending in .json, for `shrink(latency_table=...)`.

    Returns:
        Times of calls (without the overhead of a run) and of whole models. A call that the device
        could not run has an estimate from its number of operations, with the reason.

    Raises:
        InputError: Results are missing, or were measured with different numbers of threads.
        RunFailed: No call could be timed.

    Example:
        >>> import subprocess, sys
        >>> board = export_latency_table(model, folder / "board", formats=["float32"], round_to=4)
        >>> _ = subprocess.run([sys.executable, board / "measure.py"], check=True)
        >>> times = import_latency_table(board, "this very machine", folder / "board.json")
        >>> times.formats, times.own_ms("float32") > 0
        (('float32',), True)
    """
    export_folder = Path(folder)
    require(bool(device.strip()), "device", "be the name of the device", repr(device))
    if out is not None:
        require(Path(out).suffix == ".json", "out", "be a file ending in .json", f"'{out}'")
    manifest, results = read_manifest(export_folder), read_results(export_folder)
    missing = [
        file for file in manifest.list_files()
        if file not in results.milliseconds and file not in results.refusals
    ]  # fmt: skip
    if missing:
        raise InputError(
            f"Every file must have been timed. Received: no result for {len(missing)} of "
            f"{len(manifest.list_files())}, {missing[0]} among them. Run the script to its end: it "
            "resumes where it ended."
        )
    if len(results.threads) > 1:
        raise InputError(
            "All files must be timed with one number of threads. Received: "
            f"{', '.join(map(str, sorted(results.threads)))}. Empty results/ and run the script "
            "again."
        )
    (threads,) = results.threads or {manifest.threads}
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    device_times = DeviceTimes(
        manifest.model, device, results.tool, threads, today, manifest.round_to, manifest.min_kept,
        manifest.kept,
        {name: tuple(results.estimate_time(file)[0] for file in nets)
         for name, nets in manifest.nets.items()},
        {name: _build_table(manifest, name, results, device, threads, today).to_json()
         for name in manifest.nets},
        manifest.input_shape,
    )  # fmt: skip
    if out is not None:
        device_times.save(out)
    return device_times


def _build_table(
    manifest: Manifest, format: str, results: DeviceResults, device: str, threads: int, date: str
) -> LatencyTable:
    """Return the times of a format's calls in ms; calls that could not be run are estimated."""
    base, spread = results.estimate_time(f"{format}/{EMPTY_FILE}")
    calls = [
        _compute_call_time(call, results, base, spread, date)
        for call in manifest.read_calls(format)
    ]
    return LatencyTable(
        results.tool, format, threads, device, base, spread, estimate_missing(calls)
    )


def _compute_call_time(
    call: CallFile, results: DeviceResults, base: float, spread: float, date: str
) -> CallTime:
    """Return a call's ms above an empty file's (`base`), at least 0; with a reason if not timed."""
    key = CallKey.from_json(call.key)
    is_refused = call.file and call.file not in results.milliseconds
    reason = (
        f"the device does not run it alone: {results.refusals[call.file]}"
        if is_refused
        else call.reason
    )
    if reason:
        return CallTime(key, 0.0, 0.0, 0, call.ops, call.weight_bytes, reason)
    file_ms, file_error = results.estimate_time(call.file)
    # a call of a few nanoseconds may measure below the empty file
    ms, error = max(0.0, file_ms - base), (file_error**2 + spread**2) ** 0.5
    return CallTime(
        key, ms, error, len(results.milliseconds[call.file]), call.ops, call.weight_bytes, date=date
    )


@dataclass
class DeviceResults:
    """Measured times of files.

    Attributes:
        tool: Measuring tool.
        threads: Numbers of CPU threads that the tool reported; empty if it reported none.
        milliseconds: File -> one time per round.
        refusals: File that could not be run -> reason.
    """

    tool: str = ""
    threads: set[int] = field(default_factory=set)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def estimate_time(self, file: str) -> tuple[float, float]:
        """Return a file's time in ms (that of quiet rounds) and its standard error.

        Args:
            file: Path relative to files/.

        Raises:
            RunFailed: The device could not run the file.
        """
        if file not in self.milliseconds:
            raise RunFailed(f"The device must be able to run {file}: {self.refusals[file]}")
        return estimate_quantile(self.milliseconds[file], QUIET)


def read_results(folder: Path) -> DeviceResults:
    """Read results/ of a folder that `export_latency_table` wrote.

    Args:
        folder: The folder.

    Raises:
        InputError: There are no results, results of both tools, or a file is not a result.
    """
    results_folder = folder / RESULTS
    logs, json_path = sorted(results_folder.glob("*.tflite.*.txt")), results_folder / "python.json"
    if bool(logs) == json_path.exists():
        received = "logs of benchmark_model and python.json" if logs else "none"
        raise InputError(
            f"'{results_folder}' must hold what measure.sh or measure.py wrote, one of them. "
            "Received: "
            f"{received}. Run one on the device, and copy results/ back."
        )
    return _parse_logs(logs) if logs else _parse_json(json_path)


def _parse_logs(logs: list[Path]) -> DeviceResults:
    """Return times in ms and refusals by file, from logs of benchmark_model."""
    results = DeviceResults("LiteRT's benchmark_model")
    for path in logs:
        name = path.name.rpartition(".tflite")[0].replace(_SEPARATOR, "/") + ".tflite"
        text = path.read_text(encoding="utf-8", errors="replace")
        average, medians = _AVERAGE.findall(text), _MEDIAN.findall(text)
        if not average:
            lines = [line for line in text.splitlines() if line.strip()]
            results.refusals[name] = to_one_line(lines[-1].strip() if lines else "it said nothing")
            continue
        # the first line with counts belongs to the warm-up
        microseconds = float(medians[-1] if len(medians) > 1 else average[-1])
        results.milliseconds.setdefault(name, []).append(microseconds / 1000)
        results.threads |= set(map(int, _THREADS.findall(text)))
    return results


def _parse_json(path: Path) -> DeviceResults:
    """Return the results that measure.py wrote, converted to ms; raise InputError if malformed."""
    try:
        content: Any = read_json(path)
        return DeviceResults(
            str(content["tool"]),
            {int(content["threads"])},
            {
                str(name): [float(value) / 1000 for value in values]
                for name, values in content["microseconds"].items()
            },
            {str(name): to_one_line(str(why)) for name, why in content["refused"].items()},
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
) -> LatencyModel:
    """Measure the latency of any channel counts and blocks with LiteRT on this machine.

    Each call of the model is timed alone at some channel counts. Some pruned models are timed as
    whole files to calibrate the sum of their calls. The result is the `cost` argument of
    `prune_channels`, which then removes the channels that save the most time.

    Args:
        model: A Keras model, or the path of its file; it is not changed.
        options: Removable channels, `round_to`, `min_kept`, `blocks`.
        format: Format of the files: "float32", "float16", "dynamic" or "int8".
        threads: Number of CPU threads, at least 1.
        budget: Time limit in seconds for calls, and as much again for whole models, above 0.
            Default: one second per call, less if the standard errors are 3 % before that, and two
            seconds per whole model.
        seed: Seed of the measurement order.
        input_shape: Shape of one example, if the model's own has open sizes.
        on_progress: Called with (current step, fraction that is done).
        **settings: Other fields of `ChannelOptions`.

    Returns:
        A function of kept units (..., groups) and present blocks (..., blocks) -> milliseconds
        (...). The times are estimates: time a file before you report a speed-up. `calibration` has
        the error of the sums of calls, and `estimated` the calls that could not be timed.

    Raises:
        InputError: `prune_channels` would reject the model or an option, or an input size is open.
        RunFailed: No call could be measured.

    Example:
        >>> times = channel_times(model, budget=0.5)
        >>> times.calibration.nets  # prune_channels(model, cost=times, share=0.5): half of the time
        8

    Reference:
        Shen et al. 2022, "Structural Pruning via Latency-Saliency Knapsack", section 3.2. They use
        a table of layers alone; here whole models calibrate it.
    """
    channel_options = PRUNE_CHANNELS.build_section("channels", options, ChannelOptions, settings)
    coupling = analyze_coupling(as_model(model), input_shape)
    allowed = compute_allowed_counts(
        coupling, channel_options, list_rounding_steps(channel_options)[-1]
    )
    blocks = list_blocks(coupling) if channel_options.blocks else ()
    return measure_latency_model(
        coupling,
        allowed,
        write_latency_files,
        blocks,
        format=format,
        threads=threads,
        budget=budget,
        seed=seed,
        on_progress=on_progress,
    )[0]
