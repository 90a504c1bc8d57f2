"""Choices declared as data: they are asked, counted and completed without building a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

Chosen = dict[str, Any]
"""Complete choices: name -> value, without those whose condition does not hold."""


@dataclass(frozen=True)
class Choice:
    """One question to a trial; see `pick`, `whole` and `steps`.

    Attributes:
        name: Of the parameter, unique in its space.
        values: All there are, in the order in which the sampler knows them.
        kind: "categorical", "int" (consecutive) or "float" (equally spaced).
        when: Name of an earlier choice and its values at which this one is asked; None: always.
        least: The value of fewest MACs, whatever else is chosen.
        most: The value of most MACs.
    """

    name: str
    values: tuple[Any, ...]
    kind: str
    when: tuple[str, tuple[Any, ...]] | None
    least: Any
    most: Any

    @property
    def counts(self) -> bool:
        """Whether the values are numbers in rising order."""
        numbers = [value for value in self.values if type(value) in (int, float)]
        return len(numbers) == len(self.values) and numbers == sorted(numbers)

    def asked(self, chosen: Chosen) -> bool:
        """Tells whether the condition holds, given the earlier choices."""
        return self.when is None or chosen.get(self.when[0]) in self.when[1]

    def distribution(self) -> BaseDistribution:
        """Returns what a trial samples from."""
        from optuna import distributions

        low, high = self.values[0], self.values[-1]
        if self.kind == "int":
            return distributions.IntDistribution(low, high)
        if self.kind == "float":
            step = (high - low) / (len(self.values) - 1)
            return distributions.FloatDistribution(low, high, step=step)
        return distributions.CategoricalDistribution(self.values)

    def ask(self, trial: BaseTrial) -> Any:
        """Asks the trial."""
        low, high = self.values[0], self.values[-1]
        if self.kind == "int":
            return trial.suggest_int(self.name, low, high)
        if self.kind == "float":
            step = (high - low) / (len(self.values) - 1)
            return trial.suggest_float(self.name, low, high, step=step)
        return trial.suggest_categorical(self.name, self.values)


def pick(
    name: str,
    values: Sequence[Any],
    when: tuple[str, tuple[Any, ...]] | None = None,
    *,
    least: Any = None,
    most: Any = None,
) -> Choice:
    """Declares a choice among `values`; the smallest has fewest MACs unless told otherwise."""
    return Choice(
        name,
        tuple(values),
        "categorical",
        when,
        min(values) if least is None else least,
        max(values) if most is None else most,
    )


def whole(
    name: str, low: int, high: int, when: tuple[str, tuple[Any, ...]] | None = None
) -> Choice:
    """Declares a whole number from `low` to `high`, both included; more means more MACs."""
    return Choice(name, tuple(range(low, high + 1)), "int", when, low, high)


def steps(name: str, high: float, step: float) -> Choice:
    """Declares a number from 0 to `high` in steps; it costs no MACs, and 0 stands for it."""
    below = (index * step for index in range(round(high / step)))
    return Choice(name, (*below, high), "float", None, 0.0, 0.0)


def choose(trial: BaseTrial, choices: Sequence[Choice]) -> Chosen:
    """Asks a trial for every choice whose condition holds, in order."""
    chosen: Chosen = {}
    for choice in choices:
        if choice.asked(chosen):
            chosen[choice.name] = choice.ask(trial)
    return chosen


def extreme(choices: Sequence[Choice], most: bool) -> Chosen:
    """Returns the complete choices of most (or fewest) MACs."""
    chosen: Chosen = {}
    for choice in choices:
        if choice.asked(chosen):
            chosen[choice.name] = choice.most if most else choice.least
    return chosen


def between(choices: Sequence[Choice], other: Chosen, share: float) -> Chosen:
    """Returns complete choices that lie between those of fewest MACs and others.

    Each number goes a share of the way through its values, from `least` to the other's;
    what is no number (a kind of layer, a path that is there or not) changes at the end of the
    way, as it may well cost more than all the rest.

    Args:
        choices: All of a space.
        other: Complete choices; what they do not have stays at `least`.
        share: In [0, 1]. 0: the fewest MACs; 1: the others.
    """
    chosen: Chosen = {}
    for choice in choices:
        if choice.asked(chosen):
            low = choice.values.index(choice.least)
            high = choice.values.index(other.get(choice.name, choice.least))
            way = share if choice.counts else math.floor(share)
            chosen[choice.name] = choice.values[low + round(way * (high - low))]
    return chosen


def count(choices: Sequence[Choice]) -> int:
    """Returns the exact number of complete choices.

    Each choice has one condition at most, so the conditions form a forest: a choice offers
    the sum over its values of the product over the choices asked at that value.
    """
    followers: dict[str, list[tuple[Choice, tuple[Any, ...]]]] = {}
    for choice in choices:
        if choice.when is not None:
            followers.setdefault(choice.when[0], []).append((choice, choice.when[1]))

    def ways(choice: Choice) -> int:
        return sum(
            math.prod(ways(after) for after, at in followers.get(choice.name, ()) if value in at)
            for value in choice.values
        )

    return math.prod(ways(choice) for choice in choices if choice.when is None)
