"""Readings that wait for each other become one, and nobody sees less than before."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest

from search.study.storage import MAX_PAUSE, CoalescedCall, coalesce_readings


class Held:
    """A function whose runs end when they are let go."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun, self.let_go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self) -> int:
        self.runs += 1
        number = self.runs
        self.begun.release()
        self.let_go.acquire()
        return number


def test_who_waits_is_answered_by_the_next_run_and_not_by_the_one_under_way() -> None:
    held = Held()
    together = CoalescedCall(held)
    asked = threading.Semaphore(0)

    def ask() -> tuple[int, int]:
        begun = held.runs
        asked.release()
        return begun, together()

    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(ask)
        held.begun.acquire()
        others = [pool.submit(ask) for _ in range(8)]
        for _ in range(9):
            asked.acquire()
        assert held.runs == 1, "they wait"
        held.let_go.release()
        assert first.result() == (0, 1)
        held.begun.acquire()
        late = pool.submit(ask)  # the second run may not know what this one must
        held.let_go.release(20)
        found = [one.result() for one in (*others, late)]
    assert all(answer > begun for begun, answer in found), "each run began after it was asked for"
    assert 2 <= held.runs < 10, "fewer than were asked for"


def test_readings_take_half_of_the_time() -> None:
    now, slept, took = [100.0], [], [0.25]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def read() -> float:
        now[0] += took[0]
        return now[0]

    together = CoalescedCall(read, clock=lambda: now[0], sleep=sleep)
    assert [together(), together()] == [100.25, 100.75]  # 0.25 of waiting, 0.25 of reading
    now[0] += 0.125
    assert together() == 101.25, "half of what is waited for had passed"
    now[0] += 50
    took[0] = 8
    assert together() == 159.25
    assert together() == 167.75, "nobody waits for as long as a long study takes"
    assert slept == [0, 0.25, 0.125, 0, MAX_PAUSE]


def test_an_error_is_everyones_and_the_next_run_is_another() -> None:
    answers = iter([KeyError("gone"), 5])

    def read() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    together = CoalescedCall(read)
    with pytest.raises(KeyError, match="gone"):
        together()
    assert together() == 5


def test_trials_of_a_study_are_read_by_many_at_once() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage)
    for value in (1.0, 2.0):
        study.tell(study.ask(), value)
    read = coalesce_readings(storage)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(read, study._study_id) for _ in range(50)]
        assert all([item.value for item in one.result()] == [1.0, 2.0] for one in found)
    study.tell(study.ask(), 3.0)
    assert len(read(study._study_id)) == 3
    with pytest.raises(KeyError):
        read(99)
