"""What can be learnt of a space that is only a function: by calling it on random trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna import distributions
from optuna.distributions import BaseDistribution

from compress.core.errors import InputError
from compress.data import Dataset
from compress.measure import count_macs
from search.samplers._base import deciding, value_count
from search.spaces._choices import Chosen

if TYPE_CHECKING:
    from search.spaces._base import Space


@dataclass(frozen=True)
class Sample:
    """One call of a space.

    Attributes:
        chosen: What was asked and answered, in order.
        distributions: What the answers were sampled from.
        macs, params: Of the model; 0 if there is none.
        fixed: Whether answers were given (the baseline) instead of sampled.
        failure: Why there is no model; "": there is.
    """

    chosen: Chosen
    distributions: dict[str, BaseDistribution]
    macs: int
    params: int
    fixed: bool
    failure: str


def sample(
    space: Space, data: Dataset, seed: int, samples: int, first: Chosen
) -> tuple[Sample, ...]:
    """Calls a space on random trials, each value of a parameter equally likely.

    Args:
        space: Any.
        data: What its models are for.
        seed: Of the samples.
        samples: How many, besides the first.
        first: Answers given in a trial before them; {}: no such trial.

    Raises:
        InputError: No trial gives a model.
    """
    with _quiet():
        study = optuna.create_study(sampler=_Uniform(seed=seed))
        if first:
            study.enqueue_trial(first)
        found = [
            _call(space, data, study.ask(), fixed=bool(first) and index == 0)
            for index in range(samples + bool(first))
        ]
    if all(item.failure for item in found):
        raise InputError(
            f"Space '{space.name}' must give models. Received: an error in each of "
            f"{len(found)} samples, first {found[0].failure}"
        )
    return tuple(found)


class _Uniform(optuna.samplers.RandomSampler):
    """Makes all values of a whole number equally likely, on a log scale too."""

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Samples one parameter."""
        if isinstance(param_distribution, distributions.IntDistribution):
            low, high, step = (getattr(param_distribution, at) for at in ("low", "high", "step"))
            param_distribution = distributions.IntDistribution(low, high, step=step)
        return super().sample_independent(study, trial, param_name, param_distribution)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Optuna's lines about studies that nobody will see."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _call(space: Space, data: Dataset, trial: Any, fixed: bool) -> Sample:
    macs, params, failure = 0, 0, ""
    try:
        analysis = count_macs(space.build(trial, data))
        macs, params = analysis.macs, analysis.params
    except Exception as error:
        # the function is the user's: in a search, too, this would only fail the trial
        failure = f"{type(error).__name__}: {error}"
    return Sample(dict(trial.params), dict(trial.distributions), macs, params, fixed, failure)


def estimate(samples: Sequence[Sample]) -> tuple[int | None, float]:
    """Estimates from random samples how many complete choices of a space give a model.

    The mean over samples of the product of the numbers of values met on the way; 0 for a
    sample that failed. It is unbiased where all values of a parameter are equally likely.

    Returns:
        The number (None: infinite) and the standard error of the mean.

    Reference:
        Knuth 1975, "Estimating the efficiency of backtrack programs", Mathematics of
        Computation 29, section 3; here for leaves only.
    """
    sizes = [
        0.0 if item.failure else math.prod(map(value_count, item.distributions.values()))
        for item in samples
    ]
    mean = sum(sizes) / len(sizes)
    if math.isinf(mean):
        return None, 0.0
    variance = sum((size - mean) ** 2 for size in sizes) / max(1, len(sizes) - 1)
    return round(mean), math.sqrt(variance / len(sizes))


def condition(name: str, samples: Sequence[Sample]) -> str:
    """Returns when a parameter is asked, judged by samples; "": in all of them.

    A parameter that was asked before it and whose values differ between the samples with
    and without it is named as the likely reason.
    """
    count = sum(name in item.chosen for item in samples)
    if count == len(samples):
        return ""
    seen = f"{count} of {len(samples)} samples"
    found = deciding(name, [item.chosen for item in samples])
    if found is None:
        return seen
    other, values = found
    return f"{other} = {' or '.join(map(str, sorted(values, key=str)))} ({seen})"
