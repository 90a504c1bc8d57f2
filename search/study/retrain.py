"""After the search: the front's candidates trained anew, to the full budget, with several seeds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from compress.data import Dataset, Split
from compress.model.copies import float32_model
from compress.model.io import save_model
from compress.shrinking.case import Teacher, Work
from compress.shrinking.prune_and_train import Tuner
from compress.train import EpochRecord, train
from compress.train.predict import quality_of
from compress.train.records import LastEpoch, StartingPoint
from search.plan import SearchPlan
from search.study import optimizers
from search.study.directory import SearchFolder
from search.study.objective import derived_seed, model_policy
from search.study.records import Candidate, Final, final_name

if TYPE_CHECKING:
    from compress.core.device import Device


def final_seed(candidate: Candidate, place: int) -> int:
    """Returns the seed of a final training; the first has the candidate's own."""
    if place == 0:
        return candidate.seed
    return derived_seed(candidate.seed, place)


def retrain(
    candidate: Candidate,
    place: int,
    data: Dataset,
    plan: SearchPlan,
    folder: SearchFolder,
    device: Device,
    on_progress: Callable[[str, float], None],
    teachers: Sequence[Teacher] = (),
) -> Final:
    """Trains a candidate's model from its beginning and judges it on the test part.

    Sub-networks that were judged untrained are fine-tuned as the plan says.

    Args:
        candidate: Its choices are built again.
        place: Which of its trainings, from 0: another place, another seed.
        data: The test part is read here, once a training.
        plan: Section `final`.
        folder: Where model and record go; an interrupted training goes on.
        device: What to train on.
        on_progress: Called with (text, share).
        teachers: Of sub-networks that were judged untrained; none: labels alone teach them.

    Returns:
        The record, as written.
    """
    import keras
    import optuna

    began = time.perf_counter()
    seed, name = final_seed(candidate, place), final_name(candidate.id, place)
    keras.utils.set_random_seed(seed)
    trial = optuna.trial.FixedTrial(candidate.choices)
    space = plan.search.made_space
    with model_policy(device.policy):
        model = space.build(trial, data)
    space.prepare(model, candidate.choices, data)
    settings = replace(optimizers.sample(trial, plan, data), epochs=plan.final_epochs)
    part = on_everything(data) if plan.final.on_validation else data
    hooks = [LastEpoch()] if plan.final.on_validation else []

    def on_epoch(epoch: int, epochs: int, _: EpochRecord) -> None:
        on_progress(f"{name}: epoch {epoch}/{epochs}", epoch / epochs)

    # a `Tuner` looks at the start itself
    judged = space.trained and not plan.final.on_validation and not plan.search.no_train
    start = StartingPoint(model, data, plan.search.objectives[0]) if judged else None
    unfinished = folder.final / f"{name}.unfinished"
    if plan.search.no_train:
        own = replace(plan.compression(()), seed=seed, finetune=settings)
        work = Work(part, own, device, lambda text, share: on_progress(f"{name}: {text}", share))
        result, _, _ = Tuner(work, teachers, unfinished, hooks).tune(model, "fine-tuning", [])
    else:
        result = train(
            model,
            part,
            settings,
            device=device,
            seed=seed,
            hooks=hooks,
            select_by=plan.search.objectives[0],
            checkpoint=unfinished,
            on_epoch=on_epoch,
        )
    if start is not None:
        result = start.settled(model, result)
    save_model(float32_model(model), folder.final / f"{name}.keras")
    record = Final(
        candidate.id,
        place,
        seed,
        len(result.history),
        result.best_epoch,
        plan.final.on_validation,
        {} if plan.final.on_validation else result.val,
        quality_of(model, data, "test"),
        time.perf_counter() - began,
    )
    folder.write_final(record)
    if unfinished.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
    else:
        unfinished.unlink(missing_ok=True)
    return record


def promote_best(model: str, folder: SearchFolder, quality: str) -> Final:
    """Makes the best of a model's final trainings the one that goes on.

    The best by validation quality, the first of equals; the first training where validation
    data were trained on: nothing is left to choose by, and test data never choose.
    """
    records = [record for record in folder.read_finals() if record.model == model]
    best = max(records, key=lambda record: (record.val.get(quality, 0.0), -record.place))
    target = folder.final / f"{model}.keras"
    staged = target.with_suffix(".part")
    shutil.copyfile(folder.final / f"{final_name(model, best.place)}.keras", staged)
    staged.replace(target)
    return best


def on_everything(data: Dataset) -> Dataset:
    """Returns the data with the validation part among the training examples as well."""
    train_part, val = data.train, data.val
    weight = None
    if train_part.weight is not None or val.weight is not None:
        weight = np.concatenate(
            [np.ones(len(p), np.float32) if p.weight is None else p.weight
             for p in (train_part, val)]
        )  # fmt: skip
    both = Split(
        np.concatenate([train_part.x, val.x]), np.concatenate([train_part.y, val.y]), weight
    )
    return replace(data, train=both)
