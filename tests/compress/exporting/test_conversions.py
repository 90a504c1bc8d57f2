"""Converters that crash, hang or refuse cost one format, and say so in one line."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import export
from compress.core.errors import MissingDependency, RunFailed
from compress.core.faults import SPACE, find_fault
from compress.core.processes import ServerProcess
from compress.data import Dataset
from compress.exporting import conversions, converter
from compress.exporting.conversions import ConversionFailed, convert
from compress.exporting.litert import export_litert
from compress.plan import ExportOptions
from tests.compress.core.test_processes import gone, wait_for_end


@pytest.fixture
def lstm() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 4))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.LSTM(5)(inputs))
    return keras.Model(inputs, outputs, name="tiny_lstm")


@pytest.fixture
def sequences() -> Dataset:
    from compress.data import Preprocessing, Split

    rng = np.random.default_rng(0)

    def part(count: int) -> Split:
        return Split(rng.normal(size=(count, 8, 4)).astype(np.float32), np.arange(count) % 3)

    return Dataset("sequences", part(30), part(12), part(12), ("a", "b", "c"), Preprocessing())


def test_int16x8_of_an_lstm_crashes_the_converter_alone(
    lstm: Any, sequences: Dataset, tmp_path: Path
) -> None:
    """LiteRT's converter dies of SIGSEGV on it, which took the whole process with it."""
    options = ExportOptions(formats=("int16x8", "float32"))
    refused: dict[str, str] = {}
    made = export(
        lstm, tmp_path / "m", data=sequences, options=options, on_refusal=refused.__setitem__
    )
    assert [item.format for item in made] == ["float32"]
    assert made[0].max_difference < 1e-5
    line = (
        "LiteRT's converter crashed on model 'tiny_lstm' (int16x8): segmentation fault (signal 11)"
    )
    assert refused == {"int16x8": line}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.float32.tflite", "m.json"]
    with pytest.raises(RunFailed) as caught:
        export(lstm, tmp_path / "n", data=sequences, options=options)
    assert str(caught.value) == line
    assert (tmp_path / "n.float32.tflite").exists()


# what a converter may do, run in a process of its own by `served`
def steps(tmp: Path) -> dict[str, Callable[..., None]]:
    def abort() -> None:
        os.write(2, b"\nassertion failed: \xff\n")
        os.kill(os.getpid(), signal.SIGABRT)

    def missing() -> None:
        raise MissingDependency("something must be installed")

    def pid() -> None:
        with (tmp / "pids").open("a") as log:
            log.write(f"{os.getpid()} ")

    def refuse() -> None:
        os.write(2, b"said by C++\n")
        raise Exception

    def hang() -> None:
        time.sleep(1000)

    def fill() -> None:
        Path("/dev/full").write_bytes(b"a file")

    return {
        "abort": abort, "missing": missing, "pid": pid, "refuse": refuse, "hang": hang, "fill": fill
    }  # fmt: skip


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lets this process's converter be a fork that knows `steps` alone; gives their folder."""
    monkeypatch.setattr(conversions, "CLIENT", conversions.ConverterClient())
    monkeypatch.setattr(converter, "STEPS", steps(tmp_path))
    conversions.CLIENT.keep(ServerProcess.start_fork(converter.serve))
    yield tmp_path
    conversions.CLIENT.close()


def pids(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "pids").read_text().split()]


def test_a_crash_is_followed_by_a_fresh_fork(served: Path) -> None:
    convert("pid")
    convert("pid")
    with pytest.raises(ConversionFailed) as caught:
        convert("abort")
    assert caught.value.verb == "crashed on"
    assert caught.value.reason == "aborted (signal 6); its last words: assertion failed: \ufffd"
    convert("pid")
    first, again, fresh = pids(served)
    assert first == again
    assert fresh != first
    with pytest.raises(ConversionFailed) as caught:
        convert("refuse")
    assert (caught.value.verb, caught.value.reason) == ("refused", "said by C++")
    with pytest.raises(MissingDependency, match="something must be installed"):
        convert("missing")


def test_a_full_disk_is_no_refusal(served: Path) -> None:
    """No format is given up for it: the run ends, and its next start converts again."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        convert("fill")
    fault = find_fault(caught.value)
    assert fault is not None
    assert fault.kind == SPACE


def test_memory_comes_back(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some conversions a fresh fork continues."""
    for _ in range(converter.CONVERSIONS + 1):
        convert("pid")
    found = pids(served)
    assert len(set(found)) == 2
    assert len(set(found[:-1])) == 1


def test_a_hang_is_ended(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert("pid")  # by the same fork, before its time is short
    monkeypatch.setattr(conversions, "HANG_SECONDS", 0.3)
    with pytest.raises(ConversionFailed) as caught:
        convert("hang")
    assert caught.value.verb == "hung on"
    assert caught.value.reason == "it did not end within 0.3 s and was stopped"
    wait_for_end(pids(served)[0])


def test_one_that_was_killed_while_idle_is_started_again(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = conversions.CLIENT._server
    assert server is not None
    convert("pid")
    os.kill(server.pid, signal.SIGKILL)
    wait_for_end(server.pid)
    # in place of another Python that imports TensorFlow
    monkeypatch.setattr(
        ServerProcess, "start", lambda *_, **__: ServerProcess.start_fork(converter.serve)
    )
    convert("pid")
    first, second = pids(served)
    wait_for_end(first)
    assert not gone(second)


@pytest.mark.slow
def test_the_reason_of_a_crash_reaches_the_record_and_the_report(
    lstm: Any, sequences: Dataset, tmp_path: Path, cpu: Any
) -> None:
    """The other formats go on; what is missing is told, and nothing refers to it."""
    from compress.plan import DistillOptions, Plan, TrainSettings
    from compress.report import render_report
    from compress.run.directory import RunFolder
    from compress.shrinking.compression import compress_stage
    from compress.shrinking.compression_job import RunContext, prepare_job

    plan = Plan(
        finetune=TrainSettings(epochs=1, batch_size=8),
        distill=DistillOptions(teacher="none"),
        export=ExportOptions(formats=("int16x8", "float32"), calibration=8),
    )
    folder = RunFolder(tmp_path / "run")
    folder.claim("compress", plan)
    from compress.run.origin import write_data_record

    write_data_record(folder, sequences)
    work = RunContext(sequences, plan, cpu)
    record = compress_stage(prepare_job(lstm, Path("m.keras"), work), folder, "paretune")
    made = record.artifacts
    assert [item.format for item in made] == ["float32", "float32"]
    assert {item.baseline for item in made} == {"m.float32"}
    crash = "was not made: LiteRT's converter crashed on model 'tiny_lstm' (int16x8): segmentation"
    assert [f"m.int16x8 {crash}" in note for note in record.notes] == [True, False]
    assert f"m-p80.int16x8 {crash}" in record.notes[1]
    render_report(folder.path)
    page = (folder.path / "report.html").read_text("utf-8")
    assert "m.int16x8 was not made: LiteRT&#39;s converter crashed on model" in page


def test_a_model_without_any_file_is_an_error(lstm: Any, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"crashed on model 'tiny_lstm' \(int8\)"):
        export_litert(
            lstm, tmp_path / "m.tflite", "int8", representative=[np.zeros((2, 8, 4), np.float32)]
        )
    assert list(tmp_path.iterdir()) == []
