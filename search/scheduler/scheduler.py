"""Scheduler of a run with a time budget: which step makes the front of files grow most per second.

A step trains another candidate, exports a trained one, trains it further, prunes it to several
sizes (reconstructed, not trained), or fine-tunes one of these. The scheduler forecasts the files
that each possible step leads to, and takes the one with the largest expected gain of hypervolume
per second. It learns from the outcome of every step. It reads no clock and draws nothing: the same
outcomes and times give the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from search.scheduler.forecast import (
    FileResult,
    Forecaster,
    FrontScale,
    Point,
    compute_log_ratio,
    estimate_mean,
)
from search.scheduler.records import (
    CONTINUE,
    EXPORT,
    PRUNE,
    TRIAL,
    TUNE,
    ScheduledModel,
    ScheduledSize,
    SizeResult,
    Step,
    StepResult,
)

SHARES = (0.35, 0.2, 0.12, 0.6, 0.07)
"""Shares of the MACs that a pruning keeps, each as a model of its own, in the order in which they
are tried while there is time."""
PARTS = {share: number / len(SHARES) for number, share in enumerate(SHARES, 1)}
"""Part of a pruning's time after which each of them exists."""
FIRST_TRIALS, FIRST_SHARE = 4, 0.2
"""Number of trials before anything else, because forecasts need some models, and the share of the
time in which they begin; the first one ends in any case."""
COST_TOLERANCE = 1.03
"""Ratio of the costs of two files up to which they count as equal."""
TRIAL_PRIOR = 0.9
"""Error of the one more trial that a forecast counts, over the smallest error, at the same cost."""
CALIBRATED = {EXPORT: EXPORT, PRUNE: TUNE, TUNE: TUNE}
"""Kind of step -> the kind whose gains show by how much forecasts of its gains are wrong."""
CALIBRATION_WEIGHT = 2.0
"""Number of steps of average gain that forecasts count as right for, before any is known."""
LEAST_EPOCHS = 0.25
"""Smallest share of the epochs of a fine-tuning that is worth beginning when time is short."""
CONTINUED_SHARE, CONTINUED_EPOCHS = 0.4, 2.0
"""Share of the time left in which a model is trained further before it is pruned, because all its
sizes gain by that; and the largest number of epochs of it, over those of a fine-tuning."""
PRIOR_SECONDS = {TRIAL: 30.0, EXPORT: 10.0}
"""Duration of a step before any is known, in seconds."""
PRIOR_PRUNING = 4.0
"""Duration of a pruning over that of an export, before any is known: every size is exported."""
PRIOR_FACTOR = 1.3
"""Time of an epoch of fine-tuning over one of training, per MAC, before any is known."""


