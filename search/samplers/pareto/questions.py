"""What a trial is asked, in which order, and when: what complete candidates are made by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers._distributions import at, nearest, value_count
from search.samplers._mutation import other_value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Choices = dict[str, Any]


class Question(Protocol):
    """One choice of a space; `search.spaces._choices.Choice` is one."""

    @property
    def name(self) -> str:
        """Of the parameter."""
        ...

    def distribution(self) -> BaseDistribution:
        """Returns what a trial samples from."""
        ...

    def asked(self, chosen: Choices) -> bool:
        """Tells whether it is asked, given the earlier choices."""
        ...


class Always:
    """A parameter that is always asked.

    Args:
        name: Of the parameter.
        distribution: Of its values.
    """

    def __init__(self, name: str, distribution: BaseDistribution) -> None:
        self.name = name
        self._distribution = distribution

    def distribution(self) -> BaseDistribution:
        """See `Question.distribution`."""
        return self._distribution

    def asked(self, chosen: Choices) -> bool:
        """See `Question.asked`."""
        return True


class Questions:
    """All that trials are asked: what a space declares, then what else trials have shown.

    Args:
        declared: In order; or distributions by name, all of them always asked.
        seen: Distributions of told trials by name: optimizers' settings, say. Where nothing is
            declared, these are all there is; when they are asked is not known, and each
            candidate answers all of them.
    """

    def __init__(
        self,
        declared: Iterable[Question] | Mapping[str, BaseDistribution],
        seen: Mapping[str, BaseDistribution],
    ) -> None:
        if isinstance(declared, Mapping):
            declared = [Always(name, item) for name, item in declared.items()]
        own = {item.name: item for item in declared}
        more = {name: Always(name, item) for name, item in seen.items() if name not in own}
        self._asked: dict[str, Question] = {**own, **more}
        self.distributions = {name: item.distribution() for name, item in self._asked.items()}
        self._free = [name for name, item in self.distributions.items() if not item.single()]

    def drawn(self, rng: np.random.Generator) -> Choices:
        """Returns random complete choices, every value of a whole number equally likely."""
        return self._completed({}, rng)

    def changed(self, parent: Mapping[str, Any], rng: np.random.Generator, count: int) -> Choices:
        """Returns complete choices that differ from others in some.

        Args:
            parent: A told trial's parameters.
            rng: Draws.
            count: Choices that are changed; those that come with them are drawn.
        """
        chosen = {name: value for name, value in parent.items() if name in self._asked}
        free = [name for name in self._free if name in chosen]
        for place in rng.permutation(len(free))[:count]:
            name = free[place]
            chosen[name] = other_value(self.distributions[name], chosen[name], rng)
        return self._completed(chosen, rng)

    def _completed(self, given: Choices, rng: np.random.Generator) -> Choices:
        chosen: Choices = {}
        for name, item in self._asked.items():
            if item.asked(chosen):
                own = given[name] if name in given else drawn(self.distributions[name], rng)
                chosen[name] = own
        return chosen


def drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """Draws a value; on a logarithmic scale where the distribution is continuous and has one."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        raise TypeError(f"distribution must be one of Optuna's. Received: {distribution}.")
    count = value_count(distribution)
    if np.isfinite(count) and not distribution.log:
        return at(distribution, int(rng.integers(int(count))))
    if distribution.log:
        low, high = np.log(distribution.low), np.log(distribution.high)
        return nearest(distribution, float(np.exp(rng.uniform(low, high))))
    return nearest(distribution, float(rng.uniform(distribution.low, distribution.high)))
