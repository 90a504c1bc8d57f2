"""A search is killed at random moments, in part or whole, and continues: nothing lost or twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.search.engines.test_faults import processes
from tests.search.test_run import paretune, records, start, study, wait_for

KILLS = int(os.environ.get("PARETUNE_FUZZ_KILLS", "3"))
TRIALS = 10

pytestmark = pytest.mark.slow


def kill(process: int, group: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process, signal.SIGKILL)


def grown(folder: Path, before: int, process: subprocess.Popen[str]) -> bool:
    """Whether a further trial has ended, or the run."""
    return len(records(folder)) > before or process.poll() is not None


def test_kills_of_the_run_of_a_worker_and_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(11)
    folder = tmp_path / "r"
    words = ("search", "--data", "digits", "--space", "mlp", "--trials", TRIALS, "--epochs", 4,
             "--workers", 2, "--stopping", "none", "--out", folder)  # fmt: skip
    workers = f"search.engines.worker {folder} "
    known: dict[str, object] = {}
    story = []
    for place in range(KILLS):
        victim = ("parent", "worker", "all")[place % 3]
        process = start(*words, cwd=tmp_path)
        if place:  # the first kill may hit workers that still import
            wait_for(partial(grown, folder, len(known), process))
        time.sleep(rng.uniform(0.5, 6.0))
        found = list(processes(workers))
        if victim == "worker" and found:
            kill(rng.choice(found), group=True)
            time.sleep(rng.uniform(0.0, 4.0))
        for worker in found if victim == "all" else ():
            kill(worker, group=True)
        kill(process.pid)
        process.communicate()
        now = records(folder)
        assert {name: now[name] for name in known} == known, "a finished trial was lost or changed"
        known = dict(now)
        story.append(f"{victim}: {len(known)}")
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = records(folder)
    assert {name: after[name] for name in known} == known
    ended = [item for item in after.values() if item["state"] not in ("rejected", "duplicate")]
    assert len(ended) == TRIALS
    # a trial whose worker was killed failed; its choices may have been queued again
    choices = [str(sorted(item["choices"].items())) for item in ended if item["state"] != "failed"]
    assert len(choices) == len(set(choices)), "a trial was done twice"
    complete = [name for name, item in after.items() if item["state"] == "complete"]
    told = [trial for trial in study(folder).trials if trial.state.name == "COMPLETE"]
    assert len(told) == len(complete)
    for name in complete:
        assert (folder / "candidates" / f"{name}.keras").stat().st_size > 0
    assert not [path for path in folder.rglob(".*") if path.is_file()], "half a file was left"
    assert not processes(workers), "a worker outlived its run"
    with capsys.disabled():
        print(f"\nfinished after each kill: {', '.join(story)}; then {len(ended)}")
