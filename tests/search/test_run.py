"""Whole runs through the command line, in processes of their own: kill, resume, extend."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from compress.core.atomic_files import list_complete_files
from search.cli._console import RESUME_HINT
from tests.patience import PATIENCE, wait_for

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "from search.cli import main; main()"]
QUICK = ["--epochs", "2", "--finetune-epochs", "2", "--latency-budget", "1", "--formats", "float32"]


def paretune(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, env=environment(), capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start(*words: object, cwd: Path) -> subprocess.Popen[str]:
    """Starts the command in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)], cwd=cwd, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        # tests that run in a shell's background inherit that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the records of candidates, without those that stand for trials tried again."""
    found = list_complete_files(folder / "candidates", ".json")
    contents = {path.stem: json.loads(path.read_text()) for path in found}
    return {name: item for name, item in contents.items() if item["state"] != "lost"}


def study(folder: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = JournalFileBackend(str(folder / "study.journal"))
    return optuna.load_study(study_name="paretune", storage=JournalStorage(backend))


def trained(folder: Path) -> list[str]:
    untrained = ("rejected", "duplicate")
    return [name for name, item in records(folder).items() if item["state"] not in untrained]


@pytest.mark.slow
def test_search_compress_report_and_extension(tmp_path: Path) -> None:
    how = ("--space", "mlp", "--workers", 1, *QUICK, "--out", "r,s")
    done = paretune("run", "--trials", 2, *how, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "r,s"
    report = json.loads((folder / "report.json").read_text())
    assert len(report["candidates"]) == 2
    compressed = {item["model"] for item in report["compressed"]}
    assert compressed == set(report["front"])
    assert {row["variant"] for row in report["files"]} == {"dense", "pruned"}
    for row in report["files"]:
        assert (folder / row["file"]).exists()
        assert row["latency"]["median_ms"] > 0
    for name in ("report.html", "candidates.csv", "pareto.png", "log.txt", "plan.json"):
        assert (folder / name).stat().st_size > 0
    log = (folder / "log.txt").read_text().splitlines()
    assert "runs on CPU" in log[0]
    for step in ("1 define the space", "2 sample with pareto; 3 train", "4 update", "5 repeat"):
        assert any(step in line for line in log), step
    assert "faster" in done.stdout

    # the report is made again from the folder alone
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    (folder / "study.journal").rename(folder / "elsewhere")
    assert paretune("report", "r,s", cwd=tmp_path).returncode == 0
    assert (folder / "report.html").read_bytes() == before
    (folder / "elsewhere").rename(folder / "study.journal")

    # one more trial: the first two stay as they are
    old = records(folder)
    more = paretune("run", "--trials", 3, *how, cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert len(records(folder)) == 3
    assert {name: records(folder)[name] for name in old} == old

    # another plan in the same folder is refused, and nothing changes
    listing = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    other = paretune("run", "--trials", 3, *how, "--seed", 9, cwd=tmp_path)
    assert other.returncode == 2
    assert "seed was 0, now 9" in other.stderr
    assert listing == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    # the commands that the report shows repeat a candidate and its compression exactly
    name = report["front"][-1]
    words = shlex.split(report["shown"]["replay"].replace("{id}", name))
    replay = paretune(*words[1:], "--out", "again", cwd=tmp_path)
    assert replay.returncode == 0, replay.stderr
    again, first = records(tmp_path / "again")["0000"], old[name]
    for key in ("choices", "seed", "macs", "val", "best_epoch"):
        assert again[key] == first[key], key
    assert [e["loss"] for e in again["history"]] == [e["loss"] for e in first["history"]]
    (item,) = (item for item in report["compressed"] if item["model"] == name)
    # whether half of these networks' MACs gain time hangs on the machine; its notes tell
    (told,) = (note for note in item["notes"] if "channels are removed" in note)
    left = told.startswith("channels are removed until half of the MACs remain")
    assert left or told.startswith(
        "no channels are removed, because that would save hardly any time"
    )
    assert item["compressed"] == f"{name}-{'c0_5x-p60' if left else 'p80'}"
    rows = {(row["model"], row["variant"]): row for row in report["files"]}
    share = rows[name, "pruned"]["macs"] / rows[name, "dense"]["macs"]
    assert share == pytest.approx(0.5 if left else 1, rel=0.02)  # channels are removed in fours
    command = item["command"]
    assert ("--channels 0.5x" in command) == left
    redone = paretune(*shlex.split(command)[1:], "--out", "redone", cwd=tmp_path)
    assert redone.returncode == 0, redone.stderr
    file = f"exports/{item['compressed']}.float32.tflite"
    assert (tmp_path / "redone" / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_trial(tmp_path: Path) -> None:
    """Kill -9 to the run's process alone, twice: workers end too, and nothing is lost."""
    words = ("run", "--space", "mlp", "--trials", 5, *QUICK[2:], "--epochs", 8, "--out", "r")
    folder = tmp_path / "r"
    for target in (1, 3):
        process = start(*words, cwd=tmp_path)
        wait_for(lambda target=target: len(trained(folder)) >= target)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    before = records(folder)
    assert 3 <= len(before) < 5
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = records(folder)
    assert {name: after[name] for name in before} == before
    assert len(trained(folder)) == 5
    states = Counter(trial.state for trial in study(folder).trials)
    assert states[TrialState.RUNNING] == states[TrialState.WAITING] == 0
    complete = [t.number for t in study(folder).trials if t.state == TrialState.COMPLETE]
    assert sorted(f"{number:04d}" for number in complete) == sorted(
        name for name, item in after.items() if item["state"] == "complete"
    )
    report = json.loads((folder / "report.json").read_text())
    assert len(report["candidates"]) == len(after)
    assert {item["model"] for item in report["compressed"]} == set(report["front"])
    # every interrupted trial was tried again with its choices, once
    retries = [t.user_attrs["retry_of"] for t in study(folder).trials if "retry_of" in t.user_attrs]
    assert len(retries) == len(set(retries))
    assert "will run again" in (folder / "log.txt").read_text()


@pytest.mark.slow
def test_a_killed_workers_trial_is_tried_again(tmp_path: Path) -> None:
    words = ("search", "--trials", 3, "--epochs", 6, "--workers", 1, "--out", "r")
    folder = tmp_path / "r"
    process = start(*words, cwd=tmp_path)

    def held_in_the_middle() -> bool:
        """Stops the worker and its fork; true where a trial is in their hands, unfinished."""
        if not (folder / "study.journal").exists() or not trained(folder):
            return False
        worker = subprocess.run(
            ["pgrep", "-P", str(process.pid)], check=True, capture_output=True, text=True
        ).stdout.split()
        os.killpg(int(worker[0]), signal.SIGSTOP)
        done = records(folder)
        if any(
            # it has been told of (choices are made behind that) and has not ended
            trial.state == TrialState.RUNNING and trial.params and f"{trial.number:04d}" not in done
            for trial in study(folder).trials
        ):
            return True
        os.killpg(int(worker[0]), signal.SIGCONT)
        return False

    wait_for(held_in_the_middle)
    subprocess.run(["pkill", "-9", "-P", str(process.pid)], check=True)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    items = records(folder).values()
    assert all(item["state"] in ("complete", "stopped") for item in items)
    assert len(trained(folder)) == 3
    assert "worker died (signal SIGKILL); it runs again as " in (folder / "log.txt").read_text()


@pytest.mark.slow
def test_ctrl_c_stops_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = ("search", "--trials", 50, "--epochs", 8, "--workers", 1, "--out", "r")
    process = start(*words, cwd=tmp_path)
    wait_for(lambda: len(trained(tmp_path / "r")) >= 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert f"interrupted. {RESUME_HINT}" in output
    assert "Traceback" not in output
    alive = subprocess.run(["pgrep", "-f", f"search.engines.worker.*{tmp_path}"], check=False)
    assert alive.returncode == 1


@pytest.mark.slow
def test_limits_that_nothing_meets_are_said_before_the_first_trial(tmp_path: Path) -> None:
    done = paretune("search", "--trials", 1, "--max-macs", 100, "--out", "r", cwd=tmp_path)
    assert done.returncode == 2
    assert "max_macs must be at least what the smallest candidate of space 'cnn'" in done.stderr
    assert "Received: 100" in done.stderr
    assert not (tmp_path / "r").exists()


SPACE = """
import time
import keras

def build(trial, data):
    units = trial.suggest_int("units", 1, 64)
    kind = ("good", "raises", "wrong", "endless")[trial.number % 4]
    if kind == "raises":
        raise RuntimeError("no such network")
    while kind == "endless":
        time.sleep(1)
    inputs = keras.Input(data.input_shape)
    x = keras.layers.Dense(units, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(3 if kind == "wrong" else 10)(x))
"""


@pytest.mark.slow
def test_the_users_space_may_fail_in_every_way(tmp_path: Path) -> None:
    """It raises, makes a model with a wrong output, never returns: the search continues."""
    (tmp_path / "own.py").write_text(SPACE)
    done = paretune(
        "search", "--space", "own:build", "--trials", 5, "--epochs", 2, "--workers", 1,
        "--trial-minutes", 0.25, "--stopping", "none", "--out", "r", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    items = records(tmp_path / "r")
    assert [items[f"{number:04d}"]["state"] for number in range(5)] == [
        "complete", "failed", "failed", "failed", "complete",
    ]  # fmt: skip
    assert items["0001"]["reason"] == "RuntimeError: no such network"
    assert "3" in items["0002"]["reason"]
    assert "10" in items["0002"]["reason"]
    assert items["0003"]["reason"] == "ended at its time limit of 15 s"


@pytest.mark.slow
def test_one_worker_repeats_a_search_exactly(tmp_path: Path) -> None:
    words = ("search", "--trials", 4, "--epochs", 3, "--workers", 1, "--threads", 1)
    found = []
    for name in ("a", "b"):
        done = paretune(*words, "--out", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        timed = ("seconds", "history", "ended")
        found.append([
            {key: value for key, value in item.items() if key not in timed}
            | {"losses": [epoch["loss"] for epoch in item["history"]]}
            for _, item in sorted(records(tmp_path / name).items())
        ])  # fmt: skip
    assert found[0] == found[1]
    assert len(found[0]) >= 4
