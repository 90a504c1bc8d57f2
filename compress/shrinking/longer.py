"""What is done where a recipe's nets miss the quality by little: the best is trained for longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.core.errors import ParetuneError
from compress.shrinking.net import TRAINED, Net

if TYPE_CHECKING:
    from compress.shrinking.planner import Planner

TIMES = 4
"""So many times the epochs, each time."""
NEAR, POINTS = 4.0, 1.0
"""Nets that lose more than so many times what they may, and so many points more, stay as they are:
training four times as long takes back about half of what is lost."""
SECONDS = 600.0
"""A training that would take longer is the user's to ask for."""


def trained_longer(planner: Planner, nets: Sequence[Net]) -> list[Net]:
    """Trains the best net again from where repair left it, if none is good enough and it is near.

    A training is cut short where it is known to reach the goal, and goes on where it does not: the
    learning rate falls once over all epochs, so it begins anew, and again while that helps, is not
    enough, and takes minutes. With a budget its own time is spent on variations instead, and a user
    who named the epochs gets those.

    Args:
        planner: Trains and judges nets.
        nets: Of the fixed recipe, at their last stage.

    Returns:
        The net, if it is better than the one that was trained for the recipe's epochs.
    """
    bar, shop = planner.bar, planner.shop
    trained = [net for net in nets if net.stage == TRAINED]
    allowed, fixed = bar.allowed, shop.plan.finetune.epochs is not None
    if allowed is None or planner.pace.budget is not None or fixed or not trained:
        return []
    if any(bar.holds(net.best(bar.metric)) for net in nets):
        return []
    first = best = max(trained, key=lambda net: net.best(bar.metric))
    spent = best.seconds  # its choice and repair too: an estimate from above
    while not bar.holds(best.best(bar.metric)):
        lost = bar.drop(best.best(bar.metric))
        wanted = (
            f"{best.name} loses {lost:.2f} points of validation {bar.metric} after {best.epochs} "
            f"epochs, where {allowed:.3g} may be lost"
        )
        if lost > NEAR * allowed + POINTS:
            break
        if TIMES * spent > SECONDS:
            planner.notes.append(
                f"{wanted}; more may bring it there, which would take about "
                f"{TIMES * spent / 60:.0f} min (estimated): --epochs {TIMES * best.epochs}"
            )
            break
        found = _again(planner, first, TIMES * best.epochs)
        if found is None:
            break
        after = found.best(bar.metric)
        planner.notes.append(
            f"{wanted}; trained anew for {found.epochs} it loses {bar.drop(after):.2f}"
        )
        if after <= best.best(bar.metric):
            break
        best, spent = found, found.seconds
    return [] if best is first else [best]


def _again(planner: Planner, net: Net, epochs: int) -> Net | None:
    """Returns a net trained anew for so many epochs; None: it could not be."""
    again = planner.shop.repaired_again(net, f"{net.name}-{epochs}epochs")
    if again.stage == TRAINED:
        return again
    (found,) = planner.shop.all_trained([(again, epochs)])
    if isinstance(found, ParetuneError):
        planner.notes.append(f"{net.name} could not be trained for {epochs} epochs: {found}")
        return None
    return found
