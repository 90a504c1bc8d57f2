"""Goals that no choice of widths and blocks comes to, and what comes nearest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    others: Mapping[str, Mapping[str, float]] | None = None,
) -> OutOfReach:
    """Returns the error of goals that no choice came to.

    Args:
        format: Of the files.
        goals: What was asked for.
        costs: Of the nearest file.
        options: Floors and steps of the choices.
        tried: How many files were measured; None: the nearest one is as thin as can be.
        others: What the missed costs come to in files of other formats of the nearest net.
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
    each_of = {
        name: ", ".join(cost_text(key, value) for key, value in found.items())
        for name, found in (others or {}).items()
    }
    within = [
        name
        for name, found in (others or {}).items()
        if all(value <= goals[key] for key, value in found.items())
    ]
    if within:
        formats = f"Take {_listed(f'{name} ({each_of[name]})' for name in within)}: " + (
            "files of the same net meet the goal. Or ask for more, or lower min_kept or round_to."
        )
    elif each_of:
        formats = "Ask for more, or lower min_kept or round_to: " + (
            f"{_listed(f'{name} ({text})' for name, text in each_of.items())} of the same net do "
            "not meet it either."
        )
    else:
        formats = "Ask for more, lower min_kept or round_to, or name other formats."
    return OutOfReach(
        f"{article} {format} file must be able to meet the goal. Received: {least}{each}, "
        f"where {held}. {formats}",
        max(costs[key] / goal for key, goal in goals.items()),
    )


def _listed(items: Iterable[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last
