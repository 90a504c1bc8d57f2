"""Files for a device, what its tools wrote, and the times that follow from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError, RunFailed
from compress.devices import DeviceTimes, import_latency_table
from compress.devices.exporting import FILES, Manifest, export_latency_table, read_manifest
from compress.measure import count_macs
from compress.measure.runtimes import prepare_session
from compress.plan.shrink import ShrinkChannels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.selection.allowed_counts import compute_allowed_counts
from compress.prune.channels.selection.latency_measurement import TimedCalls, build_pruned_models

OPTIONS: dict[str, Any] = {"round_to": 4, "min_kept": 0.5}
EMPTY_US = 2.0


def net() -> keras.Model:
    """Two groups of channels and a head."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(12, 3, padding="same", activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x), name="small")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("device") / "calls"
    return export_latency_table(net(), place, formats=["float32", "int8"], threads=2, **OPTIONS)


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """The exported folder, linked: results/ is this test's own."""
    place = tmp_path / "calls"
    place.mkdir()
    for part in exported.iterdir():
        if part.name != "results":
            (place / part.name).symlink_to(part)
    (place / "results").mkdir()
    return place


def microseconds(manifest: Manifest, of: Callable[[Any], float]) -> dict[str, list[float]]:
    """What a device says whose calls take so long: nets take the sum of theirs."""
    coupling = analyze_coupling(net())
    calls = TimedCalls(coupling, compute_allowed_counts(coupling, ShrinkChannels(**OPTIONS), 4))
    found: dict[str, list[float]] = {}
    for format, nets in manifest.nets.items():
        found[f"{format}/empty.tflite"] = [EMPTY_US]
        for call in manifest.read_calls(format):
            found[call.file] = [EMPTY_US + of(call)]
        by_key = {json.dumps(call.key, sort_keys=True): of(call)
                  for call in manifest.read_calls(format)}  # fmt: skip
        for file, kept in zip(nets, manifest.kept, strict=True):
            keys = [key for _, key, _ in calls.list_calls(np.array(kept))]
            total = sum(
                by_key[json.dumps(json.loads(json.dumps(key.to_json())), sort_keys=True)]
                for key in keys
            )
            found[file] = [EMPTY_US + total]
    return found


def said(folder: Path, times: Mapping[str, Any], **others: Any) -> Path:
    write_json(
        folder / "results" / "python.json",
        {"tool": "a tool", "threads": 2, "microseconds": times, "refused": {}, **others},
    )
    return folder


def test_the_files_are_the_calls_and_whole_nets(exported: Path) -> None:
    manifest = read_manifest(exported)
    assert set(manifest.nets) == {"float32", "int8"}
    written = {path.relative_to(exported / FILES).as_posix()
               for path in exported.glob("files/*/*")}  # fmt: skip
    assert written == set(manifest.list_files())
    # first: 4 or 8 of 8; second: 8 or 12 of 12 (steps of 4, a half at least); the head's inputs
    kinds = [call.key["kinds"] for call in manifest.read_calls("float32")]
    assert sum("Conv2D" in str(kind) for kind in kinds) == 2 + 4
    assert sum("Dense" in str(kind) for kind in kinds) == 2
    assert manifest.kept[-1] == (8, 12)
    nets = build_pruned_models(analyze_coupling(net()), np.array(manifest.kept))
    for file, small in zip(manifest.nets["float32"], nets, strict=True):
        session = prepare_session(exported / FILES / file)
        assert [info.shape for info in session.inputs] == [(1, 8, 8, 1)]
        (size,) = {(exported / FILES / file).stat().st_size}
        assert size > 4 * small.count_params()
    assert (exported / "measure.sh").stat().st_mode & 0o111
    assert "THREADS=${THREADS:-2}" in (exported / "measure.sh").read_text()


