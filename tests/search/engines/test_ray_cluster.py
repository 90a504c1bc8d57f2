"""A real Ray cluster, a real PostgreSQL: nodes that die, a database that restarts, and worse.

What is marked `matrix` takes minutes each, and is run by hand: `pytest -m slow` on this file.
PARETUNE_CLUSTER_FAULTS says how many faults `test_random_faults` makes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from benchmarks.cluster_overhead import Server
from compress.plan.nesting import from_flat
from search.plan import SearchPlan
from search.study.directory import SearchFolder
from search.study.storage import build_study_name, open_storage
from tests.patience import PATIENCE, wait_for
from tests.search.engines.cluster import NODE, ray_cluster
from tests.search.test_run import paretune, records, start

# not imported here: see `ray_cluster`
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]

SPACE = ["--data", "digits", "--space", "mlp", "--epochs", "1", "--sampler", "random"]
FAULTS = int(os.environ.get("PARETUNE_CLUSTER_FAULTS", "20"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(3) as made:
        yield made


def until(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    wait_for(lambda: len(records(folder)) >= count or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]


def nothing_lost_nothing_twice(folder: Path, url: str, count: int) -> None:
    """Compares records, models and the study with each other."""
    found = records(folder)
    trained = [item for item in found.values() if item["state"] not in ("rejected", "duplicate")]
    assert len(trained) == count
    seeds = Counter(item["seed"] for item in trained)
    assert set(seeds.values()) == {1}, "a trial that ran again has its seed once"
    for name, item in found.items():
        assert (folder / "candidates" / f"{name}.keras").exists() == (item["state"] == "complete")
    plan = from_flat(SearchPlan, {"storage": url})
    storage = open_storage(plan.search.storage, "storage")
    name = build_study_name(SearchFolder(folder), plan.search.storage)
    study = optuna.load_study(study_name=name, storage=storage)
    ended = {f"{trial.number:04d}": trial for trial in study.trials if trial.values}
    assert set(ended) == {name for name, item in found.items() if item["state"] == "complete"}
    assert not study.get_trials(states=(TrialState.RUNNING,)), "nobody's trials are left"


def on_cluster(url: str, out: Path, trials: int) -> list[object]:
    return ["search", *SPACE, "--trials", trials, "--workers", 4, "--engine", "ray",
            "--storage", url, "--out", out]  # fmt: skip


def test_a_node_dies_another_joins_the_database_restarts(
    cluster: Any, database: Server, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(*on_cluster(database.url, out, 14), cwd=tmp_path)
    until(out, 3, process)
    cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
    until(out, 6, process)
    cluster.add_node(**NODE, num_cpus=2)
    until(out, 9, process)
    database.restart()
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    nothing_lost_nothing_twice(out, database.url, 14)
    assert "its node was lost" in (out / "log.txt").read_text()
    # one machine's: the same choices, as the sampler is random, but for the order
    alone = tmp_path / "alone"
    done = paretune("search", *SPACE, "--trials", 14, "--out", alone, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = [
        max(item["val"]["accuracy"] for item in records(folder).values()
            if item["state"] == "complete")
        for folder in (out, alone)
    ]  # fmt: skip
    assert abs(best[0] - best[1]) < 0.05


@pytest.mark.matrix
def test_a_driver_is_killed_and_ctrl_c_ends_the_workers(
    cluster: Any, database: Server, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = on_cluster(database.url, out, 16)
    for count, how in ((3, signal.SIGKILL), (6, signal.SIGINT)):
        process = start(*words, cwd=tmp_path)
        until(out, count, process)
        process.send_signal(how)
        process.communicate(timeout=PATIENCE)
        wait_for(lambda: not workers_of(out), "the end of the workers")
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    nothing_lost_nothing_twice(out, database.url, 16)


def test_actors_are_given_a_card_each(cluster: Any) -> None:
    """Two cards that Ray believes in: four halves of them, or two whole ones, or none."""
    import ray

    from search.engines.ray.engine import _connect
    from search.engines.ray.host import _list_gpus

    node = cluster.add_node(**NODE, num_cpus=4, num_gpus=2)
    _connect(cluster.address)
    try:

        class Asked:
            def cards(self) -> str:
                return _list_gpus()

        for share, expected in ((0.5, ["0", "0", "1", "1"]), (1, ["0", "1"]), (0, ["-1"] * 2)):
            made = ray.remote(Asked).options(num_gpus=share, num_cpus=0)
            actors = [made.remote() for _ in expected]
            seen = ray.get([actor.cards.remote() for actor in actors], timeout=PATIENCE)
            assert sorted(seen) == expected
            for actor in actors:
                ray.kill(actor)
    finally:
        ray.shutdown()
        cluster.remove_node(node)


@pytest.mark.matrix
def test_workers_see_their_own_gpu_alone(tmp_path: Path) -> None:
    """Two cards that Ray believes in, four workers of half a card."""
    (tmp_path / "seen.py").write_text(
        "import os, pathlib, keras\n"
        "def space(trial, data):\n"
        "    line = os.environ['CUDA_VISIBLE_DEVICES'] + ' ' + str(os.getppid())\n"
        f"    with open({str(tmp_path / 'seen.txt')!r}, 'a') as stream:\n"
        "        stream.write(line + '\\n')\n"
        "    units = trial.suggest_int('units', 4, 64)\n"
        "    return keras.Sequential([keras.Input(data.input_shape), keras.layers.Flatten(),\n"
        "                             keras.layers.Dense(units, 'relu'),\n"
        "                             keras.layers.Dense(10, 'softmax')])\n"
    )
    with ray_cluster(1, cpus=4, num_gpus=2):
        done = paretune(
            "search", "--data", "digits", "--space", "seen:space", "--epochs", 1, "--trials", 12,
            "--engine", "ray", "--gpus-per-worker", 0.5,
            "--workers", 4, "--out", tmp_path / "run", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    seen = [line.split() for line in (tmp_path / "seen.txt").read_text().splitlines()]
    assert {card for card, _ in seen} == {"0", "1"}
    cards = {worker: {card for card, of in seen if of == worker} for _, worker in seen}
    assert all(len(own) == 1 for own in cards.values()), "a worker keeps its card"


@pytest.mark.matrix
def test_what_a_cluster_must_have_is_said_first(
    cluster: Any, database: Server, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["search", *SPACE, "--trials", 2, "--engine", "ray", "--out", out]
    for more, said in (
        (["--cpus-per-worker", 64], "must fit on a node"),
        (["--gpus-per-worker", 1], "must fit on a node"),
        (["--storage", "postgresql://u:s3cret@127.0.0.1:9/x"],
         "storage must be a URL that Optuna can open"),
    ):  # fmt: skip
        done = paretune(*words, *more, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "s3cret" not in done.stderr + done.stdout
        assert not out.exists()


@pytest.mark.matrix
def test_workers_that_do_not_see_the_folder(cluster: Any, database: Server, tmp_path: Path) -> None:
    """A whole run through a store: trials, final trainings, compression with a teacher.

    Its process is killed once on the way.
    """
    out, store = tmp_path / "run", tmp_path / "store"
    words: list[object] = [
        "run", *SPACE, "--trials", 4, "--final-epochs", 1,
        "--finetune-epochs", 1, "--latency-budget", 1, "--formats", "float32",
        "--engine", "ray", "--workers", 2,
        "--storage", database.url, "--files", f"file://{store}", "--out", out,
    ]  # fmt: skip
    process = start(*words, cwd=tmp_path)
    until(out, 2, process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    nothing_lost_nothing_twice(out, database.url, 4)
    report = json.loads((out / "report.json").read_text())
    front = report["front"]
    assert sorted(path.stem for path in (out / "compressed").glob("*.json")) == sorted(front)
    for name in front:
        assert (out / "final" / f"{name}.keras").read_bytes() == (
            store / "final" / f"{name}-final0.keras"
        ).read_bytes()
    assert {item["model"] for item in report["files"]} == set(front)
    for item in report["files"]:
        assert (out / item["file"]).is_file()
    assert not list(out.glob("workers-*.log")), "none of the workers wrote here"
    assert str(out) in json.dumps(report), "commands name the run's own folder"


def workers_of(out: Path) -> list[psutil.Process]:
    """Returns the processes of a run's workers, forks included, on all nodes."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "search.engines.worker" in words and str(out.resolve()) in words:
                found.append(process)
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MB, which a file can fill and 88 candidates cannot."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield place  # not allowed here: the disk is never full then
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


