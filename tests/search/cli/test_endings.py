"""How commands end that are stopped from outside: in order, with a word on how to resume."""

from __future__ import annotations

import errno
import signal
from functools import partial
from pathlib import Path

import pytest
import typer

from compress.core.credentials import hidden
from search.cli._console import reporting_errors
from tests.search.engines.test_faults import processes
from tests.search.test_run import paretune, records, start, wait_for

RESUME = "The same command continues."


def test_sigterm_ends_a_search_with_its_workers_and_the_same_command_resumes(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "r"
    words = ("search", "--data", "digits", "--space", "mlp", "--trials", 4, "--epochs", 2,
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
    with pytest.raises(typer.Exit) as caught, reporting_errors(RESUME):
        raise error
    assert caught.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.startswith("paretune: error: The machine failed: ")
    assert "No space left on device" in said
    assert said.endswith(f"Fix that, then resume. {RESUME}\n")
    assert said.count("\n") == 1


def test_other_errors_of_code_are_no_faults_of_the_machine() -> None:
    with pytest.raises(RuntimeError, match="a bug"), reporting_errors(RESUME):
        raise RuntimeError("a bug")


def test_sigterm_means_what_it_meant_after_a_command() -> None:
    with reporting_errors(RESUME):
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
    assert hidden(text) == shown
