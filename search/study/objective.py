"""One trial: build, find its costs, reject or train (in part), record.

Optuna's pruners know one objective (its issue 3450). Here a trial is compared, at each rung
(an epoch count), with all trials that reached the same rung: by quality there and by the
costs, which training does not change. What a rung needs stands in the study's storage, so
workers in other processes and on other machines see it, and a resumed run too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.trial import BaseTrial, FrozenTrial, TrialState

from compress.core.device import Device
from compress.core.errors import TrainingDiverged
from compress.core.pareto import Losses
from compress.data import Dataset
from compress.model.copies import float32_model
from compress.model.io import check_saveable, save_model
from compress.train import EpochRecord, train
from compress.train.predict import quality_of
from compress.train.records import StartingPoint
from search.plan import SearchPlan
from search.spaces import Space
from search.study import optimizers
from search.study.costs import (
    Costs,
    find_costs,
    latency_of,
    over_limit,
    report_excess,
    report_preferences,
)
from search.study.directory import (
    COMPLETE,
    DUPLICATE,
    FAILED,
    REJECTED,
    STOPPED,
    Candidate,
    SearchFolder,
)

SEED_ATTR = "seed"
JUDGES = 2000
"""Validation examples that judge a model that is one of hundreds; those that go on meet all."""
SEED_GIVEN = "seed_given"
"""Marks trials that were queued with a seed: replays and retries."""
COSTS_ATTR = "costs"
SEEN: WeakKeyDictionary[optuna.Trial, Sequence[FrozenTrial]] = WeakKeyDictionary()
"""The other trials, as they were when a trial was asked for: they are not read again for it."""


def candidate_id(number: int) -> str:
    """Return a trial's number as file names carry it."""
    return f"{number:04d}"


def trial_seed(plan: SearchPlan, trial: optuna.Trial) -> int:
    """Return the seed of a trial's weights and batches: its own, or a replayed one."""
    return int(trial.user_attrs.get(SEED_ATTR, derived_seed(plan.seed, trial.number)))


def derived_seed(*parts: int) -> int:
    """Return a seed in [0, 2^31) that follows from numbers and from nothing else."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


def evaluate(
    trial: optuna.Trial,
    data: Dataset,
    plan: SearchPlan,
    folder: SearchFolder,
    device: Device,
    on_progress: Callable[[str, float], None],
) -> Candidate:
    """Turn a trial into a candidate and write its files; the storage is told later.

    A trained candidate's model and record are on disk before this returns, so that a
    trial is never told as finished without them.

    Args:
        trial: A running trial; its study tells what others reached.
        data: Training part trains, validation part judges.
        plan: Space, limits, epochs, stopping, objectives.
        folder: Where model and record go.
        device: What to train on.
        on_progress: Called with (text, share).

    Returns:
        The candidate: complete (with `no_train` without having been trained), stopped (others are
        better), rejected (above a limit), a duplicate, or failed (diverged).

    Raises:
        TrialGivenUp: Another worker has it now.
    """
    import keras

    began = time.perf_counter()
    seed = trial_seed(plan, trial)
    keras.utils.set_random_seed(seed)
    name = candidate_id(trial.number)
    on_progress(f"{name}: building", 0.0)
    space = plan.search.made_space
    model = build_model(space, trial, data, device.policy)
    settings = optimizers.sample(trial, plan, data)
    candidate = Candidate(name, COMPLETE, dict(trial.params), seed, device=device.describe())
    # a replayed or repeated trial is run again on purpose: its seed is given
    number = None if SEED_GIVEN in trial.user_attrs else same_choices(trial)
    first = None if number is None else folder.read_candidate(candidate_id(number))
    if first is not None:
        return _written(folder, repeat_of(first, candidate))
    note = getattr(trial.study.sampler, "note", "")  # the trial's own: `search.study.study`
    sampled = (note,) if note else ()
    on_progress(f"{name}: counting", 0.0)
    latency = latency_of(plan.search, folder)
    known = None if latency is None else latency(candidate.choices)
    costs = find_costs(model, plan.search, folder, known)
    candidate = replace(
        candidate,
        macs=costs.macs,
        params=costs.params,
        size_bytes=costs.size_bytes,
        latency_ms=costs.latency_ms,
        unsupported=costs.unsupported,
        estimated=costs.estimated,
    )
    reason = over_limit(costs, plan.search)
    if reason:
        report_excess(trial, costs, plan.search)
        return _written(folder, replace(candidate, state=REJECTED, reason=reason))
    report_preferences(trial, vars(costs), plan.search)
    check_saveable(model)  # not only when it is trained
    space.prepare(model, candidate.choices, data, quickly=plan.search.no_train)
    if plan.search.no_train:
        on_progress(f"{name}: judging", 0.5)
        few = _few_judge(data, plan.seed)
        val = quality_of(model, few, "val")
        report_preferences(trial, val, plan.search)
        save_model(float32_model(model), folder.model_file(name))
        told = (
            "not trained: judged as it was cut and repaired, by "
            f"{len(few.val):,} of {len(data.val):,} validation examples"
        )
        spent, notes = time.perf_counter() - began, (*sampled, told)
        return _written(folder, replace(candidate, val=val, seconds=spent, notes=notes))
    following = Following(trial, plan, costs, name, on_progress)
    start = StartingPoint(model, data, plan.search.objectives[0]) if space.trained else None
    try:
        result = train(
            model,
            data,
            settings,
            device=device,
            seed=seed,
            select_by=plan.search.objectives[0],
            on_epoch=following.on_epoch,
            should_stop=following.should_stop,
        )
    except TrainingDiverged as error:
        spent = time.perf_counter() - began
        return _written(folder, replace(candidate, state=FAILED, reason=str(error), seconds=spent))
    if start is not None:
        result = start.settled(model, result)
    report_preferences(trial, result.val, plan.search)
    if not following.stopped:
        save_model(float32_model(model), folder.model_file(name))
    candidate = replace(
        candidate,
        state=STOPPED if following.stopped else COMPLETE,
        reason=following.stopped,
        val=result.val,
        best_epoch=result.best_epoch,
        history=tuple(asdict(record) for record in result.history),
        seconds=time.perf_counter() - began,
        notes=(*sampled, *result.notes, *following.notes),
    )
    return _written(folder, candidate)


def _few_judge(data: Dataset, seed: int) -> Dataset:
    if len(data.val) <= JUDGES:
        return data
    order = np.random.default_rng(seed).permutation(len(data.val))[:JUDGES]
    return replace(data, val=data.val.take(np.sort(order)))


def _written(folder: SearchFolder, candidate: Candidate) -> Candidate:
    return folder.write_candidate(replace(candidate, ended=time.time()))


def same_choices(trial: optuna.Trial) -> int | None:
    """Return the earliest trial with these choices that has ended with a result, by its number.

    Looked for in what was read when the trial was asked for, else in what is there now.
    """
    reusable = (TrialState.COMPLETE, TrialState.PRUNED)
    seen = SEEN.get(trial) or trial.study.get_trials(deepcopy=False)
    others = (item for item in seen if item.state in reusable and item.number != trial.number)
    return next((item.number for item in others if item.params == trial.params), None)


def repeat_of(first: Candidate, candidate: Candidate) -> Candidate:
    """Return a candidate that repeats another's choices, with the other's result.

    A quality only where the other has its final one: told to the study, it is a value.
    """
    return replace(
        first,
        id=candidate.id,
        val=first.val if first.state == COMPLETE else {},
        state=DUPLICATE,
        reason=f"same choices as {first.id} ({first.state})",
        seed=candidate.seed,
        seconds=0.0,
        history=(),
    )


def build_model(space: Space, trial: BaseTrial, data: Dataset, policy: str) -> Any:
    """Build a trial's model under a dtype policy of Keras."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return space.build(trial, data)
    finally:
        keras.config.set_dtype_policy(before)


def objective_values(candidate: Candidate, plan: SearchPlan) -> list[float]:
    """Return a trained candidate's objectives: quality (up), costs (down)."""
    quality, *costs = plan.search.objectives
    return [float(candidate.val[quality]), *(float(getattr(candidate, cost)) for cost in costs)]


class Following:
    """The progress of one training, and its early end: the plateau, the stopping rule."""

    def __init__(
        self,
        trial: optuna.Trial,
        plan: SearchPlan,
        costs: Costs,
        name: str,
        on_progress: Callable[[str, float], None],
    ) -> None:
        # what is asked for as an objective has been measured
        values = [getattr(costs, name) for name in plan.search.costs]
        self._stopper = Stopper(trial, plan.stopping.margin, plan.rungs(), values)
        self._quality, self._plateau = plan.search.objectives[0], plan.stopping.plateau
        self._name, self._on_progress = name, on_progress
        self._best, self._best_epoch = -math.inf, 0
        self.stopped = ""
        self.notes: tuple[str, ...] = ()

    def on_epoch(self, epoch: int, epochs: int, record: EpochRecord) -> None:
        """Show the progress of the training."""
        quality = record.val[self._quality]
        self._on_progress(
            f"{self._name}: epoch {epoch}/{epochs}, validation {quality:.3f}", epoch / epochs
        )

    def should_stop(self, record: EpochRecord) -> bool:
        """Tell whether the training ends here."""
        quality = record.val[self._quality]
        if quality > self._best:
            self._best, self._best_epoch = quality, record.epoch
        # the best so far stands for a trial, as it does at its end
        if self._stopper.stops(record.epoch, self._best):
            self.stopped = f"others were better after {record.epoch} epochs"
        elif self._plateau and record.epoch - self._best_epoch >= self._plateau:
            self.notes = (f"ended after {record.epoch} epochs: none of the last "
                          f"{self._plateau} was better",)  # fmt: skip
        return bool(self.stopped or self.notes)


class Stopper:
    """The stopping rule of one trial, which records its rungs in the storage.

    Args:
        trial: The trial in question; its study has the others' records.
        margin: See `is_dominated`.
        epochs: The rungs; none: nothing stops.
        costs: The trial's costs, in the order of the objectives.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        margin: float,
        epochs: Sequence[int],
        costs: Sequence[float],
    ) -> None:
        self._trial, self._margin, self._epochs = trial, margin, epochs
        self._costs = [float(cost) for cost in costs]
        trial.set_user_attr(COSTS_ATTR, self._costs)

    def stops(self, epoch: int, quality: float) -> bool:
        """Tell whether the trial ends after this epoch."""
        if epoch not in self._epochs:
            return False
        self._trial.set_user_attr(rung_attr(epoch), quality)
        peers = at_rung(self._trial.study, epoch, len(self._costs), without=self._trial.number)
        own = np.array([[-quality, *self._costs]])
        return is_dominated(np.concatenate([peers, own]), len(peers), self._margin)


def is_dominated(losses: Losses, own: int, margin: float) -> bool:
    """Tell whether another trial is better by a margin, at no more cost.

    Among trials that differ in cost nothing is stopped, so that the cheap end of the front
    survives however low its quality is.

    Args:
        losses: (trials, 1 + costs) of all that reached a rung: -quality there, then the costs;
            lower is better.
        own: The row of the trial in question.
        margin: By how much the other's quality must be higher; above the noise of an epoch.
    """
    better = losses[:, 0] <= losses[own, 0] - margin
    better[own] = False
    no_more = (losses[:, 1:] <= losses[own, 1:]).all(axis=1)
    return bool((better & no_more).any())


def rung_attr(epoch: int) -> str:
    """Return the name under which a trial's quality at a rung is stored."""
    return f"rung{epoch}"


def at_rung(study: optuna.Study, epoch: int, costs: int, without: int) -> Losses:
    """Return (trials, 1 + costs) of the trials that reached a rung, but one."""
    name = rung_attr(epoch)
    rows = [
        [-float(trial.user_attrs[name]), *trial.user_attrs[COSTS_ATTR]]
        for trial in study.get_trials(deepcopy=False)
        if name in trial.user_attrs and trial.number != without
    ]
    return np.array(rows, float).reshape(-1, 1 + costs)
