"""Our strategies against random search where the truth is known (pytest -s shows numbers)."""

from __future__ import annotations

from functools import cache
from statistics import median
from typing import Any

import numpy as np
import optuna
import pytest

from search.plugins import SAMPLERS
from tests.search.samplers.landscape import best_error, dominated, measure, search

SEEDS, TRIALS = 20, 100
MARGIN = 0.03


@cache
def volumes(name: str) -> tuple[float, ...]:
    """Hypervolumes after TRIALS trials, by the networks' values without noise."""
    found = [dominated(search(SAMPLERS[name], seed, TRIALS)) for seed in range(SEEDS)]
    print(f"\n{name}: median {median(found):.4f}, {min(found):.4f} to {max(found):.4f}")
    return tuple(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["greedy", "evolution"])
def test_beats_random_in_equal_trials(name: str) -> None:
    ours, random = volumes(name), volumes("random")
    wins = sum(one > other for one, other in zip(ours, random, strict=True))
    print(f"{name} wins {wins} of {SEEDS}")
    assert median(ours) > median(random) * (1 + MARGIN)
    assert wins >= 15


def test_the_front_is_known() -> None:
    best: dict[str, Any] = {"stages": 2, "residual": True, "stem": 8}
    for stage, width in ((1, 32), (2, 64)):
        best |= {f"stage{stage}.width": width, f"stage{stage}.blocks": 1}
        best |= {f"stage{stage}.kind": "separable", f"stage{stage}.kernel": 5}
    best |= {"optimizer": "adam", "learning_rate.adam": 3e-3}
    best |= {"schedule": "cosine", "weight_decay": 1e-4}
    quality, cost = measure(optuna.trial.FixedTrial(best))
    assert 1 - quality == pytest.approx(best_error(cost))
    # and nothing is beyond it
    for quality, cost in search(SAMPLERS["greedy"], 0, TRIALS):
        assert 1 - quality >= best_error(cost) - 1e-12


@pytest.mark.slow
def test_no_volume_is_above_the_fronts() -> None:
    costs = np.logspace(4.5, 7.4, 200)
    front = dominated([(1 - best_error(cost), cost) for cost in costs])
    assert max(volumes("greedy") + volumes("evolution")) < front
