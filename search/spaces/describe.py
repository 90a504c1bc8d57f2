"""The description of a space: its parameters, the number of choices, costs of its models.

What declares its choices is read; what is only a function is called on random trials.
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
from compress.core.quantities import MOST_SEED, SEED_BITS, parse_whole_number
from compress.data import Dataset
from compress.measure import count_macs
from search.samplers._base import deciding, value_count
from search.spaces._base import Choice, Chosen, DeclaredSpace, Space, count

SAMPLES = 32


def describe(space: Space, data: Dataset, seed: int = 0, samples: int = SAMPLES) -> Description:
    """Describe a space for a data set; nothing is trained.

    Of a built-in space everything is exact and three models are built. Of the user's own the
    parameters, their conditions and the costs are those of random samples, and the number of
    choices is estimated from them.

    Args:
        space: From `space_for`.
        data: What its models are for.
        seed: Of the samples.
        samples: How many models of the user's own space are built, at least 1.

    Raises:
        InputError: The space cannot serve the data, or no sample gives a model.
    """
    parse_whole_number(samples, "samples", least=1, most=1_000_000, why="each builds a model")
    parse_whole_number(seed, "seed", least=0, most=MOST_SEED, why=SEED_BITS)
    space.check(data)
    if isinstance(space, DeclaredSpace):
        return _declared(space, data)
    return _sampled(space, data, seed, samples)


@dataclass(frozen=True)
class Description:
    """The description of a space for a data set.

    Attributes:
        space: Its name.
        data: The data set's name.
        input_shape: Of one example.
        parameters: In the order in which they are asked.
        architectures: Number of distinct complete choices (two may make the same model);
            None: infinite, as a parameter is continuous.
        error: Standard error of `architectures`, estimated by sampling; None: exact.
        macs: Least and most.
        params: Least and most.
        bounds_of: How many samples `macs` and `params` are of; 0: of the whole space.
        example: The baseline, or a sample where the space has none.
        is_baseline: Whether `example` is the baseline.
        failures: What went wrong in the samples that gave no model.
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
    example: Costs
    is_baseline: bool
    failures: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the same as JSON; distributions as Optuna writes them."""
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
    """One parameter of a space.

    Attributes:
        name: As a trial records it.
        distribution: Optuna's.
        condition: When it is asked; "": always.
    """

    name: str
    distribution: BaseDistribution
    condition: str = ""


@dataclass(frozen=True)
class Costs:
    """Choices and the costs of their model, counted by `compress.count_macs`."""

    chosen: Chosen
    macs: int
    params: int


def measured(space: Space, chosen: Chosen, data: Dataset) -> Costs:
    """Build the model of complete choices and count its costs."""
    analysis = count_macs(space.build(FixedTrial(chosen), data))
    return Costs(dict(chosen), analysis.macs, analysis.params)


def bounds(space: DeclaredSpace, data: Dataset) -> tuple[Costs, Costs]:
    """Return the costs of the smallest and the largest model."""
    smallest, largest = space.smallest(data), space.largest(data)
    return measured(space, smallest, data), measured(space, largest, data)


def _declared(space: DeclaredSpace, data: Dataset) -> Description:
    choices = space.choices(data)
    low, high = bounds(space, data)
    return Description(
        space.name,
        data.name,
        data.input_shape,
        tuple(
            Parameter(choice.name, choice.distribution(), _condition(choice, choices))
            for choice in choices
        ),
        count(choices),
        None,
        (low.macs, high.macs),
        (low.params, high.params),
        0,
        measured(space, space.baseline(data), data),
        is_baseline=True,
    )


def _condition(choice: Choice, choices: Sequence[Choice]) -> str:
    if choice.when is None:
        return ""
    name, values = choice.when
    parent = next(other for other in choices if other.name == name)
    if values == parent.values:
        return ""
    if parent.kind == "int" and len(values) > 1 and values[-1] == parent.most:
        return f"{name} >= {values[0]}"
    return f"{name} = {' or '.join(map(str, values))}"


def _sampled(space: Space, data: Dataset, seed: int, samples: int) -> Description:
    first = space.baseline(data)
    found = sample(space, data, seed, samples, first)
    built = [item for item in found if not item.failure]
    architectures, error = estimate([item for item in found if not item.fixed])
    macs, params = [item.macs for item in built], [item.params for item in built]
    example = built[0]
    return Description(
        space.name,
        data.name,
        data.input_shape,
        _parameters(built),
        architectures,
        error,
        (min(macs), max(macs)),
        (min(params), max(params)),
        len(built),
        Costs(example.chosen, example.macs, example.params),
        is_baseline=example.fixed,
        failures=tuple(item.failure for item in found if item.failure),
    )


def _parameters(samples: Sequence[Sample]) -> tuple[Parameter, ...]:
    """List the parameters of the samples; a later sample may bring new ones."""
    names: dict[str, BaseDistribution] = {}
    for item in samples:
        names = item.distributions | names
    longest = sorted(samples, key=lambda item: -len(item.distributions))
    order = list(dict.fromkeys(name for item in longest for name in item.distributions))
    return tuple(Parameter(name, names[name], condition(name, samples)) for name in order)


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
    """Call a space on random trials, each value of a parameter equally likely.

    Args:
        space: Any.
        data: What its models are for.
        seed: Of the samples.
        samples: How many, besides the first.
        first: Answers given in a trial before them; {}: no such trial.

    Raises:
        InputError: No trial gives a model.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
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
    """A sampler by which all values of a whole number are equally likely, on a log scale too."""

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Sample one parameter."""
        if isinstance(param_distribution, distributions.IntDistribution):
            low, high, step = (getattr(param_distribution, at) for at in ("low", "high", "step"))
            param_distribution = distributions.IntDistribution(low, high, step=step)
        return super().sample_independent(study, trial, param_name, param_distribution)


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
    """Estimate from random samples how many complete choices of a space give a model.

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
    """Return the condition under which a parameter is asked, by samples; "": it always is.

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
