"""A goal in one text: what a run gives to each model of its front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from compress.core.errors import InputError, one_line, unknown_name
from compress.core.quantities import number_text
from compress.plan.fields import plan_fields, value_of
from compress.plan.forms import Written, listed, text_of
from compress.plan.goal import GoalOptions
from compress.plan.target import TimeTarget

NAMES = tuple(item.name for item in fields(GoalOptions))


@dataclass(frozen=True)
class ShrinkTo(Written):
    """A goal: "latency=0.5x,max_drop=1".

    Attributes:
        goal: The goal.

    Example:
        >>> ShrinkTo.parse("macs=0.25x,no_train").goal.no_train
        True
        >>> str(ShrinkTo.parse("macs = 0.25x, no-train"))
        'macs=0.25x,no_train'
    """

    goal: GoalOptions

    @classmethod
    def parse(cls, text: str, name: str = "shrink_to") -> Self:
        """Reads names and values as `paretune shrink` calls them, with commas between.

        Raises:
            InputError: A name is unknown, a value breaks a rule, or nothing is asked for.
        """
        values: dict[str, Any] = {}
        for item in listed(text):
            key, sign, value = (part.strip() for part in item.partition("="))
            key = key.replace("-", "_")
            if key not in NAMES:
                raise unknown_name(f"goal of {name}", key, NAMES)
            if not sign and key != "no_train":
                raise InputError(f"{name} must give {key} a value. Received: {one_line(text)}.")
            if key == "no_train" and sign:
                if value.lower() not in ("true", "false"):
                    raise InputError(
                        f"{name} must hold no_train alone, without a value. Received: "
                        f"{one_line(item)}."
                    )
                if value.lower() == "false":
                    continue
            values[key] = True if key == "no_train" else value
        return cls._checked(values, name)

    @classmethod
    def of(cls, value: object, name: str = "shrink_to") -> Self:
        """Takes a dictionary of goals, or the goals themselves, too.

        Raises:
            InputError: See `parse`.
        """
        if isinstance(value, GoalOptions):
            return cls(value)
        if isinstance(value, Mapping):
            for key in value:
                if key not in NAMES:
                    raise unknown_name(f"goal of {name}", str(key), NAMES)
            return cls._checked(dict(value), name)
        return super().of(value, name)

    @classmethod
    def _checked(cls, values: dict[str, Any], name: str) -> Self:
        goal = GoalOptions(**values)
        if goal.latency_table is not None:
            raise InputError(
                f"{name} must be good for each model of a run. Received: latency_table, which is "
                "of one. Give it to paretune shrink."
            )
        if not goal.costs and not goal.judged:
            raise InputError(
                f"{name} must name a cost or a quality, like latency=0.5x or max_drop=1. Received: "
                f"{', '.join(values) or 'nothing'}."
            )
        return cls(goal)

    def __str__(self) -> str:
        """Returns the text."""
        parts = []
        for item in fields(GoalOptions):
            value = getattr(self.goal, item.name)
            if value != item.default:
                parts.append(item.name if value is True else f"{item.name}={text_of(value)}")
        return ",".join(parts)


def explain_bare_latencies(plan: Any) -> tuple[str, ...]:
    """Return a sentence for each latency that was given as a text without a unit.

    Such a text was milliseconds before; a share of the original's latency is meant today.
    """
    values = {leaf.flags[0]: value_of(plan, leaf) for leaf in plan_fields(type(plan))}
    for flag, value in tuple(values.items()):
        if isinstance(value, ShrinkTo):
            values[f"latency of {flag}"] = value.goal.latency
    return tuple(
        f"{name} {number_text(value.amount)} is read as {value}, a share of the original's "
        f"latency. It meant milliseconds before: write {number_text(value.amount)}ms for these."
        for name, value in values.items()
        if isinstance(value, TimeTarget) and value.bare
    )
