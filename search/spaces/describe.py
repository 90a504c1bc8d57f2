"""The description of a space: its parameters, the number of choices, the costs of its models.

Declared choices are read directly; spaces that are functions are called on random trials.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna import distributions
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FixedTrial

from compress.core.errors import InputError
from compress.core.quantities import MAX_SEED, MAX_SEED_REASON, parse_integer
from compress.data import Dataset
from compress.measure import count_macs
from search.samplers._base import count_values, find_condition
from search.spaces._base import Choice, Chosen, DeclaredSpace, Space

SAMPLES = 32
"""Default number of models of a user-defined space that are built."""


def describe_space(
    space: Space, data: Dataset, seed: int = 0, samples: int = SAMPLES
) -> Description:
    """Return the description of a space for a data set, without any training.

    For a built-in space, everything is exact and three models are built. For a user-defined space,
    the parameters, their conditions and the costs are those of random samples, from which the
    number of choices is estimated.

    Args:
        space: Result of `resolve_space`.
        data: The data set.
        seed: Seed of the samples.
        samples: Number of models of a user-defined space to build, at least 1.

    Raises:
        InputError: The space does not support the data, or no sample yields a model.
    """
    parse_integer(samples, "samples", least=1, most=1_000_000, why="each builds a model")
    parse_integer(seed, "seed", least=0, most=MAX_SEED, why=MAX_SEED_REASON)
    space.check(data)
    if isinstance(space, DeclaredSpace):
        return _describe_declared(space, data)
    return _describe_sampled(space, data, seed, samples)


@dataclass(frozen=True)
class Description:
    """The description of a space for a data set.

    Attributes:
        space: Name of the space.
        data: Name of the data set.
        input_shape: Shape of one example.
        parameters: Parameters in sampling order.
        architectures: Number of distinct complete choices (two may yield the same model);
            None: infinite, because a parameter is continuous.
        error: Standard error of `architectures` if estimated from samples; None: exact.
        macs: Lowest and highest MACs.
        params: Lowest and highest number of parameters.
        bounds_of: Number of samples behind `macs` and `params`; 0: the whole space.
        example: The baseline, or a sample if the space has none.
        is_baseline: Whether `example` is the baseline.
        failures: Errors of the samples without a model.
    """

    space: str
    data: str
    input_shape: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    architectures: int | None
    error: float | None
    macs: tuple[int, int]
    params: tuple[int, int]
    bounds_of: int
    example: SampleCosts
    is_baseline: bool
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the description as JSON; distributions are in Optuna's format."""
        record = asdict(self)
        record["parameters"] = [
            {
                "name": parameter.name,
                "condition": parameter.condition,
                "distribution": json.loads(distribution_to_json(parameter.distribution)),
            }
            for parameter in self.parameters
        ]
        return record


@dataclass(frozen=True)
class Parameter:
    """A parameter of a space.

    Attributes:
        name: Name of the parameter in a trial.
        distribution: Optuna's distribution.
        condition: Condition under which it is sampled; "": always.
    """

    name: str
    distribution: BaseDistribution
    condition: str = ""


@dataclass(frozen=True)
class SampleCosts:
    """Choices and the costs of their model, counted by `compress.count_macs`."""

    chosen: Chosen
    macs: int
    params: int


def measure_costs(space: Space, chosen: Chosen, data: Dataset) -> SampleCosts:
    """Build the model of complete choices and count its costs.

    Args:
        space: The space.
        chosen: Complete choices.
        data: The data of the search.
    """
    analysis = count_macs(space.build(FixedTrial(chosen), data))
    return SampleCosts(dict(chosen), analysis.macs, analysis.params)


def measure_bounds(space: DeclaredSpace, data: Dataset) -> tuple[SampleCosts, SampleCosts]:
    """Return the costs of the smallest and the largest model."""
    smallest, largest = space.smallest(data), space.largest(data)
    return measure_costs(space, smallest, data), measure_costs(space, largest, data)


def _describe_declared(space: DeclaredSpace, data: Dataset) -> Description:
    """Return a declared space's description, with exact bounds and the baseline's costs."""
    choices = space.choices(data)
    low, high = measure_bounds(space, data)
    return Description(
        space.name,
        data.name,
        data.input_shape,
        tuple(
            Parameter(choice.name, choice.to_distribution(), _format_condition(choice, choices))
            for choice in choices
        ),
        count_choices(choices),
        None,
        (low.macs, high.macs),
        (low.params, high.params),
        0,
        measure_costs(space, space.baseline(data), data),
        is_baseline=True,
    )


def count_choices(choices: Sequence[Choice]) -> int:
    """Return the exact number of complete choices.

    Each choice has at most one condition, so the conditions form a forest. The number of
    combinations of a choice is the sum over its values of the product over the choices active for
    that value.
    """
    followers: dict[str, list[tuple[Choice, tuple[Any, ...]]]] = {}
    for choice in choices:
        if choice.when is not None:
            followers.setdefault(choice.when[0], []).append((choice, choice.when[1]))

    def count_combinations(choice: Choice) -> int:
        return sum(
            math.prod(
                count_combinations(follower)
                for follower, condition_values in followers.get(choice.name, ())
                if value in condition_values
            )
            for value in choice.values
        )

    return math.prod(count_combinations(choice) for choice in choices if choice.when is None)


def _format_condition(choice: Choice, choices: Sequence[Choice]) -> str:
    """Return the condition under which a parameter is sampled, like "stages >= 2"; "" if always."""
    if choice.when is None:
        return ""
    name, values = choice.when
    parent = next(other for other in choices if other.name == name)
    if values == parent.values:
        return ""
    if parent.kind == "int" and len(values) > 1 and values[-1] == parent.most:
        return f"{name} >= {values[0]}"
    return f"{name} = {' or '.join(map(str, values))}"


