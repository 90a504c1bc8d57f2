"""One trial: build, find its costs, reject or train (in part), record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from compress.core.errors import TrainingDiverged
from compress.data import Dataset
from compress.model.copies import float32_model
from compress.model.io import check_saveable, save_model
from compress.train import train
from compress.train.predict import quality_of
from compress.train.records import StartingPoint
from search.plan import SearchPlan
from search.study import optimizers
from search.study.asking import others
from search.study.costs import find_costs, latency_of, over_limit, report_excess, report_preferences
from search.study.directory import SearchFolder
from search.study.early_stopping import Following
from search.study.records import COMPLETE, DUPLICATE, FAILED, REJECTED, STOPPED, Candidate

if TYPE_CHECKING:
    import optuna

    from compress.core.device import Device

SEED_ATTR = "seed"
UNTRAINED = "not trained: judged as it was cut and repaired"
JUDGES = 2000
"""Validation examples that judge a model that is one of hundreds; those that go on meet all."""
SEED_GIVEN = "seed_given"
"""Marks trials that were queued with a seed: replays and retries."""


def candidate_id(number: int) -> str:
    """Returns a trial's number as file names carry it."""
    return f"{number:04d}"


def trial_seed(plan: SearchPlan, trial: optuna.Trial) -> int:
    """Returns the seed of a trial's weights and batches: its own, or a replayed one."""
    stored = trial.user_attrs.get(SEED_ATTR)
    if stored is not None:
        return int(stored)
    return derived_seed(plan.seed, trial.number)


def derived_seed(*parts: int) -> int:
    """Returns a seed in [0, 2^31) that follows from numbers and from nothing else."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0] >> 1)


def evaluate(
    trial: optuna.Trial,
    data: Dataset,
    plan: SearchPlan,
    folder: SearchFolder,
    device: Device,
    on_progress: Callable[[str, float], None],
) -> Candidate:
    """Turns a trial into a candidate and writes its files; the storage is told later.

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
    with model_policy(device.policy):
        model = space.build(trial, data)
    settings = optimizers.sample(trial, plan, data)
    candidate = Candidate(name, COMPLETE, dict(trial.params), seed, device=device.describe())
    # a replayed or repeated trial is run again on purpose: its seed is given
    number = None if SEED_GIVEN in trial.user_attrs else same_choices(trial)
    first = None if number is None else folder.read_candidate(candidate_id(number))
    if first is not None:
        return _written(folder, repeat_of(first, candidate))
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
        told = f"{UNTRAINED}, by {len(few.val):,} of {len(data.val):,} validation examples"
        spent, notes = time.perf_counter() - began, (*_sampled(trial), told)
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
        notes=(*_sampled(trial), *result.notes, *following.notes),
    )
    return _written(folder, candidate)


def _few_judge(data: Dataset, seed: int) -> Dataset:
    """Returns the data with a few validation examples, the same for all candidates."""
    if len(data.val) <= JUDGES:
        return data
    order = np.random.default_rng(seed).permutation(len(data.val))[:JUDGES]
    return replace(data, val=data.val.take(np.sort(order)))


def _sampled(trial: optuna.Trial) -> tuple[str, ...]:
    """Returns what the sampler has to say of the trial's choices."""
    told = getattr(trial.study.sampler, "note", "")  # the trial's own: `search.study.asking`
    return (told,) if told else ()


def _written(folder: SearchFolder, candidate: Candidate) -> Candidate:
    return folder.write_candidate(replace(candidate, ended=time.time()))


def same_choices(trial: optuna.Trial) -> int | None:
    """Returns the earliest trial with these choices that has ended with a result, by its number.

    Looked for in what was read when the trial was asked for (`search.study.asking.ask`).
    """
    from optuna.trial import TrialState

    reusable = (TrialState.COMPLETE, TrialState.PRUNED)
    for other in others(trial):
        ended = other.state in reusable and other.number != trial.number
        if ended and other.params == trial.params:
            return other.number
    return None


def repeat_of(first: Candidate, candidate: Candidate) -> Candidate:
    """Returns a candidate that repeats another's choices, with the other's result.

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


@contextmanager
def model_policy(name: str) -> Iterator[None]:
    """Sets Keras's global dtype policy while a model is built."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def objective_values(candidate: Candidate, plan: SearchPlan) -> list[float]:
    """Returns a trained candidate's objectives: quality (up), costs (down)."""
    quality, *costs = plan.search.objectives
    return [float(candidate.val[quality]), *(float(getattr(candidate, cost)) for cost in costs)]
