"""What is done with the time that a budget leaves: variations of the recipe, each a net."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.core.errors import FeasibleError, RunFailed, TrainingDiverged
from compress.run.directory import LOG
from compress.shrinking.net import TRAINED, Net
from compress.shrinking.variations import Sampler, Variation
from compress.task import is_share

if TYPE_CHECKING:
    from compress.shrinking.planner import Planner

MOST = 50
SLACK = 1.3
"""A variation is begun where so many times the longest so far is left,"""
FINISHING = 60.0
"""and so many seconds beside the timing for what comes at the end."""
BEHIND = 2.0
"""Points by which a repaired net may lie behind the best one and still be trained."""


def varied(planner: Planner, nets: Sequence[Net], label: str, formats: Sequence[str]) -> list[Net]:
    """Makes nets by other recipes for the same costs, while the budget lasts.

    Which units leave, how damages weigh, the learning rate and (where files differ in what they
    cost) the format are drawn by Optuna's TPE, which learns from what came of them; a net that
    repair leaves far behind the best one is not trained. The best of many is better by chance
    too: only one that validation data tell apart from the recipe goes on to the end. Without a
    budget nothing is done: the fixed recipe is what a user gets who names no time. What was made
    before is read, in the same order, so that a killed run goes on as it would have gone.

    Args:
        planner: Makes, trains and judges nets.
        nets: By the fixed recipe.
        label: Begins their names, behind the model's.
        formats: Among which files are chosen.

    Returns:
        The best of them, where it is better than the recipe's nets by more than chance: one
        standard error of a share.

    Reference:
        Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4 (TPE).
    """
    shop, pace, metric = planner.shop, planner.pace, planner.bar.metric
    smaller = [net for net in nets if not net.whole]
    if pace.budget is None or not smaller:
        return []
    trains = planner.epochs > 0
    formats = [name for name in formats if name in {net.format for net in smaller}]
    sampler = Sampler(formats, shop.plan.channels.criterion, trains, shop.plan.seed)
    for net in smaller:
        sampler.began(net.format, net.best(metric))
    apart, found = len(formats) > 1, list[Net]()
    longest = max(net.seconds for net in smaller)
    for count in range(1, MOST + 1):
        name = planner.name(f"{label}-try{count}")
        known = shop.folder.read_net(name)
        reserve = FINISHING + shop.plan.latency.budget
        if (known is None or _unfinished(known, trains)) and pace.left - reserve < SLACK * longest:
            break
        variation = sampler.ask()
        formats_made = (variation.format,) if apart else planner.formats
        try:
            made = shop.net(name, variation.format, planner.limits, formats_made, variation)
            nearest = max(other.repaired_best(metric) for other in (*smaller, *found))
            behind = planner.bar.drop(made.repaired_best(metric)) - planner.bar.drop(nearest)
            if _unfinished(made, trains) and behind <= BEHIND:
                (made,) = planner.trained([made])
        except (FeasibleError, RunFailed, TrainingDiverged) as error:
            # the recipe's nets are there: what fails here costs its time alone
            LOG.info("note: %s (%s): %s", name, variation, error)
            sampler.tell(None)
            continue
        found.append(made)
        longest = max(longest, made.seconds)
        ended = not _unfinished(made, trains)
        sampler.tell(made.best(metric) if ended else None, made.repaired_best(metric))
    if not found:
        return []
    best = max(found, key=lambda net: net.best(metric))
    before = max(net.best(metric) for net in nets)
    chance = _chance(metric, before, len(shop.case.work.data.val))
    planner.notes.append(
        f"the budget left time for {len(found)} variation(s) of the recipe: the best one's "
        f"validation {metric} is {best.best(metric):.4f}, the recipe's {before:.4f}"
    )
    if best.best(metric) <= before + chance:
        planner.notes[-1] += ", which chance may do: the recipe's stay"
        return []
    planner.notes[-1] += f" ({Variation.from_json(best.variation)})"
    return [best]


def _unfinished(net: Net, trains: bool) -> bool:
    return trains and net.stage != TRAINED


def _chance(metric: str, quality: float, count: int) -> float:
    """Returns the standard error of a share of so many examples; 0 of other qualities."""
    if not is_share(metric):
        return 0.0
    return math.sqrt(max(0.0, quality * (1 - quality)) / max(1, count))
