"""The search's own sampler, with one thing that it uses left out at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from search.samplers import SAMPLERS
from search.samplers._base import Choices
from search.samplers.pareto import ParetoSampler
from search.samplers.pareto.history import Curves, History, Questions, reported


class WithoutCosts(ParetoSampler):
    """Learns what candidates cost from told trials, as a search that knows nothing of them."""

    def __init__(
        self, seed: int, space: Any = None, costs: Any = None, curves: Curves = reported
    ) -> None:
        super().__init__(seed, space, None, curves)


class WithoutCurves(ParetoSampler):
    """Does not look at trials that were stopped."""

    def __init__(
        self, seed: int, space: Any = None, costs: Any = None, curves: Curves = reported
    ) -> None:
        super().__init__(seed, space, costs, lambda trial: {})


class WithoutPredictor(ParetoSampler):
    """Draws candidates that are spread over the costs, whatever was told."""

    def _promising(
        self, questions: Questions, history: History, rng: np.random.Generator
    ) -> tuple[list[Choices], str]:
        return self._spread(questions, history, int(rng.integers(2**31)), rng), ""


ABLATED: dict[str, Callable[..., Any]] = {
    "pareto-without-costs": WithoutCosts,
    "pareto-without-predictor": WithoutPredictor,
    "pareto-without-curves": WithoutCurves,
}


def sampler_named(name: str) -> Callable[..., Any]:
    """Returns what makes a sampler for a seed, whole or ablated."""
    return ABLATED[name] if name in ABLATED else SAMPLERS[name]


def made(name: str, seed: int, number: int, known: Mapping[str, Any]) -> Any:
    """Returns the sampler of one trial, as a search makes it.

    Args:
        name: See `sampler_named`.
        seed: Of the search.
        number: Trials before.
        known: What samplers that know spaces are given.
    """
    make = sampler_named(name)
    more = known if getattr(make, "KNOWS_SPACE", False) else {}
    return make((seed * 1_000_003 + number) % 2**31, **more)
