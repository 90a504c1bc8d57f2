"""One trial: build, count cheap costs, reject or train, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from compress.data import Dataset
from compress.errors import TrainingDiverged
from compress.io import float32_model, save_model
from compress.measure import Analysis, count_macs
from compress.records import COMPLETE, FAILED, REJECTED, Candidate
from compress.runfolder import RunFolder
from compress.train import EpochRecord, train
from search import optimizers
from search.plan import SearchPlan
from search.spaces import SPACES

if TYPE_CHECKING:
    import optuna

    from compress.device import Device

SEED_ATTR = "seed"


def candidate_id(number: int) -> str:
    """Returns a trial's number as file names carry it."""
    return f"{number:04d}"


def trial_seed(plan: SearchPlan, trial: optuna.Trial) -> int:
    """Returns the seed of a trial's weights and batches: its own, or a replayed one."""
    stored = trial.user_attrs.get(SEED_ATTR)
    if stored is not None:
        return int(stored)
    return int(np.random.SeedSequence([plan.seed, trial.number]).generate_state(1)[0] >> 1)


def evaluate(
    trial: optuna.Trial,
    data: Dataset,
    plan: SearchPlan,
    folder: RunFolder,
    device: Device,
    on_progress: Callable[[str, float], None],
) -> Candidate:
    """Turns a trial into a candidate and writes its files; the storage is told later.

    A trained candidate's model and record are on disk before this returns, so that a
    trial is never told as finished without them.

    Args:
        trial: A running trial.
        data: Training part trains, validation part judges.
        plan: Space, limits, epochs, objectives.
        folder: Where model and record go.
        device: What to train on.
        on_progress: Called with (text, share).

    Returns:
        The candidate: complete, rejected (above a limit) or failed (diverged).
    """
    import keras

    began = time.perf_counter()
    seed = trial_seed(plan, trial)
    keras.utils.set_random_seed(seed)
    name = candidate_id(trial.number)
    on_progress(f"{name}: building", 0.0)
    with _policy(device.policy):
        model = SPACES[plan.search.space].build(trial, data)
    settings = optimizers.sample(trial, plan, data)
    analysis = count_macs(model)
    candidate = Candidate(
        name,
        COMPLETE,
        dict(trial.params),
        seed,
        macs=analysis.macs,
        params=analysis.params,
        unsupported=analysis.unsupported,
        device=device.describe(),
    )
    reason = over_limit(analysis, plan)
    if reason:
        candidate = replace(candidate, state=REJECTED, reason=reason)
        folder.write_candidate(candidate)
        return candidate

    def on_epoch(epoch: int, epochs: int, record: EpochRecord) -> None:
        quality = record.val[plan.search.objectives[0]]
        on_progress(f"{name}: epoch {epoch}/{epochs}, validation {quality:.3f}", epoch / epochs)

    try:
        result = train(
            model,
            data,
            settings,
            device=device,
            seed=seed,
            select_by=plan.search.objectives[0],
            on_epoch=on_epoch,
        )
    except TrainingDiverged as error:
        candidate = replace(
            candidate, state=FAILED, reason=str(error), seconds=time.perf_counter() - began
        )
        folder.write_candidate(candidate)
        return candidate
    save_model(float32_model(model), folder.model_file(name))
    candidate = replace(
        candidate,
        val=result.val,
        best_epoch=result.best_epoch,
        history=tuple(asdict(record) for record in result.history),
        seconds=time.perf_counter() - began,
        notes=result.notes,
    )
    folder.write_candidate(candidate)
    return candidate


@contextmanager
def _policy(name: str) -> Iterator[None]:
    """Sets Keras's global dtype policy while a model is built."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def over_limit(analysis: Analysis, plan: SearchPlan) -> str:
    """Returns why a model is too costly to train, or nothing."""
    limits = (
        ("MACs", analysis.macs, plan.search.max_macs),
        ("parameters", analysis.params, plan.search.max_params),
    )
    return "; ".join(
        f"{count:,} {name} exceed the limit of {limit:,}"
        for name, count, limit in limits
        if limit is not None and count > limit
    )


def objective_values(candidate: Candidate, plan: SearchPlan) -> list[float]:
    """Returns a trained candidate's objectives: quality (up), cost (down)."""
    quality, cost = plan.search.objectives
    return [candidate.val[quality], float(getattr(candidate, cost))]
