"""Workers share the memory budget of their run."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core import memory_budget
from compress.core.errors import InputError
from compress.core.memory_budget import MemoryBudget
from search.engines._base import Crew
from search.engines.local import ENGINE, FORKED_FROM, LEAST_OF_A_WORKER, memory_of_each
from tests.search.engines.orders import order

GB = 10**9


@pytest.fixture(autouse=True)
def four_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "_current", MemoryBudget(4 * GB, given=True))
    monkeypatch.setattr(MemoryBudget, "free", lambda self: self.bytes)


def test_equal_shares_of_what_is_free() -> None:
    assert memory_of_each(4) == GB - FORKED_FROM
    assert memory_of_each(100) == memory_budget.LEAST


def test_no_more_workers_than_fit(tmp_path: Path) -> None:
    from dataclasses import replace

    demand = replace(order(tmp_path).demand, workers=5, most=100)
    assert ENGINE.crew(demand).memory == 4 * GB // 5 - FORKED_FROM
    with pytest.raises(InputError, match=r"workers must be at most 5 with 4\.0 GB of memory"):
        ENGINE.crew(replace(demand, workers=6))
    assert 5 * LEAST_OF_A_WORKER == 4 * GB


def test_a_worker_is_told() -> None:
    assert Crew(2, 3, "here", memory=GB).words == ("--threads", "3", "--memory", "1000000000")
    assert Crew(2, 3, "here").words == ("--threads", "3")
