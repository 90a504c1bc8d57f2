"""Makes a table of a device's times of what was timed there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from compress.core.arguments import check_arguments
from compress.core.errors import InputError, RunFailed
from compress.devices.manifest import EMPTY, CallFile, Manifest, read_manifest
from compress.devices.record import DeviceTimes
from compress.devices.results import Results, read_results
from compress.measure.latency_table import CallKey, CallTime, LatencyTable
from compress.measure.latency_table.calls import estimated
from compress.plan.fields import require


@check_arguments()
def import_latency_table(
    folder: str | Path, device: str, out: str | Path | None = None
) -> DeviceTimes:
    """Reads what was timed on a device.

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
        {name: _whole(nets, results) for name, nets in manifest.nets.items()},
        {name: _table(manifest, name, results, device, threads, now).to_json()
         for name in manifest.nets},
        manifest.input_shape,
    )  # fmt: skip
    if out is not None:
        found.save(out)
    return found


def _whole(files: tuple[str, ...], results: Results) -> tuple[float, ...]:
    for file in files:
        _check(file, results)
    return tuple(results.time(file)[0] for file in files)


def _check(file: str, results: Results) -> None:
    if file in results.refused and file not in results.milliseconds:
        raise RunFailed(f"The device must be able to run {file}: {results.refused[file]}")


def _table(
    manifest: Manifest, format: str, results: Results, device: str, threads: int, date: str
) -> LatencyTable:
    empty = f"{format}/{EMPTY}"
    _check(empty, results)
    base, spread = results.time(empty)
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
    rounds = len(results.milliseconds[call.file])
    return CallTime(key, ms, error, rounds, call.ops, call.weight_bytes, date=date)