class Faults:
    """What can go wrong with a run on a cluster."""

    def __init__(self, cluster: Any, database: Server, out: Path, words: list[object]) -> None:
        self.cluster, self.database, self.out, self.words = cluster, database, out, words
        self.process = start(*words, cwd=out.parent)
        self.kinds = ["worker", "actor", "node", "driver", "database"]
        if os.path.ismount(out.parent):
            self.kinds.append("disk")

    def again(self) -> None:
        """Starts the run's process once more, as its user would."""
        self.process.communicate(timeout=PATIENCE)
        self.process = start(*self.words, cwd=self.out.parent)

    def make(self, kind: str, rng: random.Random) -> None:
        if kind == "node":
            nodes = [item for item in self.cluster.list_all_nodes() if not item.head]
            self.cluster.remove_node(rng.choice(nodes), allow_graceful=False)
            self.cluster.add_node(**NODE, num_cpus=2)
        elif kind == "driver":
            self.process.kill()
            self.again()
        elif kind == "database":
            self.database.restart()
        elif kind == "disk":
            filler = self.out.parent / "filler"
            with contextlib.suppress(OSError), open(filler, "wb") as stream:
                while True:
                    stream.write(bytes(2**16))
            wait_for(lambda: self.process.poll() is not None, "the end of a run on a full disk")
            filler.unlink()
            self.again()
        else:
            found = workers_of(self.out)
            if kind == "actor":
                found = [item.parent() for item in found if item.parent() not in found]
            if found:
                with contextlib.suppress(psutil.Error):
                    rng.choice(found).kill()


@pytest.mark.matrix
def test_random_faults(cluster: Any, database: Server, small_disk: Path) -> None:
    rng, out = random.Random(FAULTS), small_disk / "run"
    trials = 8 + 4 * FAULTS
    faults = Faults(cluster, database, out, on_cluster(database.url, out, trials))
    made = []
    for turn in range(FAULTS):
        until(out, 3 + 4 * turn, faults.process)
        made.append(
            faults.kinds[turn % len(faults.kinds)] if turn < 6 else rng.choice(faults.kinds)
        )
        faults.make(made[-1], rng)
    said, _ = faults.process.communicate(timeout=PATIENCE)
    assert faults.process.returncode == 0, (made, said)
    nothing_lost_nothing_twice(out, database.url, trials)
    if "PARETUNE_FIGURES" in os.environ:
        place = Path(os.environ["PARETUNE_FIGURES"]) / "cluster_faults.json"
        place.write_text(json.dumps({"faults": Counter(made), "trials": trials}))
