"""When a parameter is asked, judged by the choices of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def deciding(name: str, many: Sequence[Mapping[str, Any]]) -> tuple[str, set[Any]] | None:
    """Returns what decides whether a parameter is asked.

    Args:
        name: Of the parameter.
        many: Choices of trials, each in the order in which they were asked.

    Returns:
        The first earlier choice whose values differ between trials with and without the
        parameter, and its values in those with it; None: all have it, or nothing decides.

    Example:
        >>> deciding("rate", [{"how": "sgd", "rate": 0.1}, {"how": "none"}])
        ('how', {'sgd'})
    """
    asked = [chosen for chosen in many if name in chosen]
    if not asked or len(asked) == len(many):
        return None
    for other in asked[0]:
        if other == name:
            break
        if not all(other in chosen for chosen in asked):
            continue
        values = {chosen[other] for chosen in asked}
        if not any(chosen.get(other) in values for chosen in many if name not in chosen):
            return other, values
    return None
