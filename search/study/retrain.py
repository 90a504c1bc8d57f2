"""Final trainings of the front after the search, and the decision to remove channels.

Removing channels pays for models whose time is their own, not what any run costs.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from compress.core.atomic_files import replacing, write_json
from compress.core.device import Device
from compress.core.errors import InputError, RunFailed, one_line
from compress.core.quantities import threads_text
from compress.data import Dataset, Split
from compress.measure import formats
from compress.measure.latency import Entry, time_entries
from compress.measure.latency_record import Latency
from compress.model.copies import float32_model
from compress.model.io import save_model
from compress.plan.target import Target
from compress.prune.channels import check_channels, prune_channels
from compress.run.records import Record, read_record
from compress.shrinking.case import Subject, Teacher, Work
from compress.shrinking.prune_and_train import Tuner
from compress.train import train
from compress.train.predict import quality_of
from compress.train.records import LastEpoch, StartingPoint
from search.plan import SearchPlan
from search.study import optimizers
from search.study.directory import Candidate, Final, SearchFolder, final_name
from search.study.objective import build_model, derived_seed

TIMES = 3.0
"""Above it, what a run of any file costs is less than a third of a model's time."""
GAIN = 0.9
"""At most this share of a model's time is left without half of its MACs where that pays: on some
processors calls of int8 files take about as long whatever their widths."""
KEPT = Target(0.5, relative=True)
PRECISION, SECONDS = 0.05, 2.0


