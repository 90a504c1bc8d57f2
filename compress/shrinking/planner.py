"""Which nets are made on the way to a goal: for costs, for a quality, or for a whole front."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.core.arguments import conform
from compress.core.arrays import taken
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import FeasibleError, ParetuneError
from compress.measure.footprint import arena_bytes
from compress.measure.verdict import FileCandidate, is_inside
from compress.model.logits import logits_view
from compress.run.directory import LOG
from compress.shrinking.case import Case, Work
from compress.shrinking.estimates import device_error
from compress.shrinking.goals import FILES, Bar, cost_limits, goals_text
from compress.shrinking.net import TRAINED, Net, ShrinkFolder
from compress.shrinking.variations import varied
from compress.shrinking.workshop import Trainers, Workshop, workshop_for
from compress.train.predict import Predictor

if TYPE_CHECKING:
    import keras

    from compress.core.summary import OnProgress

FRONT = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.1)
"""Shares of the time at which the nets of a front are made."""
SPREAD = 1.12
"""Between what holds a quality and what does not: nearer ones are not told apart."""
MOST_TRIED = 5
FAR = 10.0
"""A net that repair alone leaves so many times further off than allowed is not trained (but the
best of those that come to a cost, which one of them must be),"""
POINTS = 5.0
"""and so many points more: what repair leaves, training takes back to a fourth or less."""
LONGER_TIMES = 4
"""So many times the epochs, each time."""
LONGER_NEAR, LONGER_POINTS = 4.0, 1.0
"""Nets that lose more than so many times what they may, and so many points more, stay as they are:
training four times as long takes back about half of what is lost."""
LONGER_SECONDS = 600.0
"""A training that would take longer is the user's to ask for."""
PROBED = 512
EVERY = 1.0
"""Seconds between two notes of the time that was spent."""
BACKWARD = 3.0
"""Time of a step of training over that of a forward pass, before one was measured."""


def planner_for(
    case: Case, folder: ShrinkFolder, pace: Pace, trainers: Trainers | None = None
) -> Planner:
    """Make and measures the model's own files, and returns what plans its nets.

    Args:
        case: The model.
        folder: Where nets and files go.
        pace: Of the budget.
        trainers: Who trains nets; None: this process.

    Raises:
        FeasibleError: The model is no better than guessing, or below the quality asked for.
        InputError: A memory is the goal, and that of the model cannot be read off.
        RunFailed: There is no file without rounding.
    """
    shop, plan = workshop_for(case, folder, trainers), case.plan
    dense = shop.dense
    bar = Bar.of(plan.goal, dense, case.work.data)
    if plan.goal.peak_memory is not None:
        arena_bytes(folder.path / dense.file)  # raises where it cannot be read off
    limits = cost_limits(plan.goal, dense, shop.counted, device_error(case))
    LOG.info("goal: %s", goals_text(plan.goal, limits, bar))
    if plan.goal.budget is not None and not plan.goal.no_train:
        pace.probe(case.model, case.work)
    return Planner(shop, limits, bar, pace, [*case.notes, *dense.notes])


@dataclass(eq=False)
class Planner:
    """Makes nets until a goal is met.

    Attributes:
        shop: Makes them.
        limits: What costs may come to.
        bar: How good a net must stay.
        pace: What trainings take, and what is left of the time.
        notes: What there is to say about the way.
    """

    shop: Workshop
    limits: Mapping[str, float]
    bar: Bar
    pace: Pace
    notes: list[str] = field(default_factory=list)

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of which the model has a file."""
        wanted = self.shop.case.plan.export.formats
        return tuple(name for name in wanted if name in self.shop.dense.val)

    def run(self) -> list[Net]:
        """Return the nets that were made.

        Raises:
            FeasibleError: No format comes to the goals.
        """
        if self.limits:
            return self.to_costs()
        if self.bar.floor is not None:
            return self.to_quality()
        return self.front()

    def to_costs(self) -> list[Net]:
        """Make the best net for each format whose files differ in what they cost."""
        apart, asked = FILES & set(self.limits), self.shop.case.plan.goal.costs
        formats = self._worthwhile()
        label = "-".join(f"{name.partition('_')[2] or name}{asked[name]}" for name in self.limits)
        found, errors = [], []
        for each in [(name,) for name in formats] if apart else [formats]:
            name = f"{label}-{each[0]}" if apart and len(formats) > 1 else label
            try:
                found.append(self.shop.net(self.name(name), each[0], self.limits, each))
            except FeasibleError as error:
                errors.append(error)
                self.notes.append(str(error))
        if not found:
            # the format that comes nearest tells what can be had
            raise min(errors, key=lambda error: getattr(error, "used", float("inf")))
        # the most promising first: the time may not do for all
        found.sort(key=lambda net: -net.best(self.bar.metric))
        found = self.trained(found, nearest=True)
        found += trained_longer(self, found)
        return [*found, *varied(self, found, label, formats if apart else formats[:1])]

    def _worthwhile(self) -> tuple[str, ...]:
        """Return the formats that may be the best for a time: none that is slower as it is.

        Where a format's own file takes longer than the float32 file, more channels would have to
        leave for the same time, and rounding costs besides. With bytes to be met all are tried.
        """
        others = {"size", "peak_memory"} & set(self.limits)
        dense = self.shop.dense
        if "latency" not in self.limits or others or dense.first not in self.formats:
            return self.formats
        slower = [name for name in self.formats if dense.times[name] > dense.ms]
        self.notes += [
            f"{name} was left out: the model's own {name} file takes "
            f"{dense.times[name] / dense.ms:.2f} times as long as its {dense.first} file "
            "(measured), so more channels would have to leave for the same time"
            for name in slower
        ]
        return tuple(name for name in self.formats if name not in slower)

    def to_quality(self) -> list[Net]:
        """Look for the fastest net that is good enough, between the model's time and a tenth."""
        low, high, nets = FRONT[-1], 1.0, list[Net]()
        for _ in range(MOST_TRIED):
            share = (low * high) ** 0.5
            net = self._at(share)
            if net is not None:
                nets += self.trained([net])
            good = net is not None and self.is_good(nets[-1])
            low, high = (low, share) if good else (share, high)
            if high / low < SPREAD:
                break
        return [*nets, self._whole()]

    def is_good(self, net: Net) -> bool:
        """Return whether a file of a net stays inside the quality asked for.

        Validation data must show it, by the interval that the choice of the file goes by. Where
        they are too few to show it of any file, the estimate decides.
        """
        limit, metric = self.bar.limit, self.bar.metric
        original = FileCandidate("", self.bar.dense, values=self.shop.original_values())
        if limit is None or not limit.can_be_shown(original.quality, original.values):
            return self.bar.holds(net.best(metric))
        files = (
            FileCandidate(kind, net.quality(kind, metric), {}, self.shop.example_values(net, kind))
            for kind in net.val
        )
        return any(is_inside(file, original, limit) for file in files)

    def front(self) -> list[Net]:
        """Make nets from the model's own time to a tenth of it."""
        smaller = [self._at(share) for share in FRONT if share < 1.0]
        return self.trained([self._whole(), *(net for net in smaller if net is not None)])

    def _whole(self) -> Net:
        return self.shop.whole(self.name("whole"), self.formats)

    def _at(self, share: float) -> Net | None:
        """Return the net that takes a share of the time, as float32 file; None: none does."""
        limits = {"latency": share * self.shop.dense.ms}
        name = self.name(f"latency{share:.3g}x")
        try:
            return self.shop.net(name, self.formats[0], limits, self.formats)
        except FeasibleError as error:
            self.notes.append(f"no net takes {share:.3g}x of the time: {error}")
            return None

    @property
    def epochs(self) -> int:
        """Epochs of a training that no budget bounds; 0: nets are not trained."""
        plan, data = self.shop.case.plan, self.shop.case.work.data
        steps = max(1, len(data.train) // plan.finetune.batch_size)
        return 0 if plan.goal.no_train else plan.finetune.epochs_for(steps)

    def trained(self, nets: Sequence[Net], *, nearest: bool = False) -> list[Net]:
        """Train nets as far as they are worth it and the time allows it.

        Args:
            nets: Repaired.
            nearest: The first is trained however far it is: what comes to the costs goes out, good
                enough or not.

        Raises:
            ParetuneError: One could not be trained; the others have been.
        """
        found = []
        for item in self.tried(nets, nearest=nearest):
            if isinstance(item, ParetuneError):
                raise item
            found.append(item)
        return found

    def tried(self, nets: Sequence[Net], *, nearest: bool = False) -> list[Net | ParetuneError]:
        """Train nets, as many at a time as there are places.

        Args:
            nets, nearest: See `trained`.

        Returns:
            For each the net at its last stage, or why it could not be trained.
        """
        found: list[Net | ParetuneError] = list(nets)
        waiting = [
            place
            for place, net in enumerate(nets)
            if self._worth_training(net, anyway=nearest and place == 0)
        ]
        # without a budget nothing is learnt of a training that the next one needs
        step = self.shop.places if self.pace.budget is not None else max(1, len(waiting))
        for start in range(0, len(waiting), step):
            # each of those to come gets as much time, beside those that run with it
            waves = -(-(len(waiting) - start) // self.shop.places)
            wanted = [
                (place, nets[place], epochs)
                for place in waiting[start : start + step]
                if (epochs := self._affordable(nets[place], waves))
            ]
            done = self.shop.all_trained([(net, epochs) for _, net, epochs in wanted])
            for (place, before, _), item in zip(wanted, done, strict=True):
                found[place] = item
                if isinstance(item, Net):
                    self.pace.learn(before.share, item.epochs, item.seconds - before.seconds)
        return found

    def _worth_training(self, net: Net, anyway: bool) -> bool:
        if net.stage == TRAINED or self.epochs == 0 or net.whole:
            return False
        allowed, metric = self.bar.allowed, self.bar.metric
        lost = self.bar.drop(net.best(metric))
        if anyway or allowed is None or lost <= FAR * allowed + POINTS:
            return True
        self.notes.append(
            f"{net.name} was not trained: repaired it loses {lost:.1f} points of validation "
            f"{metric}, where {allowed:.3g} may be lost"
        )
        return False

    def _affordable(self, net: Net, waves: int) -> int:
        """Return the epochs that the budget has for a net; what is left out is noted."""
        wanted = self.epochs
        epochs = self.pace.epochs_within(net.share, wanted, waves)
        if epochs == 0:
            one, left = self.pace.epoch(net.share), max(0.0, self.pace.left)
            self.notes.append(
                f"{net.name} was not trained: an epoch takes about {one:.0f} s (estimated), "
                f"and {left:.0f} s of the budget are left"
            )
        elif epochs < wanted:
            self.notes.append(f"{net.name} was trained {epochs} epochs of {wanted}: the budget")
        return epochs

    def name(self, label: str) -> str:
        """Return what a net is called, in names of files."""
        return f"{self.shop.case.name}-{label.replace('.', '_')}"


def trained_longer(planner: Planner, nets: Sequence[Net]) -> list[Net]:
    """Train the best net again from where repair left it, if none is good enough and it is near.

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
    allowed, fixed = bar.allowed, shop.case.plan.finetune.epochs is not None
    if allowed is None or planner.pace.budget is not None or fixed or not trained:
        return []
    if any(bar.holds(net.best(bar.metric)) for net in nets):
        return []
    first = best = max(trained, key=lambda net: net.best(bar.metric))
    while not bar.holds(best.best(bar.metric)):
        lost, epochs = bar.drop(best.best(bar.metric)), LONGER_TIMES * best.epochs
        # of the first one its choice and repair too: an estimate from above
        seconds = LONGER_TIMES * best.seconds
        wanted = (
            f"{best.name} loses {lost:.2f} points of validation {bar.metric} after {best.epochs} "
            f"epochs, where {allowed:.3g} may be lost"
        )
        if lost > LONGER_NEAR * allowed + LONGER_POINTS:
            break
        if seconds > LONGER_SECONDS:
            planner.notes.append(
                f"{wanted}; more may bring it there, which would take about "
                f"{seconds / 60:.0f} min (estimated): --epochs {epochs}"
            )
            break
        again = shop.repaired_again(first, f"{first.name}-{epochs}epochs")
        found = again if again.stage == TRAINED else shop.all_trained([(again, epochs)])[0]
        if isinstance(found, ParetuneError):
            planner.notes.append(f"{first.name} could not be trained for {epochs} epochs: {found}")
            break
        after = found.best(bar.metric)
        planner.notes.append(
            f"{wanted}; trained anew for {found.epochs} it loses {bar.drop(after):.2f}"
        )
        if after <= best.best(bar.metric):
            break
        best = found
    return [] if best is first else [best]


@dataclass(eq=False)
class Pace:
    """What an epoch takes, and what is left of the budget.

    Attributes:
        budget: Seconds for everything; None: no limit.
        before: Seconds that processes before this one have spent on it.
        began: When this one began, by `time.monotonic`.
    """

    budget: float | None
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _forward: float = 0.0
    _factor: float = BACKWARD

    @property
    def left(self) -> float:
        """Seconds that are left; infinity without a budget."""
        return float("inf") if self.budget is None else self.budget - self.spent

    @property
    def spent(self) -> float:
        """Seconds that were spent, by this process and those before."""
        return self.before + time.monotonic() - self.began

    @classmethod
    def resumed(cls, budget: float | None, path: Path) -> Pace:
        """Return the pace of work that may have begun before.

        Args:
            budget: Seconds for everything; None: no limit.
            path: Where `noting` wrote what was spent; it need not be there.

        Raises:
            InputError: The file holds something else.
        """
        before = 0.0
        if path.exists():
            before = conform(read_json(path).get("seconds"), float, f"'{path}': seconds")
        return cls(budget, before, time.monotonic())

    def noting(self, path: Path, progress: OnProgress) -> OnProgress:
        """Return a progress that also writes what was spent, every few seconds.

        A process that is killed leaves it there, so that its successor has no more time than is
        left.
        """
        written = self.spent

        def told(text: str, share: float) -> None:
            nonlocal written
            if self.spent - written >= EVERY:
                written = self.spent
                write_json(path, {"seconds": written})
            progress(text, share)

        return told

    def probe(self, model: keras.Model, work: Work) -> None:
        """Measure what a forward pass over the training part takes with the model as it is."""
        few = taken(work.data.val.x, slice(PROBED))
        with logits_view(model, work.data.task) as view:
            run = Predictor(view, work.data.preprocess, model)
            run(few)
            began = time.perf_counter()
            run(few)
        each = (time.perf_counter() - began) / min(PROBED, len(work.data.val))
        self._forward = each * len(work.data.train)

    def epoch(self, share: float) -> float:
        """Estimate the seconds of an epoch of a net with a share of the model's MACs."""
        return self._factor * self._forward * share

    def learn(self, share: float, epochs: int, seconds: float) -> None:
        """Take what a training took."""
        if epochs and self._forward:
            measured = seconds / epochs / (self._forward * share)
            self._factor = float(np.mean([self._factor, measured]))

    def epochs_within(self, share: float, wanted: int, after: int = 1) -> int:
        """Return how many of some epochs fit into what is left.

        Args:
            share: Of the model's MACs.
            wanted: Epochs.
            after: Trainings that are still to come, this one included: each gets as much.
        """
        if self.budget is None:
            return wanted
        within = self.left / max(1, after) / max(1e-9, self.epoch(share))
        return max(0, min(wanted, int(within)))
