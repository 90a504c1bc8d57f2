"""What is done with the time that a budget leaves: variations of the recipe, each a net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compress.core.errors import FeasibleError, RunFailed
from compress.core.statistics import compare_examples
from compress.run.directory import LOG
from compress.shrinking.net import TRAINED, Net
from compress.shrinking.variations import Asked, Sampler, Variation

if TYPE_CHECKING:
    from compress.shrinking.planner import Planner
    from compress.shrinking.workshop import Workshop

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
        The best of them, where validation data tell it apart from the recipe's best net: by a
        paired test, corrected for how many variations there were.

    Reference:
        Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4 (TPE).
    """
    shop, metric = planner.shop, planner.bar.metric
    smaller = [net for net in nets if not net.whole]
    if planner.pace.budget is None or not smaller:
        return []
    formats = [name for name in formats if name in {net.format for net in smaller}]
    sampler = Sampler(
        formats, shop.plan.channels.ranking, planner.epochs > 0, shop.plan.seed, shop.places
    )
    for net in smaller:
        sampler.began(net.format, net.best(metric))
    series = _Series(planner, sampler, smaller, label, len(formats) > 1)
    while series.goes_on():
        pass
    found = series.found
    if not found:
        return []
    best = max(found, key=lambda net: net.best(metric))
    before = max(net.best(metric) for net in nets)
    recipe = max(nets, key=lambda net: net.best(metric))
    planner.notes.append(
        f"the budget left time for {len(found)} variation(s) of the recipe: the best one's "
        f"validation {metric} is {best.best(metric):.4f}, the recipe's {before:.4f}"
    )
    if not _is_better(shop, best, recipe, metric, len(found)):
        planner.notes[-1] += (
            f", which chance may do (the best of {len(found)} is compared): the recipe's stay"
        )
        return []
    planner.notes[-1] += f" ({Variation.from_json(best.variation)})"
    return [best]


@dataclass(eq=False)
class _Series:
    """Variations one after another: as many at a time as nets are trained beside each other.

    Attributes:
        planner: Makes, trains and judges nets.
        sampler: Knows the recipe's nets.
        recipe: Those nets.
        label: Begins names, behind the model's.
        apart: Whether each format has a net of its own.
        found: The nets that were made.
    """

    planner: Planner
    sampler: Sampler
    recipe: Sequence[Net]
    label: str
    apart: bool
    found: list[Net] = field(default_factory=list)
    _count: int = 0

    def goes_on(self) -> bool:
        """Makes the next ones; False: there is no time for more."""
        made = list[tuple[Asked, Net]]()
        over = False
        for _ in range(self.planner.shop.places):
            over = self._count >= MOST or not self._in_time(self._name(self._count + 1))
            if over:
                break
            self._count += 1
            asked = self.sampler.ask()
            if (net := self._made(self._name(self._count), asked)) is not None:
                made.append((asked, net))
        self._train(made)
        return not over

    def _name(self, count: int) -> str:
        return self.planner.name(f"{self.label}-try{count}")

    def _in_time(self, name: str) -> bool:
        """Tells whether the budget has time for a net, or whether it is there."""
        shop, pace = self.planner.shop, self.planner.pace
        known = shop.folder.read_net(name)
        if known is not None and not self._unfinished(known):
            return True
        longest = max(net.seconds for net in (*self.recipe, *self.found))
        return pace.left - FINISHING - shop.plan.latency.budget >= SLACK * longest

    def _made(self, name: str, asked: Asked) -> Net | None:
        variation, planner = asked.variation, self.planner
        formats = (variation.format,) if self.apart else planner.formats
        try:
            net = planner.shop.net(name, variation.format, planner.limits, formats, variation)
        except (FeasibleError, RunFailed) as error:
            self._failed(name, asked, error)
            return None
        # begun by a run that trained another number of nets at a time, and drew in another order
        drawn = Variation.from_json(net.variation)
        if drawn == variation:
            return net
        self.sampler.tell(asked, None)
        self._train([(self.sampler.ask_for(drawn), net)])
        return None

    def _train(self, made: Sequence[tuple[Asked, Net]]) -> None:
        """Trains those that are not far behind, and tells what came of all."""
        planner, metric = self.planner, self.planner.bar.metric
        everyone = [*self.recipe, *self.found, *(net for _, net in made)]
        nearest = max((net.repaired_best(metric) for net in everyone), default=0.0)
        bound = planner.bar.drop(nearest) + BEHIND
        near = [
            (asked, net)
            for asked, net in made
            if self._unfinished(net) and planner.bar.drop(net.repaired_best(metric)) <= bound
        ]
        ended = dict(
            zip((net.name for _, net in near), planner.tried([net for _, net in near]), strict=True)
        )
        for asked, net in made:
            end = ended.get(net.name, net)
            if not isinstance(end, Net):
                self._failed(net.name, asked, end)
                continue
            self.found.append(end)
            quality = None if self._unfinished(end) else end.best(metric)
            self.sampler.tell(asked, quality, end.repaired_best(metric))

    def _failed(self, name: str, asked: Asked, error: Exception) -> None:
        """Goes on without one: the recipe's nets are there, it costs its time alone."""
        LOG.info("note: %s (%s): %s", name, asked.variation, error)
        self.sampler.tell(asked, None)

    def _unfinished(self, net: Net) -> bool:
        return self.planner.epochs > 0 and net.stage != TRAINED


def _is_better(shop: Workshop, best: Net, recipe: Net, metric: str, comparisons: int) -> bool:
    """Return whether validation data tell the best of several nets apart from the recipe's."""
    one, other = (
        shop.example_values(net, max(net.val, key=lambda kind: net.quality(kind, metric)))
        for net in (best, recipe)
    )
    if one is None or other is None or one.shape != other.shape:
        return False
    return compare_examples(one, other, comparisons=comparisons).low > 0