@pytest.mark.parametrize("format", ["float32", "int8"])
def test_times_follow_from_what_the_device_said(folder: Path, format: str) -> None:
    manifest = read_manifest(folder)
    scale = {"float32": 0.001, "int8": 0.0004}

    def of(call: Any) -> float:
        return float(scale[call.file.partition("/")[0]] * call.ops)

    said(folder, microseconds(manifest, of))
    times = import_latency_table(folder, "a phone", folder / "phone.json")
    assert (times.device, times.threads, times.model) == ("a phone", 2, "small")
    again = DeviceTimes.load(folder / "phone.json")
    coupling = analyze_coupling(net())
    found = again.times(
        coupling, compute_allowed_counts(coupling, ShrinkChannels(**OPTIONS), 4), (), format
    )
    assert found.calibration.factor == pytest.approx(1.0)
    for kept in ((8, 12), (4, 12), (8, 8), (4, 8)):
        (small,) = build_pruned_models(coupling, np.array([kept]))
        counted = count_macs(small)
        # the device takes so long for each operation, and the empty file once
        expected = (EMPTY_US + scale[format] * (counted.macs + counted.other_ops)) / 1000
        assert float(found.predict(np.array(kept))) == pytest.approx(expected, rel=0.01)
    assert again.own_ms(format) == pytest.approx(float(found.predict(np.array((8, 12)))), rel=1e-6)


def test_rounds_that_something_disturbed_do_not_count(folder: Path) -> None:
    times = microseconds(read_manifest(folder), lambda call: 10.0)
    call = read_manifest(folder).read_calls("float32")[0].file
    # of eleven rounds seven took twice as long; one in ten lies below the second least
    times[call] = [24.0, 25.0, 12.4, 26.0, 12.0, 25.0, 12.2, 24.0, 12.6, 25.0, 24.0]
    table = import_latency_table(said(folder, times), "x").tables["float32"]
    assert table["calls"][0]["ms"] == pytest.approx((12.2 - EMPTY_US) / 1000)
    # in ranks the standard deviation is sqrt(0.1 x 0.9 / 11) of ten steps, here of 0.2 us each
    error = 0.2 * 10 * (0.1 * 0.9 / 11) ** 0.5
    assert table["calls"][0]["error"] == pytest.approx(error / 1000)
    assert table["calls"][0]["rounds"] == 11


def test_what_a_device_cannot_run_is_estimated_and_said(folder: Path) -> None:
    manifest = read_manifest(folder)
    times = microseconds(manifest, lambda call: 0.002 * call.ops)
    first = manifest.read_calls("float32")[0]
    del times[first.file]
    said(folder, times, refused={first.file: "no kernel"})
    table = import_latency_table(folder, "x").tables["float32"]
    assert table["calls"][0]["reason"] == "the device does not run it alone: no kernel"
    assert table["calls"][0]["ms"] == pytest.approx(0.002 * first.ops / 1000)
    refused = {first.file: "no kernel", manifest.nets["float32"][0]: "no memory"}
    del times[manifest.nets["float32"][0]]
    with pytest.raises(RunFailed, match="no memory"):
        import_latency_table(said(folder, times, refused=refused), "x")


@pytest.mark.slow
def test_this_machine_by_its_own_script(folder: Path) -> None:
    subprocess.run(
        [sys.executable, folder / "measure.py"], check=True, capture_output=True, cwd=folder.parent
    )
    # a link leads to the exported folder: the results are there
    times = import_latency_table((folder / "measure.py").resolve().parent, "here")
    assert times.formats == ("float32", "int8")
    assert "LiteRT" in times.tool
    table = times.tables["float32"]
    assert table["overhead_ms"] > 0
    assert all(row["rounds"] > 1 for row in table["calls"])
    for path in (folder / "measure.py").resolve().parent.glob("results/*"):
        path.unlink()


STAND_IN = """#!{python}
import sys
given = dict(word.split("=") for word in sys.argv[1:])
with open({log!r}, "a") as log:
    log.write(given["--graph"] + chr(10))
if "call-0001" in given["--graph"]:
    print("ERROR: Didn't find op for builtin opcode")
    sys.exit(1)
micro = {{"empty": 2, "call-": 12, "net-": 100}}[
    next(part for part in ("empty", "call-", "net-") if part in given["--graph"])]
print("STARTING!")
print("Num threads: [" + given["--num_threads"] + "]")
print("The input model file size (MB): 0.0016")
print("Initialized session in 0.4ms.")
print(f"count=50 first=99 curr=99 min=99 max=99 avg=99 std=0 p5=99 median=99 p95=99")
print(f"count=50 first={{micro}} curr={{micro}} min={{micro}} max=90 avg=30 std=4{tail}")
print("Inference timings in us: Init: 400, First inference: 99, Warmup (avg): 99, "
      f"Inference (avg): {{micro + 0.25}}")
"""


