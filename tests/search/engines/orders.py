"""Orders of workers, for tests of pools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from compress.plan.nesting import from_flat
from search.engines import PoolSettings, WorkerRequest, WorkerSpec
from search.plan import SearchPlan
from search.study.directory import SearchFolder


def order(
    folder: Path,
    workers: int = 1,
    *,
    threads: int = 1,
    gpus: int = 0,
    device: str = "cpu",
    environment: Mapping[str, str] | None = None,
) -> PoolSettings:
    plan = from_flat(SearchPlan, {"device": device})
    crew = WorkerSpec(workers, threads, "here", gpus)
    return PoolSettings(
        SearchFolder(folder), WorkerRequest.from_plan(plan), crew, environment or {}
    )
