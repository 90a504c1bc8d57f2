"""Every sampler by the same contract, and what is special about some."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from compress.core.errors import InputError, MissingDependency
from search.samplers import SAMPLERS
from tests.contracts.sampler import SamplerContract

ROOT = Path(__file__).parents[3]
NEEDS = {"cmaes": "cmaes"}


class TestRandom(SamplerContract):
    name = "random"


class TestGrid(SamplerContract):
    name = "grid"


class TestQMC(SamplerContract):
    name = "qmc"


class TestGreedy(SamplerContract):
    name = "greedy"


class TestEvolution(SamplerContract):
    name = "evolution"


class TestNSGA2(SamplerContract):
    name = "nsga2"


class TestNSGA3(SamplerContract):
    name = "nsga3"


class TestTPE(SamplerContract):
    name = "tpe"


class TestPareto(SamplerContract):
    name = "pareto"


class TestCmaEs(SamplerContract):
    name = "cmaes"


def test_every_sampler_is_under_the_contract() -> None:
    assert {kind.name for kind in SamplerContract.__subclasses__()} == set(SAMPLERS.names())


def test_ci_installs_what_samplers_need() -> None:
    """constraints.txt is what CI installs: none is skipped there."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert set(NEEDS.values()) <= {line.partition("==")[0] for line in lines}


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_named_with_its_install_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(MissingDependency, match=rf"'{name}' .*pip install 'paretune\[{name}\]'"):
        SAMPLERS[name](0)


def test_an_unknown_sampler_lists_the_choices() -> None:
    with pytest.raises(InputError, match="evolution, greedy, grid"):
        SAMPLERS["annealing"]
