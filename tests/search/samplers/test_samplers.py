"""Every sampler by the same contract, and what is special about some."""

from __future__ import annotations

import pytest

from compress.core.errors import InputError
from search.samplers import SAMPLERS
from tests.contracts.sampler import SamplerContract


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


def test_every_sampler_is_under_the_contract() -> None:
    assert {kind.name for kind in SamplerContract.__subclasses__()} == set(SAMPLERS.names())


def test_an_unknown_sampler_lists_the_choices() -> None:
    with pytest.raises(InputError, match="evolution, greedy, grid"):
        SAMPLERS["annealing"]
