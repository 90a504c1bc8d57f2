"""What is done where a recipe's nets miss the quality by little: the best is trained for longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.core.errors import ParetuneError
from compress.run.directory import LOG
from compress.shrinking.net import TRAINED, Net

if TYPE_CHECKING:
    from compress.shrinking.planner import Planner

TIMES = 4
"""So many times the epochs."""
NEAR, POINTS = 4.0, 1.0
"""Nets that lose more than so many times what they may, and so many points more, stay as they are:
longer training takes back a half to three quarters of what the first one left."""


def trained_longer(planner: Planner, nets: Sequence[Net]) -> list[Net]:
    """Trains the best net again from where repair left it, if none is good enough and it is near.

    A training is cut short where it is known to reach the goal, and goes on where it does not: the
    learning rate falls once over all epochs, so it begins anew. With a budget its own time is
    spent on variations instead, and a user who named the epochs gets those.

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
    best = max(trained, key=lambda net: net.best(bar.metric))
    before = best.best(bar.metric)
    if bar.drop(before) > NEAR * allowed + POINTS:
        return []
    again = shop.repaired_again(best, f"{best.name}-longer")
    epochs = TIMES * best.epochs
    if again.stage == TRAINED:
        found: Net | ParetuneError = again
    else:
        (found,) = shop.all_trained([(again, epochs)])
    if not isinstance(found, Net):
        LOG.info("note: %s: %s", again.name, found)
        planner.notes.append(f"{best.name} could not be trained for longer: {found}")
        return []
    after = found.best(bar.metric)
    planner.notes.append(
        f"{best.name} lost {bar.drop(before):.2f} points of validation {bar.metric} after "
        f"{best.epochs} epochs, where {allowed:.3g} may be lost; trained anew for "
        f"{found.epochs} it loses {bar.drop(after):.2f}"
    )
    return [found] if after > before else []
