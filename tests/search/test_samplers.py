"""Every sampler by the same contract, and what is special about some."""

from __future__ import annotations

import importlib.util

import pytest

from compress.errors import InputError, MissingDependency
from search.samplers import SAMPLERS
from tests.contracts.sampler import SamplerContract

NEEDS = {"cmaes": "cmaes", "gp": "torch"}


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


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
class TestGP(SamplerContract):
    name = "gp"


class TestCmaEs(SamplerContract):
    name = "cmaes"


def test_every_sampler_is_under_the_contract() -> None:
    tested = {kind.name for kind in SamplerContract.__subclasses__()}
    assert tested == set(SAMPLERS.names())


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_named_with_its_install_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    monkeypatch.setattr("search.samplers._optuna.find_spec", lambda package: None)
    with pytest.raises(MissingDependency, match=rf"'{name}' .*pip install {NEEDS[name]}"):
        SAMPLERS[name](0)


def test_an_unknown_sampler_lists_the_choices() -> None:
    with pytest.raises(InputError, match="evolution, gp, greedy, grid"):
        SAMPLERS["annealing"]
