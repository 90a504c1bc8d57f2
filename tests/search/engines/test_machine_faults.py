"""No space, no files, no memory: the machine's fault is not told as a candidate's."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from compress.core.errors import InputError, RunFailed
from compress.core.faults import MEMORY, SPACE, convert_faults, find_fault
from compress.plan.nesting import from_flat
from compress.run.directory import LOG
from search.engines import KILLED, Display
from search.engines.jobs import SearchJobs
from search.plan import SearchPlan
from search.study import study as studies
from search.study.directory import Candidate, SearchFolder
from search.study.objective import get_trial_seed
from search.study.study import ask_trial
from tests.search.test_run import paretune, records, study


def chained(outer: Exception, inner: Exception) -> Exception:
    try:
        raise outer from inner
    except Exception as error:
        return error


class ResourceExhaustedError(Exception):
    """Called as TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/0000.keras"), SPACE),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), SPACE),
        (OSError(errno.EMFILE, "Too many open files"), SPACE),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY),
        # HDF5's has no number
        (
            OSError("Can't write data (errno = 28, error message = 'No space left on device')"),
            SPACE,
        ),
        (RuntimeError("can't start new thread"), SPACE),
        (MemoryError(), MEMORY),
        (ResourceExhaustedError("OOM when allocating tensor"), MEMORY),
        (chained(ValueError("could not save"), OSError(errno.ENOSPC, "full")), SPACE),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (ValueError("no such network"), None),
        (InputError("epochs must be at least 1. Received: 0."), None),
    ],
)
def test_whose_fault_it_is(error: Exception, kind: str | None) -> None:
    found = find_fault(error)
    assert (found and found.kind) == kind


def test_an_error_that_was_handled_before_is_no_cause() -> None:
    def broken() -> None:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise ValueError("broken") from None

    with pytest.raises(ValueError, match="broken") as caught:
        broken()
    assert find_fault(caught.value) is None


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    made.claim("run", SearchPlan())
    return made


def complete(trial: Any) -> Candidate:
    return Candidate(f"{trial.number:04d}", "complete", trial.params, 1, macs=9, params=1,
                     val={"accuracy": 0.5})  # fmt: skip


class Pool:
    """Gives jobs out and brings them back, as the pool and its workers do."""

    def __init__(self, folder: SearchFolder, trials: int) -> None:
        self.plan = from_flat(SearchPlan, {"trials": trials, "sampler": "random"})
        self.folder, self.study = folder, studies.open_study(folder, self.plan)
        self.jobs = SearchJobs(folder, self.plan, self.study, Display())

    def begin(self) -> tuple[dict[str, Any], Any] | None:
        job = self.jobs.take_job()
        if job is None:
            return None
        trial = ask_trial(self.study, self.plan, job.get("number"))
        trial.set_user_attr("seed", get_trial_seed(self.plan, trial))
        trial.suggest_float("x", 0.0, 1.0)
        return job, trial

    def end(self, job: dict[str, Any], trial: Any) -> None:
        done = complete(trial)
        self.folder.write_candidate(done)
        self.jobs.on_done(0, job, {"kind": "done", "candidate": done.to_json()})

    def fail(self, job: dict[str, Any], trial: Any, killed: bool = False) -> None:
        seed = trial.user_attrs["seed"]
        if killed:
            self.jobs.on_death(0, job, {"number": trial.number, "seed": seed}, KILLED)
        else:
            fault = {"fault": "MemoryError: ", "number": trial.number, "seed": seed}
            self.jobs.on_done(0, job, {"kind": "done", **fault})


def test_the_run_s_process_ends_trials(folder: SearchFolder) -> None:
    """Workers begin trials and write records: one process tells of them, from the records."""
    pool = Pool(folder, 3)
    first, second, third = pool.begin(), pool.begin(), pool.begin()
    assert first is not None
    assert second is not None
    assert third is not None
    pool.end(*first)
    # killed behind its record, before it could say so
    job, trial = second
    folder.write_candidate(complete(trial))
    pool.jobs.on_death(1, job, {"number": trial.number, "seed": 1}, KILLED)
    # so was the run's process: the next start finds the record
    folder.write_candidate(complete(third[1]))
    states = [item.state.name for item in pool.study.trials]
    assert states == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert studies.close_orphans(pool.study, folder, pool.plan) == 0
    assert [item.values for item in pool.study.trials] == [[0.5, 9.0]] * 3


