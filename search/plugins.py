"""The tables of what can be added to `search`: spaces, samplers and engines.

See `compress.plugins`, which has those of `compress`.
"""

from __future__ import annotations

from typing import Any

from compress.core.registry import Entry, Registry

SPACES: Registry[Any] = Registry(
    "space",
    {
        "cnn": "search.spaces.cnn:SPACE",
        "mlp": "search.spaces.mlp:SPACE",
        "mobilenet": "search.spaces.mobilenet:SPACE",
        "resnet": "search.spaces.resnet:SPACE",
    },
)
"""`search.spaces.Space`; `search.spaces.space_for` also takes around:model.keras and functions."""

SAMPLERS: Registry[Any] = Registry(
    "sampler",
    {
        "random": "optuna.samplers:RandomSampler",
        "grid": "search.samplers.grid:GridSampler",
        "qmc": "search.samplers._optuna:qmc",
        "greedy": "search.samplers.greedy:GreedySampler",
        "evolution": "search.samplers.evolution:EvolutionSampler",
        "nsga2": "search.samplers._optuna:nsga2",
        "nsga3": "search.samplers._optuna:nsga3",
        "tpe": "search.samplers._optuna:tpe",
        "pareto": "search.samplers.pareto:ParetoSampler",
    },
    removed={
        "cmaes": "No measurement supports it, and Optuna's CMA-ES has one objective only. Use "
        "'pareto', the default, or 'tpe'.",
    },
)
"""`make(seed) -> optuna.samplers.BaseSampler`, for several objectives."""

ENGINES: Registry[Any] = Registry(
    "engine",
    {
        "local": "search.engines.local:ENGINE",
        "ray": Entry("search.engines.ray.engine:ENGINE", ("ray",)),
    },
)
"""`search.engines.Engine`: where workers run."""
