"""Ends of commands that are stopped, or that the machine fails: in order, and resumable."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import typer

from compress.core.credentials import hide_passwords
from search.cli._console import report_errors
from search.engines.pool import KILLED_STARTS
from tests.search.engines.test_faults import processes
from tests.search.test_run import paretune, records, start, wait_for

RESUME = "The same command continues."
REMEDY = "Fix that, then give the same command: what was in progress is tried again."


@pytest.mark.slow
def test_sigterm_ends_a_search_with_its_workers_and_the_same_command_resumes(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "r"
    words = ("search", "--data", "digits", "--space", "mlp", "--trials", 3, "--epochs", 1,
             "--workers", 1, "--stopping", "none", "--out", folder)  # fmt: skip
    process = start(*words, cwd=tmp_path)
    wait_for(partial(_has_one, folder))
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 143, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("paretune: terminated by SIGTERM. The same command continues")
    assert not processes(f"search.engines.worker {folder} ")
    before = records(folder)
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = records(folder)
    assert {name: after[name] for name in before} == before


def _has_one(folder: Path) -> bool:
    return bool(records(folder))


@pytest.mark.matrix
def test_a_disk_that_fills_up_ends_a_search_that_the_same_command_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "r"

    def search(trials: int) -> subprocess.CompletedProcess[str]:
        return paretune(
            "search", "--data", "digits", "--space", "mlp", "--trials", trials, "--epochs", 1,
            "--workers", 1, "--out", folder, cwd=tmp_path,
        )  # fmt: skip

    assert search(1).returncode == 0
    before, log = records(folder), folder / "log.txt"
    log.rename(tmp_path / "log.txt")
    log.symlink_to("/dev/full")  # every write to it fails as on a full disk
    full = search(2)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("paretune: error: The machine failed: ")
    assert "No space left on device" in last
    assert last.endswith(REMEDY)
    assert records(folder) == before
    assert not processes(f"search.engines.worker {folder} ")
    log.unlink()
    done = search(2)
    assert done.returncode == 0, done.stderr
    after = records(folder)
    assert len(after) == 2
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("kills", [pytest.param(1, marks=pytest.mark.matrix), 100])
def test_a_worker_that_is_killed_while_it_starts_is_replaced_some_times(
    kills: int, tmp_path: Path
) -> None:
    folder, killed = tmp_path / "r", set[int]()
    process = start("search", "--data", "digits", "--space", "mlp", "--trials", 1, "--epochs", 1,
                    "--workers", 1, "--out", folder, cwd=tmp_path)  # fmt: skip

    def kill_workers() -> bool:
        for number in processes(f"search.engines.worker {folder} "):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            killed.add(number)
        return process.poll() is not None or len(killed) >= kills

    wait_for(kill_workers, "workers to start")
    said, _ = process.communicate()
    assert "Traceback" not in said
    assert not processes(f"search.engines.worker {folder} ")
    if kills == 1:
        assert process.returncode == 0, said
        assert len(records(folder)) == 1
    else:
        assert process.returncode == 1
        assert len(killed) == 1 + KILLED_STARTS
        assert said.strip().splitlines()[-1] == (
            "paretune: error: A worker process could not start (signal SIGKILL). If memory ran "
            f"out, give fewer --workers. See '{folder / 'workers.log'}'."
        )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "net.keras"),
        RuntimeError("Unable to write (errno = 28, error message = 'No space left on device')"),
    ],
)
def test_a_full_disk_says_how_to_resume(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, report_errors(RESUME):
        raise error
    assert caught.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.startswith("paretune: error: The machine failed: ")
    assert "No space left on device" in said
    assert said.endswith(f"{REMEDY}\n")
    assert said.count("\n") == 1


def test_other_errors_of_code_are_no_faults_of_the_machine() -> None:
    with pytest.raises(RuntimeError, match="a bug"), report_errors(RESUME):
        raise RuntimeError("a bug")


def test_sigterm_means_what_it_meant_after_a_command() -> None:
    with report_errors(RESUME):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Received: 'me:secret@host:10001'.", "Received: 'me@host:10001'."),
        ("me:se:cret@10.0.0.1:1", "me@10.0.0.1:1"),
        ("ray://me:secret@host:1", "ray://me@host:1"),
        ("temperature 8:2@20% and 0:0.7@20%", "temperature 8:2@20% and 0:0.7@20%"),
        ("h:1", "h:1"),
    ],
)
def test_a_password_without_a_scheme_is_not_shown(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown
