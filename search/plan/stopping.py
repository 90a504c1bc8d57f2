"""Rules of early stopping, and the epochs at which they compare trials."""

from __future__ import annotations

import math

RULES = ("dominance", "none")
REMOVED_RULES = {
    "halving": "It lost 0.3 to 34 % of the hypervolume at 2 to 4.5 times fewer epochs. Use "
    "'dominance', the default, which lost 0.3 % at 2.5 times fewer; to save more, use fewer "
    "epochs, and final_epochs to train the front longer.",
}


def compute_rungs(rule: str, epochs: int) -> tuple[int, ...]:
    """Return the epochs after which a trial may be stopped, all below `epochs`.

    They are an eighth, a quarter and a half of the epochs. Earlier epochs predict the final metric
    poorly (see docs/results/search.md).

    Args:
        rule: Stopping rule; "none" has no rungs.
        epochs: Epochs of a full training.
    """
    if rule == "none":
        return ()
    rungs = {math.ceil(epochs / share) for share in (8, 4, 2)}
    return tuple(sorted(rung for rung in rungs if rung < epochs))