@pytest.mark.parametrize("killed", [True, False])
def test_a_trial_without_memory_runs_again_alone(folder: SearchFolder, killed: bool) -> None:
    pool = Pool(folder, 3)
    first, second = pool.begin(), pool.begin()
    assert first is not None
    assert second is not None
    pool.fail(*first, killed=killed)
    assert folder.read_candidates() == []
    # the other one is still running: nothing is given out beside it, then the trial alone
    assert pool.begin() is None
    pool.end(*second)
    again = pool.begin()
    assert again is not None
    assert again[1].number == again[0]["number"] == 2
    assert again[1].params == first[1].params
    assert again[1].user_attrs["seed"] == first[1].user_attrs["seed"]
    assert pool.begin() is None, "it runs alone"
    pool.end(*again)
    last = pool.begin()
    assert last is not None
    pool.end(*last)
    assert pool.begin() is None
    assert pool.jobs.stop_reason == "3 trials"
    assert [item.state for item in folder.read_candidates()] == ["complete"] * 3


def test_what_is_too_big_alone_fails_in_the_end(folder: SearchFolder) -> None:
    pool = Pool(folder, 1)
    for _ in range(3):
        given = pool.begin()
        assert given is not None
        pool.fail(*given)
    (failed,) = folder.read_candidates()
    assert failed.state == "failed"
    assert "MemoryError: , 3 times; it seems to need more memory than there is" in failed.reason
    assert pool.begin() is None
    assert [trial.state for trial in pool.study.trials] == [TrialState.FAIL] * 3


def test_tries_are_counted_over_interruptions(folder: SearchFolder) -> None:
    pool = Pool(folder, 1)
    for _ in range(2):
        given = pool.begin()
        assert given is not None
        pool.fail(*given)
    assert pool.begin() is not None  # the third try; now the run is killed
    again = Pool(folder, 1)
    studies.close_orphans(again.study, folder, again.plan)
    given = again.begin()
    assert given is not None
    again.fail(*given)
    assert [item.state for item in folder.read_candidates()] == ["failed"]


def test_a_queued_trial_that_is_gone_is_replaced_by_the_next(folder: SearchFolder) -> None:
    pool = Pool(folder, 3)
    pool.study.enqueue_trial({"x": 0.25})
    pool.study.enqueue_trial({"x": 0.75})
    assert ask_trial(pool.study, pool.plan, 1).suggest_float("x", 0, 1) == 0.75
    assert ask_trial(pool.study, pool.plan, 1).suggest_float("x", 0, 1) == 0.25
    assert ask_trial(pool.study, pool.plan, 1).number == 2


def test_a_log_that_cannot_be_written_ends_the_run(folder: SearchFolder) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    folder.log.symlink_to("/dev/full")
    said = "The machine failed: OSError: .*No space left.*give the same command"
    with pytest.raises(RunFailed, match=said), convert_faults(), folder.log_to_file():
        LOG.info("a line")


OWN = """
import errno, pathlib, time
import keras

def fail(what):
    if what == "memory":
        raise MemoryError("unable to allocate")
    raise OSError(errno.ENOSPC, "No space left on device")

def build(trial, data):
    units = trial.suggest_int("units", 1, 64)
    for what in ("memory", "space"):
        flag = pathlib.Path(what)
        if flag.exists():
            flag.unlink()
            fail(what)
    inputs = keras.Input(data.input_shape)
    x = keras.layers.Dense(units, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(10)(x))

baseline = {"units": 7}
"""


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_memory_only_the_try(tmp_path: Path) -> None:
    """In real workers; the baseline meets both."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "space").touch()
    words = ("search", "--space", "own:build", "--trials", 3, "--epochs", 1, "--workers", 1,
             "--stopping", "none", "--out", "r")  # fmt: skip
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("paretune: error: The machine failed (0000): OSError")
    assert "the same command" in last
    assert records(tmp_path / "r") == {}
    (tmp_path / "memory").touch()
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    items = records(tmp_path / "r")
    assert [item["state"] for item in items.values()] == ["complete"] * 3
    assert [item["choices"]["units"] for item in items.values()].count(7) == 1
    assert "will run with nothing beside it" in (tmp_path / "r" / "log.txt").read_text()
    states = [trial.state for trial in study(tmp_path / "r").trials]
    assert states.count(TrialState.COMPLETE) == 3
    assert {TrialState.RUNNING, TrialState.WAITING}.isdisjoint(states)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.matrix
def test_a_disk_that_is_really_full(small_disk: Path, tmp_path: Path) -> None:
    """Filled while the run continues, in the middle of whatever it writes; then emptied."""
    words = ("search", "--space", "mlp", "--trials", 5, "--epochs", 2, "--workers", 2,
             "--stopping", "none", "--out", small_disk / "r")  # fmt: skip
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (2**21 - 250_000))
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr.rpartition("paretune: error:")[2]
    before = records(small_disk / "r")
    assert all(item["state"] == "complete" for item in before.values())
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    items = records(small_disk / "r")
    assert {name: items[name] for name in before} == before
    assert [item["state"] for item in items.values()] == ["complete"] * 5
    choices = [json.dumps(item["choices"], sort_keys=True) for item in items.values()]
    assert len(set(choices)) == 5
    assert (small_disk / "r" / "report.html").exists()
