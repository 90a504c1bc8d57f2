"""A cluster that is not there is told in one line, before anything is written."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from compress.core.errors import InputError, MissingDependency
from compress.plan.nesting import from_flat
from search import pipeline
from search.engines.ray.engine import _check_address, _count_fitting_workers
from search.plan import SearchPlan

HERE = importlib.util.find_spec("ray") is not None


@pytest.mark.skipif(not HERE, reason="ray is not installed")
@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:9", "Connection refused"), ("nowhere", "Invalid address format")],
)
def test_nobody_answers(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setenv("RAY_ADDRESS", address)
    values = {"data": "digits", "engine": "ray", "out": str(out)}
    message = rf"RAY_ADDRESS must be of a Ray cluster.*{said}.*ray status"
    with pytest.raises(InputError, match=message):
        pipeline.run_search(plan=from_flat(SearchPlan, values))
    assert not out.exists()


def test_words_of_ray_are_no_addresses_to_ask() -> None:
    for word in ("auto", "local"):
        _check_address(word)


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    plan = from_flat(SearchPlan, {"data": "digits", "engine": "ray", "out": str(tmp_path / "r")})
    with pytest.raises(MissingDependency, match=r"pip install 'paretune\[ray\]'"):
        pipeline.run_search(plan=plan)


@pytest.mark.parametrize(
    ("option", "value"),
    [("cpus_per_worker", 2), ("gpus_per_worker", 0.5), ("files", "s3://b")],
)
def test_options_of_a_cluster_need_one(option: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{option} must come with the engine of a cluster"):
        from_flat(SearchPlan, {option: value})


@pytest.mark.parametrize(
    ("node", "cpus", "cards", "places"),
    [
        ({"CPU": 8.0}, 2, 0.0, 4),
        ({"CPU": 7.0}, 2, 0.0, 3),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 1.0, 2),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 0.25, 8),
        # a share lies on one card: three of 0.3 on each
        ({"CPU": 8.0, "GPU": 2.0}, 1, 0.3, 6),
        ({"CPU": 8.0}, 1, 0.5, 0),
    ],
)
def test_how_many_workers_a_node_holds(
    node: dict[str, float], cpus: int, cards: float, places: int
) -> None:
    assert _count_fitting_workers(node, cpus, cards) == places
