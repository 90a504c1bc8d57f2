"""Examples shared by sessions of one file come back in order, each answered once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.measure.file_agreement import compute_outputs, prepare_sessions
from compress.measure.runtimes import TensorInfo


class Doubling:
    """A session that answers 2x and the row's number, and remembers what it was fed."""

    inputs = (TensorInfo("x", (1, 3)),)
    outputs = (TensorInfo("twice", (1, 3)), TensorInfo("first", (1,)))

    def __init__(self, fails_at: float | None = None) -> None:
        self.fed: list[float] = []
        self.threads: set[int] = set()
        self._fails_at = fails_at
        self._given = np.zeros((1, 3), np.float32)

    def set_inputs(self, values: Sequence[np.ndarray[Any, Any]]) -> None:
        (self._given,) = values

    def invoke(self) -> None:
        value = float(self._given[0, 0])
        if self._fails_at is not None and value >= self._fails_at:
            raise RuntimeError(f"broken at {value:g}")
        self.fed.append(value)
        self.threads.add(threading.get_ident())

    def results(self) -> list[Any]:
        return [2 * self._given, self._given[:, 0]]

    def time_runs(self, count: int) -> list[float]:
        raise AssertionError("nothing is timed here")


X = np.arange(33, dtype=np.float32).reshape(11, 3)


@pytest.mark.parametrize("many", [1, 2, 4, 16])
def test_sessions_share_the_examples(many: int) -> None:
    sessions = [Doubling() for _ in range(many)]
    twice, first = compute_outputs(sessions, [X])
    np.testing.assert_array_equal(twice, 2 * X)
    np.testing.assert_array_equal(first, X[:, 0])
    assert sorted(value for each in sessions for value in each.fed) == X[:, 0].tolist()
    counts = [len(each.fed) for each in sessions]
    assert max(counts) - min(counts) <= 1
    assert all(len(each.threads) <= 1 for each in sessions)


def test_no_example_gives_no_answer() -> None:
    twice, first = compute_outputs([Doubling(), Doubling()], [X[:0]])
    assert twice.shape == (0, 3)
    assert first.shape == (0,)


@pytest.mark.parametrize("place", [0, 1])
def test_what_one_session_raises_is_raised_and_ends_the_others(place: int) -> None:
    many = np.repeat(X[:1], 20_000, axis=0)
    sessions = [Doubling(), Doubling()]
    sessions[place] = Doubling(fails_at=-1.0)
    with pytest.raises(RuntimeError, match="broken at 0"):
        compute_outputs(sessions, [many])


def test_progress_is_told_by_the_calling_thread() -> None:
    told: list[tuple[float, int]] = []
    many = np.repeat(X, 100, axis=0)
    compute_outputs([Doubling(), Doubling()], [many], lambda share: told.append(
        (share, threading.get_ident())))  # fmt: skip
    assert [share for share, _ in told] == pytest.approx([125 * n / 550 for n in range(1, 5)])
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_a_file_is_prepared_for_the_threads_that_may_be_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from compress.exporting.batch_conversion import write_latency_files

    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    (file,) = write_latency_files([net], tmp_path, "float32")
    assert isinstance(file, Path)
    assert [len(prepare_sessions(file, threads)) for threads in (1, 3, 64)] == [1, 3, 4]
    alone = compute_outputs(prepare_sessions(file, 1)[0], [X])[0]
    np.testing.assert_array_equal(compute_outputs(prepare_sessions(file, 3), [X])[0], alone)
    np.testing.assert_allclose(alone, np.asarray(net(X)), atol=1e-5)
    monkeypatch.setattr("compress.measure.file_agreement.LARGE_FILE", 10)
    assert len(prepare_sessions(file, 4)) == 1
