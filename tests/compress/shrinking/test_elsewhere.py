"""A goal of time on a device that is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.core.atomic_files import write_json
from compress.core.errors import InputError
from compress.data import Dataset
from compress.devices import import_latency_table
from compress.devices.exporting import export_latency_table, read_manifest
from compress.measure import count_macs
from compress.measure.runtimes import prepare_session
from compress.plan.shrink import GoalOptions
from compress.shrinking.shrink import shrink
from tests.compress.shrinking.test_shrink import QUICK, told_by_feeding

EMPTY_US = 5.0


def operations(model: Any) -> int:
    found = count_macs(model)
    return found.macs + found.other_ops


@pytest.fixture(scope="module")
def table(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device that takes a nanosecond an operation, and half of it in integers."""
    import numpy as np

    from compress.prune.channels.analysis import analyze_coupling
    from compress.prune.channels.selection.latency_measurement import build_pruned_models

    folder = tmp_path_factory.mktemp("phone")
    options = {"round_to": QUICK["round_to"], "min_kept": QUICK["min_kept"]}
    made = export_latency_table(trained, folder / "calls", **options)
    manifest = read_manifest(made)
    times: dict[str, list[float]] = {}
    for format, rate in (("float32", 1e-3), ("int8", 5e-4)):
        times[f"{format}/empty.tflite"] = [EMPTY_US]
        for call in manifest.read_calls(format):
            times[call.file] = [EMPTY_US + rate * call.ops]
        nets = build_pruned_models(analyze_coupling(trained), np.array(manifest.kept))
        for file, net in zip(manifest.nets[format], nets, strict=True):
            times[file] = [EMPTY_US + rate * operations(net)]
    write_json(
        made / "results" / "python.json",
        {"tool": "a tool", "threads": 1, "microseconds": times, "refused": {}},
    )
    import_latency_table(made, "a phone", folder / "phone.json")
    return folder / "phone.json"


@pytest.mark.slow
def test_a_share_of_the_time_of_a_phone(
    table: Path, trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    result = shrink(
        trained, digits, latency=0.4, latency_table=table, formats=["float32"],
        out=tmp_path / "out", **QUICK,
    )  # fmt: skip
    assert result.met
    share = (EMPTY_US + 1e-3 * operations(result.model)) / (EMPTY_US + 1e-3 * operations(trained))
    assert 0.3 < share <= 0.412  # three hundredths of slack
    (_, line) = result.outcome.lines
    assert "x of the original's, limit" in line
    assert "on a phone (estimated, " in line
    assert "% off on held-out models)" in line
    assert line.endswith("limit 0.4x: met")
    assert any("estimated from files of single calls" in note for note in result.outcome.notes)
    card = (result.file.parent / "README.md").read_text()
    assert "latency elsewhere" in card
    assert "on a phone (measured)" in card


@pytest.mark.slow
def test_where_integers_alone_are_fast_enough(
    table: Path, trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    # half of the rate, and the empty file: int8 as it is comes to a little above 0.5x
    own = EMPTY_US + 1e-3 * operations(trained)
    whole = (EMPTY_US + 5e-4 * operations(trained)) / own
    result = shrink(
        trained, digits, latency=f"{own * (whole + 0.01) / 1000:.6f}ms", latency_table=table,
        formats=["float32", "int8"], out=tmp_path / "out", **QUICK,
    )  # fmt: skip
    assert result.met
    assert result.outcome.chosen == "net.int8"
    assert "us on a phone (measured)" in result.outcome.lines[1]
    assert prepare_session(result.file).inputs


@pytest.mark.slow
def test_a_table_that_does_not_fit_is_refused_before_any_work(
    table: Path, trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"latency": 0.5, "latency_table": table, "out": tmp_path / "out"}
    with pytest.raises(InputError, match="Unknown format of the device's times 'float16'"):
        shrink(trained, digits, **{**QUICK, **asked, "formats": ["float16"]})
    with pytest.raises(InputError, match="which lacks .* calls of this one"):
        shrink(trained, digits, **{**QUICK, **asked, "round_to": 3, "formats": ["float32"]})
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(InputError, match=r"other\.json' must have the keys"):
        shrink(trained, digits, **{**QUICK, **asked, "latency_table": other})
    with pytest.raises(InputError, match="written by paretune latency-table import"):
        shrink(trained, digits, **{**QUICK, **asked, "latency_table": tmp_path / "none.json"})
    assert not (tmp_path / "out").exists()


def test_a_table_goes_with_a_latency() -> None:
    with pytest.raises(InputError, match="latency_table must go with a latency goal"):
        GoalOptions(macs="0.5x", latency_table="phone.json")


@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param("onnx", marks=pytest.mark.matrix),
        pytest.param("openvino", marks=pytest.mark.matrix),
    ],
)
def test_the_time_of_another_runtime(
    runtime: str, wide: Any, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    asked = {**QUICK, "round_to": 16, "runtimes": [runtime], "formats": ["onnx"]}
    result = shrink(wide, digits, latency=0.8, out=tmp_path / "out", **asked)
    (record,) = result.report.compressed
    (small,) = [item for item in record.artifacts if item.variant == "pruned"]
    assert small.macs < count_macs(wide).macs
    assert result.file.suffix == ".onnx"
    rows = {row.artifact.id: row.latency for row in result.report.rows}
    described = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[runtime]
    assert all(time is not None and time.runtime.startswith(described) for time in rows.values())
    made, wanted, _ = told_by_feeding(result, digits)
    np.testing.assert_allclose(made, wanted, atol=1e-4)
    card = (result.file.parent / "README.md").read_text()
    assert "it needs only numpy and\nonnxruntime" in card
    assert "arena" not in card


def test_files_and_runtimes_that_do_not_go_together(
    trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {**QUICK, "out": tmp_path / "out"}
    with pytest.raises(InputError, match="runtimes must begin with one that runs float32 files"):
        shrink(trained, digits, latency=0.5, runtimes=["onnx"], **asked)
    with pytest.raises(InputError, match="runtimes must begin with one that runs onnx files"):
        shrink(trained, digits, latency=0.5, formats=["onnx"], **asked)
    with pytest.raises(InputError, match="formats must be among float32"):
        shrink(trained, digits, macs=0.5, formats=["onnx", "int8"], **asked)
    with pytest.raises(InputError, match="peak_memory must go with LiteRT formats"):
        shrink(trained, digits, peak_memory=0.5, formats=["onnx"], **asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_goal_without_a_time_in_onnx_files(trained: Any, digits: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = shrink(
        trained, digits, size=0.6, formats=["onnx", "onnx_int8"], out=tmp_path / "out", **QUICK
    )
    assert result.met
    sizes = {row.artifact.id: row.artifact.size_bytes for row in result.report.rows}
    assert sizes[result.outcome.chosen] <= 0.6 * sizes["net.onnx"]
    assert (tmp_path / "out" / "latency-onnx.json").exists()
