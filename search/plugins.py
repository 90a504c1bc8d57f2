"""Registries of the search: spaces, samplers and engines.

`compress.plugins` holds the registries of `compress`.
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
"""Instances of `search.spaces.Space`. `search.spaces.resolve_space` also accepts functions."""

SAMPLERS: Registry[Any] = Registry(
    "sampler",
    {
        "random": "optuna.samplers:RandomSampler",
        "grid": "search.samplers.grid:GridSampler",
        "qmc": "search.samplers._optuna:create_qmc_sampler",
        "greedy": "search.samplers.greedy:GreedySampler",
        "evolution": "search.samplers.evolution:EvolutionSampler",
        "nsga2": "search.samplers._optuna:create_nsga2_sampler",
        "nsga3": "search.samplers._optuna:create_nsga3_sampler",
        "tpe": "search.samplers._optuna:create_tpe_sampler",
        "pareto": "search.samplers.pareto:ParetoSampler",
    },
    removed={
        "cmaes": "No measurement supports it, and Optuna's CMA-ES has one objective only. Use "
        "'pareto', the default, or 'tpe'.",
    },
)
"""Callables `(seed) -> optuna.samplers.BaseSampler` that support several objectives."""

ENGINES: Registry[Any] = Registry(
    "engine",
    {
        "local": "search.engines.local:ENGINE",
        "ray": Entry("search.engines.ray.engine:ENGINE", ("ray",)),
    },
)
"""Instances of `search.engines.Engine`, which start the workers."""
