"""Long fault tests on real processes: kills at random moments, memory over many trials.

`tests/fuzz/test_kills.py` has fewer kills. PARETUNE_KILLS and PARETUNE_TRIALS make them longer, and
PARETUNE_FIGURES names a folder that their figures are written to, as for docs/results/search.md.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from compress.core.atomic_files import write_json
from tests.patience import wait_for
from tests.search.test_run import paretune, records, start, study, trained

KILLS = int(os.environ.get("PARETUNE_KILLS", "3"))
TRIALS = int(os.environ.get("PARETUNE_TRIALS", "45"))

pytestmark = pytest.mark.slow


def tell(name: str, **figures: object) -> None:
    """Writes figures where a benchmark asks for them."""
    if folder := os.environ.get("PARETUNE_FIGURES"):
        write_json(Path(folder) / f"{name}.json", figures)


def processes(text: str) -> dict[int, int]:
    """Returns the resident bytes of all processes with `text` in their command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if entry.name.isdigit() and text in words and int(entry.name) != os.getpid():
                pages = int((entry / "statm").read_text().split()[1])
                found[int(entry.name)] = pages * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return found


@pytest.mark.matrix
def test_killed_again_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No finished trial is lost, changed or repeated; none runs on; the count is the plan's."""
    rng = random.Random(1)
    trials = 4 * KILLS
    words = ("search", "--space", "mlp", "--trials", trials, "--epochs", 6, "--workers", 2,
             "--stopping", "none", "--out", "r")  # fmt: skip
    folder = tmp_path / "r"
    known: dict[str, object] = {}
    counts = []
    for _ in range(KILLS):
        process = start(*words, cwd=tmp_path)
        time.sleep(rng.uniform(1.0, 25.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        now = records(folder)
        assert {name: now[name] for name in known} == known
        known = dict(now)
        counts.append(len(known))
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = records(folder)
    assert {name: after[name] for name in known} == known
    assert len(trained(folder)) == trials
    choices = [str(sorted(item["choices"].items())) for item in after.values()]
    assert len(choices) == len(set(choices)), "a trial was repeated"
    finished = [trial for trial in study(folder).trials if trial.state.name == "COMPLETE"]
    assert len(finished) == sum(item["state"] == "complete" for item in after.values())
    wait_for(lambda: not processes(f"search.engines.worker {folder}"), "the workers' end")
    with capsys.disabled():
        print(f"\nfinished after each of {KILLS} kills: {counts}, then {trials}")
    tell("kills", kills=KILLS, trials=trials, finished=counts)


def test_memory_is_flat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker and its fork together, and the run's own process, over the trials."""
    folder = tmp_path / "r"
    process = start("search", "--space", "mlp", "--trials", TRIALS, "--epochs", 1, "--workers", 1,
                    "--stopping", "none", "--out", folder, cwd=tmp_path)  # fmt: skip
    series: list[tuple[int, int, int]] = []
    while process.poll() is None:
        # other tests may run workers beside
        workers = processes(f"search.engines.worker {folder}")
        own = processes("from search.cli import main")
        if workers and process.pid in own:
            series.append((len(records(folder)), sum(workers.values()), own[process.pid]))
        time.sleep(0.5)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert len(trained(folder)) == TRIALS
    figures = {}
    for place in (1, 2):
        early = max(row[place] for row in series if 10 <= row[0] <= 20)
        late = max(row[place] for row in series if row[0] > TRIALS - 20)
        with capsys.disabled():
            print(f"\n{('', 'worker', 'run')[place]}: {early / 2**20:.0f} MiB at trials 10 to 20, "
                  f"{late / 2**20:.0f} MiB at the last 20 of {TRIALS}")  # fmt: skip
        assert late <= 1.1 * early
        figures[("", "worker", "run")[place]] = [early, late]
    tell("memory", trials=TRIALS, **figures)
    assert subprocess.run(["pgrep", "-f", f"search.engines.worker {folder}"],
                          check=False).returncode == 1  # fmt: skip
