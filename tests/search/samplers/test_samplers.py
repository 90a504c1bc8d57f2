"""Every sampler by the same contract, and what is special about some."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from compress.core.errors import InputError, MissingDependency
from search.samplers import SAMPLERS
from tests.contracts.sampler import SamplerContract

ROOT = Path(__file__).parents[3]
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


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install torch"
)
class TestGP(SamplerContract):
    name = "gp"


class TestPareto(SamplerContract):
    name = "pareto"


class TestCmaEs(SamplerContract):
    name = "cmaes"


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_every_sampler_is_under_the_contract(name: str) -> None:
    """Skipped, with the reason, where its contract is skipped: it is then not tested."""
    (kind,) = [kind for kind in SamplerContract.__subclasses__() if kind.name == name]
    for mark in getattr(kind, "pytestmark", []):
        if mark.name == "skipif" and mark.args[0]:
            pytest.skip(f"'{name}' is not tested here: {mark.kwargs['reason']}")


def test_there_is_no_contract_of_nothing() -> None:
    assert {kind.name for kind in SamplerContract.__subclasses__()} == set(SAMPLERS.names())


def test_the_page_says_what_the_tested_set_leaves_out() -> None:
    """constraints.txt is what CI installs; a sampler that needs more is not tested there."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    installed = {line.partition("==")[0] for line in lines}
    page = " ".join((ROOT / "docs" / "howto" / "search.md").read_text("utf-8").split())
    assert NEEDS
    for name, package in NEEDS.items():
        said = f"`{name}` is not among what CI tests" in page
        assert said is (package not in installed), name


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_named_with_its_install_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(MissingDependency, match=rf"'{name}' .*pip install 'paretune\[{name}\]'"):
        SAMPLERS[name](0)


def test_an_unknown_sampler_lists_the_choices() -> None:
    with pytest.raises(InputError, match="evolution, gp, greedy, grid"):
        SAMPLERS["annealing"]
