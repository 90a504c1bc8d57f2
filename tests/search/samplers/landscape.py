"""A made-up landscape over choices like those of space `cnn`, whose front is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna

from compress.core.pareto import measure_hypervolume
from search.spaces._base import Choice, declare_categorical, declare_int

WIDTHS = ((8, 16, 24, 32), (16, 24, 32, 48, 64), (32, 48, 64, 96))
RATES = {"sgd": 0.1, "momentum": 0.05, "adam": 3e-3, "rmsprop": 1e-3}
BEHIND = {"sgd": 0.05, "momentum": 0.02, "adam": 0.0, "rmsprop": 0.02}
NOISE = 0.004
REFERENCE = (0.6, math.log10(3e7))
"""Of (error, log10 of the cost): chance, and a little above the largest network."""


def _choices() -> Iterator[Choice]:
    yield declare_int("stages", 1, 3)
    yield declare_categorical("residual", (False, True))
    yield declare_categorical("stem", (8, 16, 24))
    for stage, widths in enumerate(WIDTHS, start=1):
        there = ("stages", tuple(range(stage, 4)))
        yield declare_categorical(f"stage{stage}.width", widths, there)
        yield declare_int(f"stage{stage}.blocks", 1, 2, there)
        yield declare_categorical(f"stage{stage}.kind", ("plain", "separable"), there)
        yield declare_categorical(
            f"stage{stage}.kernel", (3, 5), (f"stage{stage}.kind", ("separable",))
        )


SPACE = tuple(_choices())
"""What `network` asks, declared."""


def measure(trial: Any) -> tuple[float, float]:
    """Returns (quality without noise, cost) of a trial's choices.

    Quality saturates in the logarithm of the cost; choices that are not the best ones of
    their parameter take something off. Where none does, the error is `best_error(cost)`:
    the front.
    """
    lost, cost = network(trial)
    name = trial.suggest_categorical("optimizer", tuple(RATES))
    best = RATES[name]
    rate = trial.suggest_float(f"learning_rate.{name}", best / 10, best * 10, log=True)
    lost += BEHIND[name] + 0.08 * math.log10(rate / best) ** 2
    lost += {"constant": 0.02, "step": 0.01, "cosine": 0.0}[
        trial.suggest_categorical("schedule", ("constant", "step", "cosine"))
    ]
    decay = trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True)
    lost += 0.02 * (math.log10(decay) + 4) ** 2
    return 1 - best_error(cost) - lost, cost


def network(trial: Any) -> tuple[float, float]:
    """Returns (what its choices take off, cost) of a network, however it is trained."""
    stages = trial.suggest_int("stages", 1, 3)
    lost = 0.0 if trial.suggest_categorical("residual", (False, True)) else 0.01 * (stages - 1)
    cost, width, pixels = 0.0, trial.suggest_categorical("stem", (8, 16, 24)), 28 * 28
    cost += 9 * width * pixels
    for stage in range(1, stages + 1):
        new = trial.suggest_categorical(f"stage{stage}.width", WIDTHS[stage - 1])
        blocks = trial.suggest_int(f"stage{stage}.blocks", 1, 2)
        kernel = 3
        separable = trial.suggest_categorical(f"stage{stage}.kind", ("plain", "separable"))
        if separable == "separable":
            kernel = trial.suggest_categorical(f"stage{stage}.kernel", (3, 5))
            cost += blocks * pixels * new * (width + kernel**2)
            lost += 0.01 * (kernel == 3)
        else:
            cost += blocks * pixels * new * width * 9
            lost += 0.02  # a plain convolution gives less for its cost
        lost += 0.01 * abs(math.log2(new / width) - 1) if stage > 1 else 0.0
        width, pixels = new, pixels // 4
    return lost, cost


def cost_of(chosen: dict[str, Any]) -> tuple[float]:
    """Returns what a network costs, as samplers that know costs ask for it."""
    return (network(optuna.trial.FixedTrial(chosen))[1],)


def best_error(cost: float) -> float:
    """Returns the error of the best network of a cost: 0.3 at 10^4, falling to 0.05."""
    return 0.05 + 0.25 * math.exp(-1.2 * (math.log10(cost) - 4))


def dominated(values: list[tuple[float, float]]) -> float:
    """Returns the hypervolume of (quality, cost) pairs."""
    losses = np.array([[1 - quality, math.log10(cost)] for quality, cost in values])
    return measure_hypervolume(losses, REFERENCE)


def search(sampler: Any, seed: int, trials: int) -> list[tuple[float, float]]:
    """Searches as a run does, with a new sampler for each trial and noisy qualities.

    Args:
        sampler: Returns one for a seed; one that knows spaces is given this one and its costs.
        seed: Of the samplers and the noise.
        trials: How many.

    Returns:
        The tried networks' values without noise.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    knows = getattr(sampler, "KNOWS_SPACE", False)
    more: dict[str, Any] = {"space": SPACE, "costs": cost_of} if knows else {}
    noise = np.random.default_rng(seed).normal(scale=NOISE, size=trials)
    values = []
    for count in range(trials):
        study.sampler = sampler((seed * 1_000_003 + count) % 2**31, **more)
        trial = study.ask()
        quality, cost = measure(trial)
        study.tell(trial, [quality + noise[count], cost])
        values.append((quality, cost))
    return values
