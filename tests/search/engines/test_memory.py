"""Workers share the memory budget of their run."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core import memory_budget
from compress.core.errors import InputError
from compress.core.memory_budget import MemoryBudget
from search.engines._base import WorkerSpec
from search.engines.local import ENGINE, FORK_PARENT_BYTES, MIN_WORKER_BYTES, compute_memory_share
from tests.search.engines.orders import order

GB = 10**9


@pytest.fixture(autouse=True)
def four_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "_current", MemoryBudget(4 * GB, is_user_set=True))
    monkeypatch.setattr(MemoryBudget, "measure_free_bytes", lambda self: self.bytes)


def test_equal_shares_of_what_is_free() -> None:
    assert compute_memory_share(4) == GB - FORK_PARENT_BYTES
    assert compute_memory_share(100) == memory_budget.MIN_BUDGET_BYTES


def test_no_more_workers_than_fit(tmp_path: Path) -> None:
    from dataclasses import replace

    demand = replace(order(tmp_path).request, workers=5, max_jobs=100)
    assert ENGINE.allocate_workers(demand).memory == 4 * GB // 5 - FORK_PARENT_BYTES
    with pytest.raises(InputError, match=r"workers must be at most 5 with 4\.0 GB of memory"):
        ENGINE.allocate_workers(replace(demand, workers=6))
    assert 5 * MIN_WORKER_BYTES == 4 * GB


def test_a_worker_is_told() -> None:
    assert WorkerSpec(2, 3, "here", memory=GB).arguments == (
        "--threads",
        "3",
        "--memory",
        "1000000000",
    )
    assert WorkerSpec(2, 3, "here").arguments == ("--threads", "3")
