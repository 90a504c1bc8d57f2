"""Every sampler by the same contract, and what is special about some."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from compress.core.errors import InputError
from search.plugins import SAMPLERS
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


def test_qmc_points_of_one_study_are_one_sequence() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    points = []
    for count in range(17):
        study.sampler = SAMPLERS["qmc"](1000 * count)
        trial = study.ask()
        points.append([trial.suggest_float(name, 0.0, 1.0) for name in "xyz"])
        study.tell(trial, [1.0, 1.0])
    # the first is random; Sobol's first 16 fall one into each sixteenth of each axis
    cells = np.floor(16 * np.array(points[1:])).astype(int)
    for axis in cells.T:
        assert sorted(axis) == list(range(16))