def final_seed(candidate: Candidate, place: int) -> int:
    """Return the seed of a final training; the first has the candidate's own."""
    return derived_seed(candidate.seed, place) if place else candidate.seed


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
    """Train a candidate's model from its beginning, and evaluate it on the test part.

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

    began = time.perf_counter()
    seed, name = final_seed(candidate, place), final_name(candidate.id, place)
    keras.utils.set_random_seed(seed)
    trial = optuna.trial.FixedTrial(candidate.choices)
    space = plan.search.made_space
    model = build_model(space, trial, data, device.policy)
    space.prepare(model, candidate.choices, data)
    settings = replace(optimizers.sample(trial, plan, data), epochs=plan.final_epochs)
    part = on_everything(data) if plan.final.on_validation else data
    hooks = [LastEpoch()] if plan.final.on_validation else []

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
            on_epoch=lambda epoch, epochs, _: on_progress(
                f"{name}: epoch {epoch}/{epochs}", epoch / epochs
            ),
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
    """Make the best of a model's final trainings the one that goes on.

    The best by validation quality, the first of equals; the first training where validation
    data were trained on: nothing is left to choose by, and test data never choose.
    """
    records = [record for record in folder.read_finals() if record.model == model]
    best = max(records, key=lambda record: (record.val.get(quality, 0.0), -record.place))
    with replacing(folder.final / f"{model}.keras") as part:
        shutil.copyfile(folder.final / f"{final_name(model, best.place)}.keras", part)
    return best


def on_everything(data: Dataset) -> Dataset:
    """Return the data with the validation part among the training examples as well."""
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


@dataclass(frozen=True)
class RunCost(Record):
    """The time of a model's int8 file beside that of a nearly empty one.

    Attributes:
        own_ms, empty_ms: Milliseconds of one inference at batch 1; see `Latency.quiet_ms`.
        how: What measured, and with how many threads.
        half_ms: Of the model without half of its MACs (by l2, not repaired); None where that was
            not asked, since the model takes hardly any time of its own.
    """

    own_ms: float
    empty_ms: float
    how: str
    half_ms: float | None = None

    @property
    def slow(self) -> bool:
        """Whether the model takes more than `TIMES` times what any run costs."""
        return self.own_ms > TIMES * self.empty_ms

    @property
    def pays(self) -> bool:
        """Whether removing half of the MACs saves time, of a model that takes some."""
        return self.slow and self.half_ms is not None and self.half_ms <= GAIN * self.own_ms

    def __str__(self) -> str:
        half = "" if self.half_ms is None else f", {formats.time(self.half_ms)} with half the MACs"
        return (
            f"its int8 file takes {formats.time(self.own_ms)}{half}, an empty one "
            f"{formats.time(self.empty_ms)} ({self.how}, measured)"
        )


def halved_if_slow(
    plan: SearchPlan, subject: Subject, data: Dataset, known: Path
) -> tuple[SearchPlan, list[str]]:
    """Give a model's plan a target of channels where the model is slow enough to gain by it.

    That is where its int8 file takes more than three times what an empty one takes, and at least
    a tenth longer than that of the same model without half of its MACs: measured with LiteRT and
    the plan's number of threads. Of the weights that are left fewer are pruned, so that about as
    many are not zero as without it: 60 % of a half for 80 % of all.

    Args:
        plan: Of the run.
        subject: The dense model.
        data: Calibrate the file.
        known: Where the times are kept: a training that goes on is that of the same plan.

    Returns:
        The plan for this model, and notes on what was measured and done. Where the plan names
        channels or a goal itself, or `channels.keep_all` is set, the plan as it is and none.
    """
    if plan.channels.keep_all or plan.channels.active or plan.shrink_to is not None:
        return plan, []
    halved = _halved(plan)
    try:
        check_channels(subject.coupling, halved.channels)
        cost = read_record(known, RunCost) if known.exists() else _measured(subject, halved, data)
    except (InputError, RunFailed) as error:
        return plan, [f"no channels leave: {one_line(str(error))}"]
    write_json(known, cost.to_json())
    if not cost.pays:
        return plan, [f"no channels leave, because that would save hardly any time: {cost}"]
    zeros = halved.weights.sparsity
    less = f", zeros are {formats.percent(zeros)}" if zeros != plan.weights.sparsity else ""
    return halved, [f"channels leave until half of the MACs are left{less}: {cost}"]


def _halved(plan: SearchPlan) -> SearchPlan:
    """Return the plan with the target of channels, and with its own options of pruning."""
    own, weights = plan.channels, plan.weights
    channels = replace(own, target=KEPT, target_metric="macs")
    if weights.pattern.kind == "n:m" or weights.overrides:
        return replace(plan, channels=channels)
    zeros = round(max(0.0, 1.0 - (1.0 - weights.sparsity) / KEPT.amount), 4)
    least = min(weights.initial_sparsity, zeros)
    fewer = replace(weights, sparsity=zeros, initial_sparsity=least)
    return replace(plan, channels=channels, weights=fewer)


def _measured(subject: Subject, plan: SearchPlan, data: Dataset) -> RunCost:
    """Time the model's int8 file and an empty one, then one without half of its MACs beside it.

    Args:
        subject: The dense model.
        plan: Of the model, with the target.
        data: Calibrate the files.

    Raises:
        RunFailed: There is no int8 file.
        FeasibleError: Half of the MACs cannot leave.
    """
    from compress.exporting import export
    from compress.exporting.side_by_side import litert_files
    from compress.measure.latency_table.measuring import empty_model

    threads = plan.latency.threads
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def exported(model: Any, name: str) -> Entry:
            (made,) = export(
                model, folder / f"{name}.tflite", format="int8", data=data, seed=plan.seed,
                calibration=plan.export.calibration,
            )  # fmt: skip
            return Entry(made.path, "litert", threads)

        def timed(entries: dict[str, Entry]) -> dict[str, Latency]:
            return time_entries(entries, precision=PRECISION, budget=SECONDS, seed=plan.seed)

        own = exported(subject.model, "own")
        (empty,) = litert_files([empty_model()], folder, "int8")
        if isinstance(empty, str):
            raise RunFailed(f"there is no empty int8 file to time: {empty}")
        found = timed({"own": own, "empty": Entry(empty, "litert", threads)})
        how = f"{found['own'].runtime}, {threads_text(threads)}"
        cost = RunCost(found["own"].quiet_ms, found["empty"].quiet_ms, how)
        if not cost.slow:
            return cost
        # by l2 at once: the widths that damages allocate are known only after the work is done, and
        # may take another time
        quick = replace(plan.channels, criterion="l2", scope="global", blocks=False, steps=1)
        half = prune_channels(subject.model, quick, coupling=subject.coupling).model
        found = timed({"own": own, "half": exported(half, "half")})
        return replace(cost, own_ms=found["own"].quiet_ms, half_ms=found["half"].quiet_ms)
