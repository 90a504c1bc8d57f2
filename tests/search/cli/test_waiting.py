"""The time that is left, Ctrl-C, and TensorFlow's chatter."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress, Task
from typer.testing import CliRunner

from compress.core.module_loading import build_module_environment
from compress.run.directory import LOG
from search.cli import app
from search.cli._console import MAX_SHOWN, RichDisplay, TimeLeft, show_progress
from tests.search.test_run import paretune


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(TimeLeft(), get_time=clock, disable=True)


def left(progress: Progress, place: int = 0) -> float | None:
    return TimeLeft.estimate_seconds(progress.tasks[place])


def shown(task: Task) -> str:
    return TimeLeft().render(task).plain


def test_trials_in_hand_count_by_their_share(progress: Progress, clock: Clock) -> None:
    display = RichDisplay(progress)
    display.start_phase("Searching", 4, 10)
    assert shown(progress.tasks[0]) == ""
    clock.now += 10
    display.update_worker(0, "0004: epoch 1/2", 0.5)
    # half a trial in 10 s: 5.5 are left; the 4 of an earlier start tell nothing
    assert left(progress) == pytest.approx(110)
    assert shown(progress.tasks[0]) == "0:01:50 left"
    clock.now += 10
    display.update_worker(0, "", 0.0)
    display.advance(5, 10)
    assert left(progress) == pytest.approx(100)


def test_a_slow_start_does_not_count_for_the_rest(progress: Progress, clock: Clock) -> None:
    display = RichDisplay(progress)
    display.start_phase("Compressing", 0, 1, is_stepwise=True)
    display.update_worker(0, "fine-tuning", 0.0)
    clock.now += 8  # functions are traced
    for step in range(1, 11):
        clock.now += 0.02
        display.update_worker(0, "fine-tuning", step / 1000)
    # 990 of 1000 steps of 20 ms each, though 8 of 8.2 s went into the first one
    assert left(progress, 1) == pytest.approx(19.8, rel=0.02)
    display.update_worker(0, "fine-tuning", 0.0)
    clock.now += 8
    for step in range(1, 601):
        clock.now += 0.02
        display.update_worker(0, "fine-tuning", step / 1000)
    # 600 of 1000 steps of 20 ms each: 8 s are left, not two thirds of the 20 s so far
    assert left(progress, 1) == pytest.approx(8, rel=0.02)
    for step in range(601, 1001):
        clock.now += 0.1
        display.update_worker(0, "fine-tuning", step / 2000 + 0.3)
    # the last 400 took 40 s for 0.2: 0.2 are left
    assert left(progress, 1) == pytest.approx(40, rel=0.02)


def test_a_share_that_does_not_grow_shows_no_time(progress: Progress, clock: Clock) -> None:
    display = RichDisplay(progress)
    display.start_phase("Compressing", 0, 1, is_stepwise=True)
    for count in range(1, 4):  # nobody knows after how many files it ends
        display.update_worker(0, f"choosing for float32, file {count}", 0.5)
        clock.now += 5
        assert left(progress, 1) is None


def test_of_many_workers_the_first_have_a_bar_and_all_count(progress: Progress) -> None:
    display = RichDisplay(progress)
    display.start_phase("Searching", 0, 100)
    for index in range(MAX_SHOWN + 24):
        display.update_worker(index, "training", 0.5)
    assert len(progress.tasks) == 1 + MAX_SHOWN
    assert progress.tasks[0].completed == pytest.approx((MAX_SHOWN + 24) / 2)


def test_steps_of_a_job_are_not_the_job(progress: Progress, clock: Clock) -> None:
    """All of a step is done, the job is not: there is no time left to be told, least of all 0."""
    display = RichDisplay(progress)
    display.start_phase("Compressing", 0, 2, is_stepwise=True)
    clock.now += 10
    display.update_worker(0, "fine-tuning", 0.5)
    assert left(progress) is None
    assert left(progress, 1) is None  # the step has only just been heard of
    clock.now += 5
    display.update_worker(0, "fine-tuning", 1.0)
    assert shown(progress.tasks[0]) == shown(progress.tasks[1]) == ""
    assert not progress.tasks[0].finished
    display.update_worker(0, "testing m.tflite", 0.0)
    clock.now += 4
    display.update_worker(0, "testing m.tflite", 0.25)
    assert left(progress, 1) == pytest.approx(12)  # of the step: a quarter took 4 s
    clock.now += 1
    display.update_worker(0, "", 0.0)
    display.advance(1, 2)
    assert left(progress) == pytest.approx(20)  # the first of two jobs took 20 s
    clock.now += 15
    assert left(progress) == pytest.approx(5)
    clock.now += 10
    assert left(progress) is None  # it takes longer than the first: nothing is known


@pytest.mark.parametrize(
    ("words", "where", "told"),
    [
        (["run"], "search.pipeline.run", "continues: what is finished is kept, what was in"),
        (["search"], "search.pipeline.run_search", "continues: what is finished is kept"),
        (
            ["bench", "m.keras"],
            "search.cli._console.RichDisplay.start_phase",
            "The same command starts again.",
        ),
        (["inspect", "m.keras"], "compress.model.io.load_model", "starts again."),
        (["report", "r"], "search.report.render", "The same command renders it again."),
    ],
)
def test_ctrl_c_says_what_the_same_command_will_do(
    words: list[str], where: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.keras").touch()
    monkeypatch.setattr(where, interrupted)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 130
    assert done.stderr.strip().startswith("paretune: interrupted. The same command")
    assert told in done.stderr


@pytest.mark.slow
def test_a_compression_that_was_interrupted_goes_on(
    small_cnn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, and does: no epoch that was finished is trained again."""
    monkeypatch.chdir(tmp_path)
    small_cnn().save("m.keras")
    words = ["compress", "m.keras", "--data", "digits", "--normalize", "unit", "--teacher", "none",
             "--finetune-epochs", "3", "--formats", "float32",
             "--latency-budget", "0.1"]  # fmt: skip
    shares: list[float] = []
    real = RichDisplay.update_worker

    def worker(self: RichDisplay, index: int, text: str, share: float) -> None:
        real(self, index, text, share)
        if text.startswith("fine-tuning, validation"):
            shares.append(share)  # within an epoch, too, if it takes long
            if share == pytest.approx(2 / 3):
                raise KeyboardInterrupt

    monkeypatch.setattr(RichDisplay, "update_worker", worker)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 130
    assert "interrupted. The same command continues after the last whole epoch." in done.stderr
    interrupted = len(shares)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert min(shares[interrupted:]) > 2 / 3 - 1e-6
    assert shares[-1] == pytest.approx(1.0)


