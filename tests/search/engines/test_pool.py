"""Pools of workers that are no processes: who is fed when, what is lost, what runs again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compress.core.errors import RunFailed
from search.engines import NODE_LOST, messages
from search.engines.pool import KILLED_STARTS, LOST_STARTS, MAX_JOBS, Link, OnMessage, Pool
from tests.search.engines.orders import order

READY = {"kind": messages.READY, "memory": 1, "device": "CPU"}
DONE = {"kind": messages.DONE, "memory": 1, "renewed": False}


class Worker:
    """Does each job at once, unless it is told to die with it."""

    def __init__(self, tell: OnMessage, mortal: bool, ready: bool) -> None:
        self.tell, self.mortal, self.ended = tell, mortal, False
        self.sent: list[dict[str, Any]] = []
        if ready:
            tell(READY)

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        self.tell({"kind": messages.CLAIMED, "number": message["number"], "seed": 1})
        if self.mortal:
            self.tell(None)
        else:
            self.tell(DONE)

    def kill(self) -> None:
        self.tell(None)

    def end(self) -> None:
        self.ended = True

    def describe_exit(self) -> str:
        return NODE_LOST


class Made(Pool):
    """A pool of such workers; which of them die, and which are ever ready, is given."""

    def __init__(
        self, folder: Path, count: int, mortal: Callable[[int], bool] = lambda _: False,
        ready: Callable[[int], bool] = lambda _: True,
    ) -> None:  # fmt: skip
        super().__init__(order(folder, count))
        self.made: list[Worker] = []
        self._mortal, self._is_ready = mortal, ready

    def _open(self, index: int, on_message: OnMessage) -> Link:
        number = len(self.made)
        self.made.append(Worker(on_message, self._mortal(number), self._is_ready(number)))
        return self.made[-1]


class Ahead(Made):
    AHEAD = True


class Jobs:
    """Gives out numbers; those that are lost are given out again."""

    def __init__(self, count: int) -> None:
        self.left = list(range(count))
        self.done: list[int] = []
        self.lost: list[tuple[int, str]] = []

    def take_job(self) -> dict[str, Any] | None:
        return {"kind": messages.TRIAL, "number": self.left.pop(0)} if self.left else None

    def on_message(self, worker: int, job: dict[str, Any], message: dict[str, Any]) -> None:
        assert message["number"] == job["number"]

    def on_done(self, worker: int, job: dict[str, Any], message: dict[str, Any]) -> None:
        self.done.append(job["number"])

    def on_death(
        self, worker: int, job: dict[str, Any], claimed: dict[str, Any] | None, how: str
    ) -> None:
        assert claimed is not None
        assert claimed["number"] == job["number"]
        self.lost.append((job["number"], how))
        self.left.insert(0, job["number"])


@pytest.mark.parametrize("kind", [Made, Ahead])
def test_what_is_lost_runs_again(kind: type[Made], tmp_path: Path) -> None:
    """Of the first three workers each dies with its first job."""
    pool, jobs = kind(tmp_path, 3, mortal=lambda number: number < 3), Jobs(20)
    pool.run(jobs)
    assert sorted(jobs.done) == list(range(20))
    assert sorted(number for number, _ in jobs.lost) == [0, 1, 2]
    assert {how for _, how in jobs.lost} == {NODE_LOST}


def test_a_job_waits_for_no_worker_that_does_not_come(tmp_path: Path) -> None:
    """Two of three workers never start: the third does all, and the run ends."""
    pool, jobs = Ahead(tmp_path, 3, ready=lambda number: number == 2), Jobs(5)
    pool.run(jobs)
    assert jobs.done == list(range(5))
    assert [len(worker.sent) for worker in pool.made] == [0, 0, 5]
    pool.stop()
    assert all(worker.ended for worker in pool.made)


def test_workers_are_started_for_jobs_alone_or_ahead(tmp_path: Path) -> None:
    lazy, ahead = Made(tmp_path, 3), Ahead(tmp_path, 3)
    for pool, started in ((lazy, 1), (ahead, 3)):
        pool.run(Jobs(1))
        assert len(pool.made) == started


@pytest.mark.parametrize("kind", [Made, Ahead])
def test_workers_are_renewed(kind: type[Made], tmp_path: Path) -> None:
    pool, jobs = kind(tmp_path, 1), Jobs(MAX_JOBS + 1)
    pool.run(jobs)
    assert [len(worker.sent) for worker in pool.made] == [MAX_JOBS, 1]
    assert [worker.ended for worker in pool.made] == [True, False]


def test_a_second_run_finds_the_workers_ready(tmp_path: Path) -> None:
    pool = Ahead(tmp_path, 2)
    for _ in range(2):
        jobs = Jobs(4)
        pool.run(jobs)
        assert sorted(jobs.done) == [0, 1, 2, 3]
    assert len(pool.made) == 2


def test_a_worker_that_ends_by_itself_before_it_is_ready(tmp_path: Path) -> None:
    class Broken(Made):
        def _open(self, index: int, tell: OnMessage) -> Link:
            worker = Worker(tell, False, False)
            worker.describe_exit = lambda: "exit code 3"  # type: ignore[method-assign]
            tell(None)
            return worker

    with pytest.raises(RunFailed, match=r"could not start \(exit code 3\)"):
        Broken(tmp_path, 1).run(Jobs(1))


class LostAtStart(Made):
    """The first workers are killed, or their nodes lost, while they start."""

    def __init__(self, folder: Path, lost: int, how: str) -> None:
        super().__init__(folder, 1)
        self.lost, self.how = lost, how

    def _open(self, index: int, on_message: OnMessage) -> Link:
        if len(self.made) >= self.lost:
            return super()._open(index, on_message)
        worker = Worker(on_message, False, False)
        worker.describe_exit = lambda: self.how  # type: ignore[method-assign]
        self.made.append(worker)
        on_message(None)
        return worker


@pytest.mark.parametrize(
    ("how", "most", "remedy"),
    [
        ("signal SIGKILL", KILLED_STARTS, "give fewer --workers"),
        (NODE_LOST, LOST_STARTS, "see `ray status`"),
    ],
)
def test_a_worker_that_is_lost_while_it_starts_is_replaced(
    how: str, most: int, remedy: str, tmp_path: Path
) -> None:
    pool, jobs = LostAtStart(tmp_path, most, how), Jobs(5)
    pool.run(jobs)
    # no job is lost: none was begun
    assert (jobs.done, jobs.lost) == (list(range(5)), [])
    assert len(pool.made) == most + 1
    with pytest.raises(RunFailed, match=rf"could not start \({how}\)\..*{remedy}"):
        LostAtStart(tmp_path, most + 1, how).run(Jobs(1))