def _describe_sampled(space: Space, data: Dataset, seed: int, samples: int) -> Description:
    """Return a space's description estimated from random samples; raise if none gives a model."""
    baseline = space.baseline(data)
    drawn_samples = sample_space(space, data, seed, samples, baseline)
    valid_samples = [item for item in drawn_samples if not item.failure]
    architectures, error = estimate_size([item for item in drawn_samples if not item.fixed])
    macs, params = [item.macs for item in valid_samples], [item.params for item in valid_samples]
    example = valid_samples[0]
    return Description(
        space.name,
        data.name,
        data.input_shape,
        _list_parameters(valid_samples),
        architectures,
        error,
        (min(macs), max(macs)),
        (min(params), max(params)),
        len(valid_samples),
        SampleCosts(example.chosen, example.macs, example.params),
        is_baseline=example.fixed,
        failures=tuple(item.failure for item in drawn_samples if item.failure),
    )


def _list_parameters(samples: Sequence[Sample]) -> tuple[Parameter, ...]:
    """Return the parameters of the samples, including those that only later samples have."""
    names: dict[str, BaseDistribution] = {}
    for item in samples:
        names = item.distributions | names
    longest = sorted(samples, key=lambda item: -len(item.distributions))
    order = list(dict.fromkeys(name for item in longest for name in item.distributions))
    return tuple(Parameter(name, names[name], infer_condition(name, samples)) for name in order)


@dataclass(frozen=True)
class Sample:
    """One call of a space.

    Attributes:
        chosen: Sampled values by parameter, in sampling order.
        distributions: Distributions by parameter.
        macs: MACs of the model; 0 without a model.
        params: Number of parameters of the model; 0 without a model.
        fixed: Whether the values were given (the baseline) instead of sampled.
        failure: Error of the call; "": there is a model.
    """

    chosen: Chosen
    distributions: dict[str, BaseDistribution]
    macs: int
    params: int
    fixed: bool
    failure: str


def sample_space(
    space: Space, data: Dataset, seed: int, samples: int, fixed: Chosen
) -> tuple[Sample, ...]:
    """Call a space on random trials; all values of an integer or category are equally likely.

    Args:
        space: The space.
        data: The data set.
        seed: Seed of the samples.
        samples: Number of samples, besides the trial of `fixed`.
        fixed: Values of a first trial; {}: no such trial.

    Raises:
        InputError: No trial yields a model.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=_UniformSampler(seed=seed))
    if fixed:
        study.enqueue_trial(fixed)
    drawn_samples = [
        _call_space(space, data, study.ask(), is_fixed=bool(fixed) and index == 0)
        for index in range(samples + bool(fixed))
    ]
    if all(item.failure for item in drawn_samples):
        raise InputError(
            f"Space '{space.name}' must give models. Received: an error in each of "
            f"{len(drawn_samples)} samples, first {drawn_samples[0].failure}"
        )
    return tuple(drawn_samples)


class _UniformSampler(optuna.samplers.RandomSampler):
    """A random sampler with a uniform distribution of integers, even for those on a log scale."""

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one parameter."""
        if isinstance(param_distribution, distributions.IntDistribution):
            low, high, step = (getattr(param_distribution, at) for at in ("low", "high", "step"))
            param_distribution = distributions.IntDistribution(low, high, step=step)
        return super().sample_independent(study, trial, param_name, param_distribution)


def _call_space(space: Space, data: Dataset, trial: Any, is_fixed: bool) -> Sample:
    macs, params, failure = 0, 0, ""
    try:
        analysis = count_macs(space.build(trial, data))
        macs, params = analysis.macs, analysis.params
    except Exception as error:
        # errors of a user's function do not end a search either, but only fail the trial
        failure = f"{type(error).__name__}: {error}"
    return Sample(dict(trial.params), dict(trial.distributions), macs, params, is_fixed, failure)


def estimate_size(samples: Sequence[Sample]) -> tuple[int | None, float]:
    """Return an estimate, from random samples, of the number of complete choices with a model.

    The estimate is the mean over samples of the product of the numbers of values of the sampled
    parameters, with 0 for a failed sample. It is unbiased if all values of a parameter are equally
    likely.

    Args:
        samples: Random samples, at least one.

    Returns:
        The number (None: infinite) and the standard error of the mean.

    Reference:
        Knuth 1975, "Estimating the efficiency of backtrack programs", Mathematics of
        Computation 29, section 3; here for leaves only.
    """
    sizes = [
        0.0 if item.failure else math.prod(map(count_values, item.distributions.values()))
        for item in samples
    ]
    mean = sum(sizes) / len(sizes)
    if math.isinf(mean):
        return None, 0.0
    variance = sum((size - mean) ** 2 for size in sizes) / max(1, len(sizes) - 1)
    return round(mean), math.sqrt(variance / len(sizes))


def infer_condition(name: str, samples: Sequence[Sample]) -> str:
    """Return the condition under which a parameter is sampled, from samples; "": always.

    The likely condition is a value of an earlier parameter that differs between the samples with
    and without the parameter. If there is none, only the share of the samples is returned.

    Args:
        name: Name of the parameter.
        samples: Samples of the space.
    """
    count = sum(name in item.chosen for item in samples)
    if count == len(samples):
        return ""
    share_text = f"{count} of {len(samples)} samples"
    decision = find_condition(name, [item.chosen for item in samples])
    if decision is None:
        return share_text
    other, values = decision
    return f"{other} = {' or '.join(map(str, sorted(values, key=str)))} ({share_text})"