FAKE = """
import os
os.write(2, b"I0000 chatter from C++\\n")
{end}
"""
IMPORTS = """
import logging
from compress.core.native_output import silence_tensorflow_import
silence_tensorflow_import()
silence_tensorflow_import()
import tensorflow
import sys
print(tensorflow.VALUE, sys.meta_path[0].__class__.__name__)
logging.getLogger("tensorflow").warning("5 out of the last 5 calls triggered retracing")
print("still here", file=sys.stderr)
"""


def imported(folder: Path, end: str) -> subprocess.CompletedProcess[str]:
    """Imports a TensorFlow of our own that chats, then ends as asked."""
    (folder / "tensorflow.py").write_text(FAKE.format(end=end))
    environment = build_module_environment()
    environment["PYTHONPATH"] = f"{folder}:{environment['PYTHONPATH']}"
    return subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, env=environment
    )


def test_what_tensorflow_says_while_it_is_imported_is_kept_out(tmp_path: Path) -> None:
    done = imported(tmp_path, "VALUE = 3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 ")
    assert "_Catch" not in done.stdout
    assert done.stderr == "still here\n"


def test_what_it_said_is_shown_where_its_import_fails(tmp_path: Path) -> None:
    done = imported(tmp_path, 'raise ImportError("no such instruction")')
    assert done.returncode == 1
    assert done.stderr.startswith("I0000 chatter from C++\n")
    assert done.stderr.rstrip().endswith("ImportError: no such instruction")


@pytest.mark.slow
def test_compress_prints_its_own_lines_alone(small_cnn: Callable[..., Any], tmp_path: Path) -> None:
    small_cnn().save(tmp_path / "m.keras")
    done = paretune(
        "compress", "m.keras", "--data", "digits", "--normalize", "unit", "--finetune-epochs", 2,
        "--formats", "float32,int8,onnx", "--latency-budget", 1, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = (
        "runs on CPU",
        "note: m: what model 'm.keras' was trained on is not known",
        "timed 4 files",
    )
    for line, beginning in zip(done.stderr.splitlines(), ours, strict=True):
        assert line.strip().startswith(beginning), done.stderr


def test_a_line_is_printed_once_whatever_libraries_do_to_logging(
    capfd: pytest.CaptureFixture[str],
) -> None:
    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    try:
        with show_progress():
            LOG.info("only once")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capfd.readouterr().err.count("only once") == 1


@pytest.mark.slow
def test_all_that_a_run_says_stands_in_its_log(tmp_path: Path) -> None:
    """TensorFlow, absl and their like say nothing."""
    done = paretune(
        "run", "--space", "mlp", "--trials", 1, "--epochs", 1, "--finetune-epochs", 1, "--workers",
        1, "--formats", "float32,int8", "--latency-budget", 0.1, "--out", "r", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "r" / "log.txt").read_text()
    for line in done.stderr.splitlines():
        assert line in log, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 25
    assert "Report  r/report.html" in lines
    (shipped,) = (line.split()[1] for line in lines if line.startswith("Ship "))
    assert (tmp_path / shipped).is_file()


@pytest.mark.slow
def test_commands_that_only_look_say_nothing(small_cnn: Callable[..., Any], tmp_path: Path) -> None:
    small_cnn().save(tmp_path / "m.keras")
    for words in (
        ("bench", "m.keras", "--budget", 0.1, "--runtimes", "litert,tensorflow,onnx"),
        ("space", "describe", "mlp"),
    ):
        done = paretune(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", words
