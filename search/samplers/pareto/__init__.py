"""The Pareto sampler, which uses the costs of candidates before they are trained."""

from search.samplers.pareto.sampler import ParetoSampler

__all__ = ["ParetoSampler"]
