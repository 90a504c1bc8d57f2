"""The sampler that knows what candidates cost before they are trained."""

from search.samplers.pareto.sampler import ParetoSampler

__all__ = ["ParetoSampler"]
