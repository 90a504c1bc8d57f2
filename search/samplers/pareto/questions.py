"""What a trial is asked, in which order, and when: what complete candidates are made by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers._base import at, deciding, nearest, value_count
from search.samplers._mutation import other_value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Choices = dict[str, Any]
LOOKED_AT = 300
"""Told trials, at equal distances, that say when a parameter is asked."""


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


class Seen:
    """A parameter that nobody has declared, but trials were asked.

    Args:
        name: Of the parameter.
        distribution: Of its values.
        when: An earlier choice, and its values at which this one is asked; None: always.
    """

    def __init__(
        self, name: str, distribution: BaseDistribution, when: tuple[str, set[Any]] | None = None
    ) -> None:
        self.name = name
        self._distribution, self._when = distribution, when

    def distribution(self) -> BaseDistribution:
        """See `Question.distribution`."""
        return self._distribution

    def asked(self, chosen: Choices) -> bool:
        """See `Question.asked`."""
        return self._when is None or chosen.get(self._when[0]) in self._when[1]


class Questions:
    """All that trials are asked: what a space declares, then what else trials have shown.

    Args:
        declared: In order; or distributions by name, all of them always asked.
        seen: Distributions of trials by name: optimizers' settings, say.
        told: Choices of trials that were asked everything. They say when what is not declared is
            asked: the learning rate of an optimizer with that optimizer. Where they do not, it is
            asked always; the trial takes what it needs.
    """

    def __init__(
        self,
        declared: Iterable[Question] | Mapping[str, BaseDistribution],
        seen: Mapping[str, BaseDistribution],
        told: Sequence[Mapping[str, Any]],
    ) -> None:
        if isinstance(declared, Mapping):
            declared = [Seen(name, item) for name, item in declared.items()]
        self._asked: dict[str, Question] = {item.name: item for item in declared}
        some = told[:: max(1, len(told) // LOOKED_AT)]
        for name, item in seen.items():
            if name not in self._asked:
                self._asked[name] = Seen(name, item, deciding(name, some))
        self.distributions = {name: item.distribution() for name, item in self._asked.items()}
        self._free = [name for name, item in self.distributions.items() if not item.single()]

    def answered(self, chosen: Mapping[str, Any]) -> bool:
        """Tells whether choices answer all that is asked: a trial may be in the middle of it."""
        own = dict(chosen)
        return all(name in own for name, item in self._asked.items() if item.asked(own))

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
    """Draws a value: a thousand candidates are too many for a sampler of Optuna's for each.

    Args:
        distribution: Of a parameter; continuous and logarithmic ones are drawn on that scale, all
            values of others are equally likely.
        rng: Draws.

    Raises:
        TypeError: It is none of Optuna's.
    """
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