@pytest.mark.parametrize("median", [True, False])
def test_the_shell_script_and_what_benchmark_model_says(folder: Path, median: bool) -> None:
    tool, log = folder / "benchmark_model", folder / "asked.txt"
    tail = " p5={micro} median={micro} p95={micro}" if median else ""
    tool.write_text(STAND_IN.format(python=sys.executable, log=str(log), tail=tail))
    tool.chmod(0o755)
    script = folder / "run.sh"
    script.write_text((folder / "measure.sh").read_text())  # not through the link
    run = {"BENCHMARK": "./calls/benchmark_model", "ROUNDS": "2", "THREADS": "3", **os.environ}
    subprocess.run(["sh", script], check=True, env=run, capture_output=True, cwd=folder.parent)
    count = len(read_manifest(folder).list_files())
    assert len(log.read_text().splitlines()) == 2 * count
    subprocess.run(["sh", script], check=True, env=run, capture_output=True, cwd=folder.parent)
    assert len(log.read_text().splitlines()) == 2 * count  # nothing is timed twice
    times = import_latency_table(folder, "a board")
    assert times.threads == 3
    table = times.tables["float32"]
    ends = 0.0 if median else 0.25  # older versions tell the average alone
    assert table["overhead_ms"] == pytest.approx((2 + ends) / 1000)
    assert table["calls"][0]["ms"] == pytest.approx(0.01)
    assert "Didn't find op" in table["calls"][1]["reason"]
    assert times.own_ms("int8") == pytest.approx((100 + ends) / 1000)


def test_bad_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="be new or empty"):
        export_latency_table(net(), folder)
    with pytest.raises(InputError, match=r"must hold what measure\.sh or measure\.py wrote"):
        import_latency_table(folder, "x")
    with pytest.raises(InputError, match="must be one that paretune latency-table export wrote"):
        import_latency_table(tmp_path, "x")
    times = microseconds(read_manifest(folder), lambda call: 1.0)
    gone = times.popitem()[0]
    said(folder, times)
    with pytest.raises(InputError, match=f"no result for 1 of .*{gone}"):
        import_latency_table(folder, "x")
    with pytest.raises(InputError, match="device must be the name"):
        import_latency_table(folder, " ")
    with pytest.raises(InputError, match=r"ending in \.json"):
        import_latency_table(folder, "x", folder / "phone.txt")
    (folder / "results" / "python.json").write_text("{")
    with pytest.raises(InputError, match=r"must be what measure\.py wrote"):
        import_latency_table(folder, "x")


def test_a_model_without_channels_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="head")
    with pytest.raises(InputError, match="must have channels that can be removed"):
        export_latency_table(model, tmp_path / "calls")
    with pytest.raises(InputError, match="Unknown format 'onnx'"):
        export_latency_table(net(), tmp_path / "calls", formats=["onnx"])
    assert not any(tmp_path.iterdir())


def test_a_table_of_another_model_is_refused(folder: Path) -> None:
    times = import_latency_table(
        said(folder, microseconds(read_manifest(folder), lambda call: 1.0)), "a phone"
    )
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, name="first")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    other = analyze_coupling(keras.Model(inputs, keras.layers.Dense(3)(x)))
    allowed = compute_allowed_counts(other, ShrinkChannels(**OPTIONS), 4)
    with pytest.raises(InputError, match=r"that of 'small' \(a phone\), which lacks"):
        times.times(other, allowed, (), "float32")
    with pytest.raises(InputError, match="Unknown format of the device's times 'float16'"):
        times.own_ms("float16")
    assert read_json(folder / "manifest.json")["threads"] == 2
