"""Workers on GPUs: which card, shared with how many."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.engines import messages
from search.engines.local import LocalPool, count_gpu_sharers, select_gpu
from tests.search.engines.orders import order


@pytest.mark.parametrize(
    ("visible", "cards"),
    [(None, ["0", "1", "0", "1", "0"]), ("2, 3", ["2", "3", "2", "3", "2"]),
     ("GPU-8f,GPU-a1", ["GPU-8f", "GPU-a1", "GPU-8f", "GPU-a1", "GPU-8f"])],
)  # fmt: skip
def test_cards_go_round_among_those_the_run_may_use(visible: str | None, cards: list[str]) -> None:
    assert [select_gpu(worker, 2, visible) for worker in range(5)] == cards


def test_sharers_are_counted_by_card() -> None:
    # workers 0, 2, 4 on the first card, 1, 3 on the second
    assert [count_gpu_sharers(worker, 5, 2) for worker in range(5)] == [3, 2, 3, 2, 3]
    assert [count_gpu_sharers(worker, 2, 2) for worker in range(2)] == [1, 1]
    assert count_gpu_sharers(0, 1, 4) == 1


class Lines:
    """What a worker says, line by line, until None."""

    def __init__(self, said: queue.Queue[str | None]) -> None:
        self._said = said

    def __iter__(self) -> Iterator[str]:
        return iter(self._said.get, None)

    def close(self) -> None:
        pass


class Process:
    """A worker process that does each job at once; what it was started with is kept."""

    started: list[tuple[list[str], dict[str, str]]]

    def __init__(self, command: list[str], **options: Any) -> None:
        self.started.append((command, options["env"]))
        self.stdin = self
        self._said: queue.Queue[str | None] = queue.Queue()
        self.stdout = Lines(self._said)
        messages.send(self, messages.READY, memory=1, device="1 x GPU")  # type: ignore[arg-type]

    def write(self, text: str) -> None:
        """Takes its own messages (ready, done), and those of the pool (a job, quit)."""
        message = json.loads(text)
        if message["kind"] == messages.TRIAL:
            self._said.put(json.dumps({"kind": messages.DONE, "memory": 1, "renewed": False}))
        elif message["kind"] == messages.QUIT:
            self._said.put(None)
        else:
            self._said.put(text)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def terminate(self) -> None:
        pass

    def wait(self, timeout: float | None = None) -> int:
        return 0


class Jobs:
    """Gives out a number of jobs and remembers who did them."""

    def __init__(self, count: int) -> None:
        self.left = [{"kind": messages.TRIAL, "number": number} for number in range(count)]
        self.done: list[tuple[int, int]] = []

    def take_job(self) -> dict[str, Any] | None:
        return self.left.pop(0) if self.left else None

    def on_message(self, worker: int, job: dict[str, Any], message: dict[str, Any]) -> None:
        raise AssertionError(message)

    def on_done(self, worker: int, job: dict[str, Any], message: dict[str, Any]) -> None:
        self.done.append((worker, job["number"]))

    def on_death(
        self, worker: int, job: dict[str, Any], claimed: dict[str, Any] | None, how: str
    ) -> None:
        raise AssertionError(how)


@pytest.mark.parametrize(
    ("workers", "gpus", "visible", "cards", "shared"),
    [
        (3, 2, "4,6", ["4", "6", "4"], ["2", "1", "2"]),
        (2, 2, None, ["0", "1"], ["1", "1"]),
        (2, 0, "4", ["4", "4"], ["1", "1"]),  # on the CPU nothing is divided or renamed
    ],
)
def test_workers_are_started_on_their_cards(
    workers: int, gpus: int, visible: str | None, cards: list[str], shared: list[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Process, "started", [], raising=False)
    monkeypatch.setattr("subprocess.Popen", Process)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    jobs = Jobs(workers)
    with LocalPool(order(tmp_path, workers, threads=2, gpus=gpus, device="gpu")) as pool:
        pool.run(jobs)
    assert sorted(jobs.done) == [(number, number) for number in range(workers)]
    found = Process.started
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, environment in found] == cards
    assert [command[command.index("--sharers") + 1] for command, _ in found] == shared
    assert [command[command.index("--threads") + 1] for command, _ in found] == ["2"] * workers
