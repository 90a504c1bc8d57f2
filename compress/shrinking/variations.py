"""Other ways to the same goal: drawn while a budget lasts, each a net of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compress.core.errors import FeasibleError, RunFailed
from compress.core.statistics import compare_examples
from compress.run.directory import LOG
from compress.run.records import Record, too_low
from compress.shrinking.net import TRAINED, Net

if TYPE_CHECKING:
    from optuna.trial import Trial

    from compress.shrinking.planner import Planner
    from compress.shrinking.workshop import Workshop

CRITERIA = ("reconstruction", "l2", "taylor")
"""Which units of a group leave; the last takes gradients, so that it needs labels."""
TEMPERATURES = (0.5, 2.0)
"""Powers of the damages that widths are chosen by: above 1 groups that harm little give more."""
RATES = (0.3, 3.0)
"""Factors of the learning rate of fine-tuning."""
FIRST = 4
"""Drawn at random before those that are expected to be better."""
MOST = 50
SLACK = 1.3
"""A variation is begun where so many times the longest so far is left,"""
FINISHING = 60.0
"""and so many seconds beside the timing for what comes at the end."""
BEHIND = 2.0
"""Points by which a repaired net may lie behind the best one and still be trained."""


@dataclass(frozen=True)
class Variation(Record):
    """How a net departs from the fixed recipe.

    Attributes:
        criterion: The plan's or one of `CRITERIA`; empty: the plan's.
        temperature: Power of the damages.
        learning_rate: Factor of the plan's.
        format: Of the file that it is made for; empty: it was not drawn.
    """

    criterion: str = ""
    temperature: float = 1.0
    learning_rate: float = 1.0
    format: str = ""

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return too_low(self, 0, "temperature", "learning_rate")

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"criterion {self.criterion}, damages to the power of {self.temperature:.2f}, "
            f"learning rate times {self.learning_rate:.2f}"
        )


RECIPE = Variation()
"""Departs in nothing."""


class Sampler:
    """Draws variations, and learns from what came of them: Optuna's TPE.

    Args:
        formats: Among which it chooses; one: there is nothing to choose.
        criterion: The recipe's.
        trains: Whether nets are fine-tuned.
        seed: Of what is drawn.
        places: How many are asked for before one is told: more than one are kept apart.
    """

    def __init__(
        self, formats: Sequence[str], criterion: str, trains: bool, seed: int, places: int = 1
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._formats, self._trains = tuple(formats), trains
        others = CRITERIA if trains else CRITERIA[:-1]
        self._criteria = tuple(dict.fromkeys((criterion, *others)))
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=FIRST, constant_liar=places > 1
            ),
        )

    def began(self, format: str, quality: float) -> None:
        """Take what came of the fixed recipe, in a format."""
        self.tell(self.ask_for(Variation(self._criteria[0], format=format))[1], quality)

    def ask_for(self, variation: Variation) -> tuple[Variation, Trial]:
        """Return a variation of one's own choice, to tell what came of it."""
        self._study.enqueue_trial(variation.to_json())
        return self.ask()

    def ask(self) -> tuple[Variation, Trial]:
        """Return the next variation, and the trial to tell what came of it."""
        trial = self._study.ask()
        rate = trial.suggest_float("learning_rate", *RATES, log=True) if self._trains else 1.0
        several = len(self._formats) > 1
        drawn = Variation(
            trial.suggest_categorical("criterion", self._criteria),
            trial.suggest_float("temperature", *TEMPERATURES, log=True),
            rate,
            trial.suggest_categorical("format", self._formats) if several else self._formats[0],
        )
        return drawn, trial

    def tell(self, trial: Trial, quality: float | None, repaired: float | None = None) -> None:
        """Take what came of a variation.

        Args:
            trial: Of the variation.
            quality: Validation quality at its last stage; None: it was not trained, or no choice
                comes to the goal.
            repaired: Likewise before training, where there is a net.
        """
        import optuna

        if quality is not None:
            self._study.tell(trial, quality)
        elif repaired is not None:
            trial.report(repaired, 0)
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)


def varied(planner: Planner, nets: Sequence[Net], label: str, formats: Sequence[str]) -> list[Net]:
    """Make nets by other recipes for the same costs, while the budget lasts.

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
        formats,
        shop.case.plan.channels.ranking,
        planner.epochs > 0,
        shop.case.plan.seed,
        shop.places,
    )
    for net in smaller:
        sampler.began(net.format, net.best(metric))
    series = _Series(planner, sampler, smaller, label, len(formats) > 1)
    while series.goes_on():
        pass
    count = len(series.found)
    if count == 0:
        return []
    best, recipe = (max(some, key=lambda net: net.best(metric)) for some in (series.found, nets))
    is_better = _is_better(shop, best, recipe, metric, count)
    outcome = (
        f" ({Variation.from_json(best.variation)})"
        if is_better
        else f", which chance may do (the best of {count} is compared): the recipe's stay"
    )
    planner.notes.append(
        f"the budget left time for {count} variation(s) of the recipe: the best one's validation "
        f"{metric} is {best.best(metric):.4f}, the recipe's {recipe.best(metric):.4f}{outcome}"
    )
    return [best] if is_better else []


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
        """Make the next ones; False: there is no time for more."""
        made: list[tuple[Trial, Net]] = []
        over = False
        for _ in range(self.planner.shop.places):
            name = self.planner.name(f"{self.label}-try{self._count + 1}")
            over = self._count >= MOST or not self._in_time(name)
            if over:
                break
            self._count += 1
            made += self._made(name, *self.sampler.ask())
        self._train(made)
        return not over

    def _in_time(self, name: str) -> bool:
        """Tell whether the budget has time for a net, or whether it is there."""
        shop, pace = self.planner.shop, self.planner.pace
        known = shop.folder.read_net(name)
        if known is not None and not self._unfinished(known):
            return True
        longest = max(net.seconds for net in (*self.recipe, *self.found))
        return pace.left - FINISHING - shop.case.plan.latency.budget >= SLACK * longest

    def _made(self, name: str, variation: Variation, trial: Trial) -> list[tuple[Trial, Net]]:
        """Make a net; none where that fails, or where it is another one and was trained here."""
        planner = self.planner
        formats = (variation.format,) if self.apart else planner.formats
        try:
            net = planner.shop.net(name, variation.format, planner.limits, formats, variation)
        except (FeasibleError, RunFailed) as error:
            self._failed(name, variation, trial, error)
            return []
        # begun by a run that trained another number of nets at a time, and drew in another order
        drawn = Variation.from_json(net.variation)
        if drawn == variation:
            return [(trial, net)]
        self.sampler.tell(trial, None)
        self._train([(self.sampler.ask_for(drawn)[1], net)])
        return []

    def _train(self, made: Sequence[tuple[Trial, Net]]) -> None:
        """Train those that are not far behind, and tells what came of all."""
        planner, metric = self.planner, self.planner.bar.metric
        everyone = [*self.recipe, *self.found, *(net for _, net in made)]
        nearest = max((net.repaired_best(metric) for net in everyone), default=0.0)
        bound = planner.bar.drop(nearest) + BEHIND
        near = [
            net
            for _, net in made
            if self._unfinished(net) and planner.bar.drop(net.repaired_best(metric)) <= bound
        ]
        ended = dict(zip((net.name for net in near), planner.tried(near), strict=True))
        for trial, net in made:
            end = ended.get(net.name, net)
            if isinstance(end, Net):
                self.found.append(end)
                quality = None if self._unfinished(end) else end.best(metric)
                self.sampler.tell(trial, quality, end.repaired_best(metric))
            else:
                self._failed(net.name, Variation.from_json(net.variation), trial, end)

    def _failed(self, name: str, tried: Variation, trial: Trial, error: Exception) -> None:
        """Go on without one: the recipe's nets are there, it costs its time alone."""
        LOG.info("note: %s (%s): %s", name, tried, error)
        self.sampler.tell(trial, None)

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