@dataclass(eq=False)
class Scheduler:
    """Scheduler of the steps of one run.

    Args:
        formats: The exported formats, the float format first.
        chance: Selection metric of guessing.
        epochs: Epochs of a fine-tuning.
        seconds: Seconds for all steps.
        counts_macs: Whether the cost of a file is its number of MACs.

    Attributes:
        models: The trained candidates by id, in the order of their ends.
        running: Steps that have begun and not ended.
        ended: Steps that ended, each with its result and the gain of hypervolume that it brought.
    """

    formats: Sequence[str]
    chance: float
    epochs: int
    seconds: float
    counts_macs: bool = False
    models: dict[str, ScheduledModel] = field(default_factory=dict)
    running: list[Step] = field(default_factory=list)
    ended: list[tuple[Step, StepResult, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._forecaster = Forecaster(self.formats, self.counts_macs)
        self._durations: dict[str, list[float]] = {TRIAL: [], EXPORT: [], PRUNE: []}
        self._factors: list[float] = []
        self._count = 0

    def choose(self, elapsed: float, *, may_search: bool = True) -> Step | None:
        """Return the next step, which counts as begun; None: none is worth its time, or fits.

        Args:
            elapsed: Seconds of the run so far.
            may_search: Whether another trial may begin.
        """
        left = self.seconds - elapsed
        begun = [*self.running, *(step for step, _, _ in self.ended)]
        trials = sum(step.kind == TRIAL for step in begun)
        steps = [self._forecast_trial(trials)] if may_search else []
        # nothing is known before the first trial, so that it is tried in any case
        steps = [step for step in steps if not trials or step.seconds <= left]
        if not may_search or trials >= FIRST_TRIALS or elapsed >= FIRST_SHARE * self.seconds:
            steps += self._list_steps(left)
        steps = [
            replace(it, gain=it.gain * self._calibrate(it.kind)) for it in steps if it.gain > 0
        ]
        if not steps:
            return None
        # whether to shrink a large model or to train small ones is found out by shrinking the best
        best = self._find_most_accurate()
        urgent = [step for step in steps if step.model == best and step.kind in (EXPORT, PRUNE)]
        chosen = max(urgent or steps, key=lambda step: step.rate)
        if chosen.kind in (PRUNE, TUNE):
            chosen = self._train_further_first(chosen, left)
        chosen = replace(chosen, number=self._count, begun=elapsed)
        self._count += 1
        self.running.append(chosen)
        return chosen

    def add_trial(self, elapsed: float) -> Step:
        """Begin a trial that was not chosen here, such as one of an earlier process."""
        self.resume(step := Step(self._count, TRIAL, begun=elapsed))
        return step

    def cancel(self, step: Step) -> None:
        """Forget a running step."""
        self.running = [item for item in self.running if item.number != step.number]

    def resume(self, step: Step) -> None:
        """Count a step as begun that was chosen before, perhaps more than once."""
        self.cancel(step)
        self._count = max(self._count, step.number + 1)
        self.running.append(step)

    def finish(self, step: Step, result: StepResult) -> float:
        """Learn from the result of a step.

        Args:
            step: A running step.
            result: Its result.

        Returns:
            The gain of hypervolume that its files brought; for a trial, which has no file yet, the
            forecast gain; 0 for further training.
        """
        self.cancel(step)
        gain = self._learn(step, result)
        self.ended.append((step, result, gain))
        return gain

    def list_points(self) -> list[Point]:
        """Return error and cost of all files."""
        return [
            (1 - item.quality, item.cost)
            for model in self.models.values()
            for _, item in model.list_files()
        ]

    def list_front(self) -> list[tuple[str, float, FileResult]]:
        """Return the non-dominated files as (candidate, share, file), in ascending order of cost.

        Costs that differ by less than their precision are equal. Of equal files the first one is
        kept: an unpruned one before those that were made of it.
        """
        files = [
            (name, share, item)
            for name, model in self.models.items()
            for share, item in model.list_files()
        ]
        front: list[tuple[str, float, FileResult]] = []
        for row in sorted(files, key=lambda row: -row[2].quality):  # equal ones stay in order
            if all(row[2].cost * COST_TOLERANCE < other.cost for _, _, other in front):
                front.append(row)
        return front[::-1]

    def estimate_seconds(self, kind: str) -> float:
        """Estimate the duration of a trial, an export or a pruning, from those that ended.

        Args:
            kind: Kind of the step.
        """
        known = self._durations[kind]
        if kind == PRUNE and not known:
            return PRIOR_PRUNING * self.estimate_seconds(EXPORT)
        return estimate_mean(known, PRIOR_SECONDS.get(kind, 0.0), 1.0 if not known else 0.0)

    def _calibrate(self, kind: str) -> float:
        """Return the factor by which the gains of the last steps differed from their forecasts."""
        pairs = [
            (step.gain, max(0.0, gain))
            for step, result, gain in self.ended
            if step.kind == CALIBRATED.get(kind) and not result.reason
        ]
        # before the first export there is no front to gain on
        pairs = pairs[1:][-8:] if kind == EXPORT else pairs[-8:]
        if not pairs:
            return 1.0
        expected = sum(pair[0] for pair in pairs)
        prior = CALIBRATION_WEIGHT * expected / len(pairs)
        return (sum(pair[1] for pair in pairs) + prior) / max(expected + prior, 1e-12)

    def _build_scale(self) -> FrontScale:
        return FrontScale.from_points(
            self.list_points() + self._predict_originals(self.models.values()), self.chance
        )

    def _predict_original(self, model: ScheduledModel) -> list[Point]:
        """Return the files of an unpruned model, or their forecast."""
        if model.original is None:
            return self._forecaster.predict_files(
                1 - model.quality, self._forecaster.predict_cost(model.macs)
            )
        if model.is_exported:
            return [(1 - item.quality, item.cost) for item in model.original.files]
        return self._forecaster.predict_pruned_files(  # the same files, of another quality
            model.name, model.original.files, 1 - model.quality, 1.0
        )

    def _predict_originals(self, models: Iterable[ScheduledModel]) -> list[Point]:
        """Predict the points of the unpruned files of several models."""
        return [point for model in models for point in self._predict_original(model)]

    def _find_most_accurate(self) -> str | None:
        """Return the id of the model with the best metric; None: there is no model."""
        return max(self.models, key=lambda name: self.models[name].quality, default=None)

    def _train_further_first(self, step: Step, left: float) -> Step:
        """Return the further training of a model before its first other step, or that step."""
        model = self.models[step.model]
        # what it is for must still fit afterwards
        fitting = min(CONTINUED_SHARE * left, left - step.seconds) / max(model.epoch_seconds, 1e-9)
        epochs = int(min(fitting, CONTINUED_EPOCHS * self.epochs))
        if model.is_continued or model.sizes or epochs < max(1, LEAST_EPOCHS * self.epochs):
            return step
        # what it gains is seen in the files of the steps that follow
        return Step(0, CONTINUE, model.name, epochs=epochs, seconds=epochs * model.epoch_seconds)

    def _predict_size(
        self, model: ScheduledModel, share: float
    ) -> tuple[float, float, list[Point]]:
        """Forecast a fine-tuned size of a model: error, spread of its log, points of the files."""
        files: Sequence[FileResult] = ()
        repaired, macs = (0.0 if share == 1 else None), share * model.macs
        if share < 1 and (size := model.sizes.get(share)) is not None:
            repaired = compute_log_ratio(size.result.quality, model.quality)
            macs, files = size.result.macs, size.result.files
        halvings = math.log2(model.macs / max(macs, 1.0))
        error, spread = self._forecaster.predict_tuned(model.quality, halvings, repaired)
        originals = () if model.original is None else model.original.files
        if originals:
            points = self._forecaster.predict_pruned_files(
                model.name, originals, error, macs / model.macs, files
            )
        else:
            points = self._forecaster.predict_files(error, self._forecaster.predict_cost(macs))
        return error, spread, points

    def _list_expected(self, kinds: Sequence[str]) -> list[Point]:
        """Return the forecast files of running steps, or those that they are made for."""
        points: list[Point] = []
        for step in self.running:
            model = self.models.get(step.model)
            if step.kind not in kinds or model is None:
                continue
            if step.kind == EXPORT:
                points += self._predict_original(model)
            else:
                for share in (step.share,) if step.kind == TUNE else SHARES:
                    points += self._predict_size(model, share)[2]
        return points

    def _list_steps(self, left: float) -> Iterator[Step]:
        """Yield the possible steps with the models that exist, with their forecasts."""
        if not self.models:
            return
        scale, files = self._build_scale(), self.list_points()
        expected = scale.reduce(files + self._list_expected((EXPORT, TUNE)))
        pending = [model for model in self.models.values() if not model.is_exported]
        # other models compete with the sizes of one that is being pruned, or trained for that
        potential = scale.reduce(
            expected + self._predict_originals(pending) + self._list_expected((CONTINUE, PRUNE))
        )
        export_seconds, pruning_seconds = map(self.estimate_seconds, (EXPORT, PRUNE))
        factor = estimate_mean(self._factors, PRIOR_FACTOR)
        busy = {(step.kind, step.model, step.share) for step in self.running}
        best = self._find_most_accurate() or ""
        for model in self.models.values():
            if model.is_finished or (CONTINUE, model.name, 1.0) in busy:
                continue
            if not model.is_exported:
                if (EXPORT, model.name, 1.0) not in busy and export_seconds <= left:
                    points = self._predict_original(model)
                    gain = scale.measure_gain(expected, points)
                    yield Step(0, EXPORT, model.name, seconds=export_seconds, gain=gain)
                continue
            is_pruning = (PRUNE, model.name, 1.0) in busy
            prunings = []
            for share in sorted({1.0, *SHARES, *model.sizes}, reverse=True):
                size = model.sizes.get(share)
                is_known = share == 1 or size is not None
                if (
                    (size is not None and size.is_tuned)
                    or (TUNE, model.name, share) in busy
                    or (not is_known and (model.is_pruned or is_pruning))
                    # it would be its own teacher
                    or (share == 1 and model.is_continued and model.name == best)
                ):
                    continue
                error, spread, points = self._predict_size(model, share)
                macs = model.macs * share if size is None else size.result.macs
                epoch_seconds = factor * model.epoch_seconds * max(macs / model.macs, 0.25)
                least = 0.0 if is_known else pruning_seconds * PARTS[share]
                epochs = min(
                    self.epochs, int((left - export_seconds - least) / max(epoch_seconds, 1e-9))
                )
                if epochs < max(1, LEAST_EPOCHS * self.epochs):
                    continue
                gain = scale.measure_gain(potential, points, spread)
                after = export_seconds + epochs * epoch_seconds
                if is_known:
                    yield Step(
                        0, TUNE, model.name, share, epochs, best,
                        seconds=after, gain=gain, quality=1 - error,
                    )  # fmt: skip
                else:  # further sizes are pruned in the time that the fine-tuning leaves
                    prunings.append(Step(
                        0, PRUNE, model.name,
                        seconds=min(after + pruning_seconds, left), reserved=after, gain=gain,
                    ))  # fmt: skip
            if prunings:
                yield max(prunings, key=lambda step: step.rate)

    def _forecast_trial(self, trials: int) -> Step:
        """Forecast the gain of another trial: what the trials before would add to all the others.

        The largest of these gains does not count. It may be luck or the space's baseline, and the
        others are measured against it, as the next trial will be.

        Args:
            trials: Number of trials that ended or are running.
        """
        seconds = self.estimate_seconds(TRIAL) + self.estimate_seconds(EXPORT)
        best = self._find_most_accurate()
        total = 1.0
        if best is not None:
            scale = self._build_scale()
            files = {
                name: [(1 - item.quality, item.cost) for _, item in model.list_files()]
                or self._predict_original(model)
                for name, model in self.models.items()
            }
            front = scale.reduce([point for own in files.values() for point in own])
            gains = []
            for name, model in self.models.items():
                if not set(front).isdisjoint(files[name]):  # all the others add nothing
                    others = [point for other in files if other != name for point in files[other]]
                    gains.append(scale.measure_gain(others, self._predict_original(model)))
            better = [
                (TRIAL_PRIOR * error, cost)
                for error, cost in self._predict_original(self.models[best])
            ]
            total = scale.measure_gain(front, better) + sum(sorted(gains)[:-1])
        return Step(0, TRIAL, seconds=seconds, gain=total / (trials + 1))

    def _learn(self, step: Step, result: StepResult) -> float:
        if step.kind in self._durations:
            # a pruning may have had no time for all sizes; one that failed counts as it is
            part = max((PARTS.get(size.share, 1.0) for size in result.sizes), default=1.0)
            self._durations[step.kind].append(result.seconds / part)
        if step.kind == TRIAL:
            return self._add_model(result)
        model = self.models[step.model]
        if step.kind == CONTINUE:
            model.is_continued = True
            for size in result.sizes:  # none if it became no better
                model.quality, model.is_exported = size.quality, False
            return 0.0
        if result.reason:
            self._give_up(model, step)
            return 0.0
        before = self.list_points()
        if step.kind == EXPORT:
            (model.original,), model.is_exported = result.sizes, True
            self._forecaster.observe_files(model.original.files, model.macs)
        elif step.kind == PRUNE:
            model.is_pruned = True
            for size in result.sizes:
                model.sizes[size.share] = ScheduledSize(size)
                # formats differ less by accuracy before a fine-tuning than after it
                self._forecaster.observe_files(size.files[:1], size.macs)
                halvings = math.log2(model.macs / size.macs)
                self._forecaster.repaired.observe(
                    (halvings,), compute_log_ratio(size.quality, model.quality)
                )
                self._observe_pruning(model, size)
        elif step.kind == TUNE:
            self._learn_tuning(model, step, result)
        scale = FrontScale.from_points(points := self.list_points(), self.chance)
        return scale.measure(points) - scale.measure(before)

    def _add_model(self, result: StepResult) -> float:
        """Add the model of a trial, and return the gain of its forecast files."""
        if not result.sizes:
            return 0.0
        (size,) = result.sizes
        epoch_seconds = result.seconds / (result.epochs or 1)
        model = ScheduledModel(result.model, size.quality, size.macs, epoch_seconds)
        before = self.list_points() + self._predict_originals(self.models.values())
        self.models[model.name] = model
        return self._build_scale().measure_gain(before, self._predict_original(model))

    def _observe_pruning(self, model: ScheduledModel, size: SizeResult) -> None:
        originals = () if model.original is None else model.original.files
        self._forecaster.observe_pruning(model.name, originals, size.files, size.macs / model.macs)

    def _learn_tuning(self, model: ScheduledModel, step: Step, result: StepResult) -> None:
        (size,) = result.sizes
        if step.share < 1:
            self._observe_pruning(model, size)
        old = model.sizes.get(step.share)
        repaired = 0.0 if old is None else compute_log_ratio(old.result.quality, model.quality)
        self._forecaster.tuned.observe(
            (1.0, math.log2(model.macs / size.macs), repaired),
            compute_log_ratio(size.quality, model.quality),
        )
        model.sizes[step.share] = ScheduledSize(size, is_tuned=True)
        spent = result.seconds - self.estimate_seconds(EXPORT)
        if result.epochs and model.epoch_seconds:
            whole_epoch = model.epoch_seconds * max(size.macs / model.macs, 0.25)
            self._factors.append(max(spent, 0.1 * result.seconds) / result.epochs / whole_epoch)

    def _give_up(self, model: ScheduledModel, step: Step) -> None:
        """Do not try a failed step again."""
        if step.kind == EXPORT:
            model.is_finished = True
        elif step.kind == PRUNE:
            model.is_pruned = True
        else:
            old = model.sizes.get(step.share)
            result = SizeResult(1.0, model.quality, model.macs) if old is None else old.result
            model.sizes[step.share] = ScheduledSize(result, is_tuned=True)
