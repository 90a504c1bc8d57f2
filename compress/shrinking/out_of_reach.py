"""Goals that no choice of widths and blocks comes to, and what comes nearest."""

from __future__ import annotations

from collections.abc import Mapping

from compress.core.errors import FeasibleError
from compress.plan import ChannelOptions
from compress.prune.channels.selection.allowed import ladder
from compress.shrinking.goals import cost_text


class OutOfReach(FeasibleError):
    """No choice comes to a goal.

    Attributes:
        used: What the nearest one takes, as a share of the goal: above 1.
    """

    def __init__(self, message: str, used: float) -> None:
        super().__init__(message)
        self.used = used


def out_of_reach(
    format: str,
    goals: Mapping[str, float],
    costs: Mapping[str, float],
    options: ChannelOptions,
    tried: int | None = None,
) -> OutOfReach:
    """Returns the error of goals that no choice came to.

    Args:
        format: Of the files.
        goals: What was asked for.
        costs: Of the nearest file.
        options: Floors and steps of the choices.
        tried: How many files were measured; None: the nearest one is as thin as can be.
    """
    missed = [key for key, goal in goals.items() if costs[key] > goal]
    each = ", ".join(
        f"{cost_text(key, costs[key])} (asked for {cost_text(key, goals[key])})" for key in missed
    )
    least = "at least " if tried is None else ""
    held = (
        f"every layer is thinned as far as min_kept={options.min_kept:g} and multiples of "
        f"{ladder(options)[-1]} let it"
        if tried is None
        else f"none of {tried} files came to it"
    )
    article = "An" if format[0] in "aeio" else "A"
    return OutOfReach(
        f"{article} {format} file must be able to meet the goal. Received: {least}{each}, "
        f"where {held}. Ask for more, lower min_kept or round_to, or name other formats.",
        max(costs[key] / goal for key, goal in goals.items()),
    )
