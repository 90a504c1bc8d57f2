"""`bench`: conversions, configurations, verdicts, and what is refused or skipped."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress import BenchPlan, bench
from compress.benchmarking.models import BenchModel, collect_models, fix_input_shape
from compress.benchmarking.result import BenchResult, Timing, describe_speedup
from compress.core.errors import InputError, MissingDependency
from compress.exporting.litert import export_litert
from compress.exporting.onnx import export_onnx
from compress.measure import Latency, count_macs
from compress.measure.runtimes import RUNTIMES

QUICK = BenchPlan(budget=0.5)


@pytest.fixture
def models(tmp_path: Path, small_cnn: Callable[..., Any]) -> list[Path]:
    """A small network and one whose middle is 8 times wider."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(64, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.Conv2D(128, 3, padding="same", activation="relu")(x)
    wide = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))
    paths = [tmp_path / "wide.keras", tmp_path / "small.keras"]
    wide.save(paths[0])
    small_cnn().save(paths[1])
    return paths


@pytest.mark.slow
def test_every_runtime_format_and_thread_count(models: list[Path], tmp_path: Path) -> None:
    plan = BenchPlan(
        runtimes=("litert", "onnx", "openvino", "tensorflow"),
        formats=("float32", "int8"),
        threads=("1", "2"),
        compare=("wide", "small"),
        budget=2.0,
        out=str(tmp_path / "out"),
    )
    result = bench(models, plan)
    found = {(r.model, r.runtime, r.format, r.latency.threads) for r in result.timed}
    formats = {("litert", "float32"), ("litert", "int8"), ("onnx", "float32"), ("onnx", "int8"),
               ("openvino", "float32"), ("openvino", "int8"),
               ("tensorflow", "float32")}  # fmt: skip
    both = ("wide", "small")
    assert found == {(m, r, f, t) for m in both for r, f in formats for t in (1, 2)}
    assert {(s.runtime, s.format) for s in result.skipped} == {("tensorflow", "int8")}
    assert "runs float32" in result.skipped[0].reason
    for row in result.timed:
        same = f"wide {row.runtime} {row.format} {row.latency.threads}"
        assert row.latency.baseline == same
        assert row.latency.median_ms > 0
    # what they say hangs on the machine; how it is said is tested with figures by hand
    lines = result.verdicts()
    assert len(lines) == 14
    assert lines[0].startswith("litert float32, 1 thread: ")
    assert all("small" in line and "wide" in line for line in lines)
    stored = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    assert stored["verdicts"] == lines
    assert stored["versions"]["onnxruntime"]
    rows = list(csv.DictReader((tmp_path / "out/bench.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 28
    assert int(rows[0]["macs"]) == result.models[0].macs
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_files_are_timed_as_they_are(
    models: list[Path], tmp_path: Path, small_cnn: Callable[..., Any]
) -> None:
    export_litert(small_cnn(), tmp_path / "a.tflite", "dynamic")
    export_onnx(small_cnn(), tmp_path / "a.onnx")
    files = [tmp_path / "a.tflite", tmp_path / "a.onnx"]
    before = {path: path.read_bytes() for path in files}
    result = bench(files, replace(QUICK, runtimes=("litert", "onnx", "openvino")))
    assert [(r.model, r.runtime, r.format) for r in result.timed] == [
        ("a", "litert", "file"), ("a-2", "onnx", "file"), ("a-2", "openvino", "file"),
    ]  # fmt: skip
    assert {path: path.read_bytes() for path in files} == before
    assert [model.macs for model in result.models] == [4608 + 18432 + 512 + 320, None]
    with pytest.raises(InputError, match="runtimes must hold one that runs .*a.onnx': onnx, open"):
        bench(files, QUICK)


@pytest.mark.slow
def test_a_file_is_compared_with_a_model_in_any_format(
    models: list[Path], tmp_path: Path, small_cnn: Callable[..., Any]
) -> None:
    """What format a file holds is not known: its ratio is never against itself alone."""
    export_litert(small_cnn(), tmp_path / "a.tflite", "dynamic")
    plan = replace(QUICK, formats=("float32", "dynamic"), compare=("wide", "a"))
    result = bench([*models, tmp_path / "a.tflite"], plan)
    against = {(row.model, row.format): row.latency.baseline for row in result.timed}
    assert against == {
        ("wide", "float32"): "wide litert float32 1",
        ("wide", "dynamic"): "wide litert dynamic 1",
        ("small", "float32"): "wide litert float32 1",
        ("small", "dynamic"): "wide litert dynamic 1",
        ("a", "file"): "wide litert float32 1",
    }
    (told,) = result.verdicts()
    assert told.startswith("litert file, 1 thread against float32: ")
    assert "a: litert file, 1 thread against float32 of wide." in result.conditions()
    # the file first: everything is against it
    turned = bench([tmp_path / "a.tflite", models[0]], replace(plan, compare=()))
    assert {row.latency.baseline for row in turned.timed} == {"a litert file 1"}


def test_a_missing_runtime_is_skipped_with_its_install_line(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> str:
        raise MissingDependency("OpenVINO must be installed: pip install 'paretune[openvino]'")

    monkeypatch.setattr(RUNTIMES["openvino"], "describe", missing)
    result = bench(models[1:], replace(QUICK, runtimes=("litert", "openvino")))
    assert [row.runtime for row in result.timed] == ["litert"]
    assert "pip install 'paretune[openvino]'" in result.skipped[0].reason
    with pytest.raises(InputError, match="must have something to time. Received: OpenVINO"):
        bench(models[1:], replace(QUICK, runtimes=("openvino",)))


def test_open_sizes_need_a_shape(tmp_path: Path) -> None:
    import keras

    open_size = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="c")(open_size)
    model = keras.Model(open_size, keras.layers.GlobalAveragePooling2D()(x), name="open")
    model.save(tmp_path / "open.keras")
    with pytest.raises(InputError, match="known input size to be timed.*Give --input-shape"):
        bench([tmp_path / "open.keras"], QUICK)
    with pytest.raises(InputError, match=r"input_shape must agree .*\(None, None, 3\)"):
        bench([tmp_path / "open.keras"], replace(QUICK, input_shape="16,16,4"))
    result = bench([tmp_path / "open.keras"], replace(QUICK, input_shape="16,12,3"))
    assert result.models[0].macs == 16 * 12 * 27 * 4
    assert count_macs(fix_input_shape(model, (16, 12, 3))).macs == 16 * 12 * 27 * 4


def test_bad_files_and_names(models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"LiteRT must be able to run .*bad.tflite"):
        bench([tmp_path / "bad.tflite"], QUICK)
    with pytest.raises(InputError, match="at least one model"):
        bench([])
    with pytest.raises(InputError, match="compare must name models of this bench: wide, small"):
        bench(models, replace(QUICK, compare=("wide", "tiny")))
    twice = tmp_path / "b" / "wide.keras"
    twice.parent.mkdir()
    twice.write_bytes(models[0].read_bytes())
    assert [item.name for item in collect_models([models[0], twice])] == ["wide", "wide-2"]


def timed(name: str, ratio: float, low: float, high: float) -> Timing:
    latency = Latency(
        1.0,
        1.0,
        1.0,
        1.0,
        1.0,
        ratio,
        low,
        high,
        "base",
        40,
        20,
        240,
        1,
        "CPU",
        "R 1",
        "budget",
        (),
    )
    return Timing(name, "litert", "float32", 1, latency)


def test_verdicts_by_hand() -> None:
    base = timed("a", 1.0, 1.0, 1.0)
    assert (
        describe_speedup(base, timed("b", 2.31, 2.27, 2.35))
        == "b is 2.31x faster than a [2.27, 2.35]"
    )
    assert (
        describe_speedup(base, timed("b", 0.5, 0.4, 0.625))
        == "b is 2.00x slower than a [1.60, 2.50]"
    )
    same = describe_speedup(base, timed("b", 1.01, 0.99, 1.03))
    assert same == "no difference between b and a that this run can detect (1.01x [0.99, 1.03])"


def test_zeros_are_told_as_a_share_of_everything() -> None:
    models = (
        BenchModel("dense", Path("dense.keras"), 10, 1000, (), 999),
        BenchModel("0005-p80", Path("0005-p80.keras"), 10, 1000, (), 870),
    )
    rows = tuple(timed(model.name, 1.0, 1.0, 1.0) for model in models)
    result = BenchResult(models, rows, (), BenchPlan())
    text = str(result)
    assert "0005-p80: 13 % of all parameters are zero" in text
    assert "dense: " not in text
    assert [item["nonzero"] for item in result.to_json()["models"]] == [999, 870]


def test_verdicts_on_ranges_say_that_they_are_none_of_intervals() -> None:
    def short(*given: float) -> Timing:
        row = timed("b", *given)
        return replace(row, latency=replace(row.latency, rounds=9, instances=5, spread="range"))

    base = timed("a", 1.0, 1.0, 1.0)
    told = describe_speedup(base, short(2.31, 2.27, 2.35))
    assert told == "b is 2.31x faster than a [range 2.27 to 2.35]"
    told = describe_speedup(base, short(0.5, 0.4, 0.625))
    assert told == "b is 2.00x slower than a [range 1.60 to 2.50]"
    told = describe_speedup(base, short(1.01, 0.99, 1.03))
    assert told.endswith("can detect (1.01x [range 0.99 to 1.03])")
    result = BenchResult((), (short(2.0, 1.9, 2.1),), (), BenchPlan())
    assert "median and range of 9 rounds, 5 instances a file" in result.conditions()
    assert result.to_json()["timed"][0]["latency"]["spread"] == "range"


def test_the_first_to_be_compared_is_the_baseline(models: list[Path]) -> None:
    result = bench(models, replace(QUICK, compare=("small", "wide")))
    assert {row.latency.baseline for row in result.timed} == {"small litert float32 1"}
    assert "wide is" in result.verdicts()[0]
    assert "x slower than small" in result.verdicts()[0]
    # one model alone: against its first configuration
    alone = bench(models[:1], replace(QUICK, threads=("1", "2")))
    assert {row.latency.baseline for row in alone.timed} == {"wide litert float32 1"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threads": ("0",)}, "threads must be at least 1. Received: 0"),
        ({"threads": ("two",)}, "threads must be an integer, like .* Received: 'two'"),
        ({"runtimes": ("tensorrt",)}, "Unknown runtime 'tensorrt'"),
        ({"formats": ("int4",)}, "Unknown format 'int4'"),
        ({"precision": 0.0}, "precision must be above 0"),
        ({"input_shape": "a,b"}, "input_shape must be sizes with commas"),
        ({"compare": ("a",)}, "compare must name two models. Received: a"),
    ],
)
def test_bad_plans(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchPlan(**given)


def test_a_model_too_large_to_run_is_refused_before_it_is_converted(tmp_path: Path) -> None:
    """10^6 x 10^6 pixels: runtimes crash over them, or take all memory."""
    import keras

    x = inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 1)(x))
    keras.Model(inputs, x, name="open").save(tmp_path / "m.keras")
    with pytest.raises(
        InputError, match=r"An input of shape \(1000000, 1000000, 3\), float32, must fit"
    ):
        bench([tmp_path / "m.keras"], BenchPlan(input_shape="1000000,1000000,3"))
    with pytest.raises(InputError, match="input_shape must be at most 2,147,483,647"):
        BenchPlan(input_shape=f"{10**30},1,3")
    x = keras.layers.UpSampling2D(10**6)(keras.Input((1, 1, 3)))
    keras.Model(x._keras_history.operation.input, x, name="grows").save(tmp_path / "m.keras")
    with pytest.raises(InputError, match="largest tensor of model 'grows', float32, must fit"):
        bench([tmp_path / "m.keras"])


def test_nothing_is_left_of_a_bench_that_fails(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"no model")
    with pytest.raises(InputError):
        bench([tmp_path / "m.tflite"], BenchPlan(out=str(tmp_path / "new" / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]
