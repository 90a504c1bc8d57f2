"""Further and final trainings of candidates, and the decision to remove channels.

Removing channels only pays if the model itself, rather than the fixed cost of an inference call,
takes most of the time.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from compress.core.atomic_files import replace_file, write_json
from compress.core.device import Device
from compress.core.errors import InputError, RunFailed, to_one_line
from compress.core.quantities import format_threads
from compress.data import Dataset
from compress.measure import formatting
from compress.measure.latency import Entry, time_entries
from compress.measure.latency_record import Latency
from compress.model.copies import convert_to_float32
from compress.model.io import load_model, save_model
from compress.plan.target import Target
from compress.prune.channels import check_channels, prune_channels
from compress.run.records import Record, read_record
from compress.shrinking.compression_job import CoupledModel
from compress.train import train
from compress.train.predict import evaluate_model
from search.plan import SearchPlan
from search.study import optimizers
from search.study.directory import (
    FURTHER_SUFFIX,
    Candidate,
    FinalTraining,
    SearchFolder,
    build_final_name,
)
from search.study.objective import build_model

SLOW_RATIO = 3.0
"""A model is slow if it takes more than this multiple of a nearly empty model's time."""
MAX_HALF_RATIO = 0.9
"""Halving the MACs pays if the time falls at least to this share.

On some processors, int8 kernels take about the same time for any number of channels.
"""
HALF_MACS = Target(0.5, relative=True)
TIMING_PRECISION, TIMING_SECONDS = 0.05, 2.0
"""Relative half-width of the intervals, and time limit, of these measurements."""


def train_final(
    candidate: Candidate,
    data: Dataset,
    plan: SearchPlan,
    folder: SearchFolder,
    device: Device,
    on_progress: Callable[[str, float], None],
) -> FinalTraining:
    """Train a candidate's model from its initial weights, and evaluate it on the test part.

    Args:
        candidate: The candidate, whose model is built again from its choices.
        data: The data; the test part is evaluated once.
        plan: The plan, with section `final`.
        folder: Folder for the model and the record. An interrupted training is resumed.
        device: Device of the training.
        on_progress: Callback for progress, called with (text, share).

    Returns:
        The record, which has been written.

    Raises:
        TrainingDiverged: The loss is not finite or far above that of guessing.
    """
    import keras

    began = time.perf_counter()
    name = build_final_name(candidate.id)
    keras.utils.set_random_seed(candidate.seed)
    trial = optuna.trial.FixedTrial(candidate.choices)
    model = build_model(plan.search.resolved_space, trial, data, device.policy)
    checkpoint = folder.final / f"{name}.npz"
    result = train(
        model,
        data,
        replace(optimizers.sample_settings(trial, plan, data), epochs=plan.final.epochs),
        device=device,
        seed=candidate.seed,
        select_by=plan.search.objectives[0],
        checkpoint=checkpoint,
        on_epoch=lambda epoch, epochs, _: on_progress(
            f"{name}: epoch {epoch}/{epochs}", epoch / epochs
        ),
    )
    save_model(convert_to_float32(model), folder.final / f"{name}.keras")
    record = FinalTraining(
        model=candidate.id,
        place=0,
        seed=candidate.seed,
        epochs=len(result.history),
        best_epoch=result.best_epoch,
        val=result.val,
        test=evaluate_model(model, data, "test"),
        seconds=time.perf_counter() - began,
    )
    folder.write_final(record)
    checkpoint.unlink(missing_ok=True)
    return record


def train_further(
    candidate: Candidate,
    data: Dataset,
    plan: SearchPlan,
    folder: SearchFolder,
    device: Device,
    on_progress: Callable[[str, float], None],
    epochs: int,
    seconds: float,
) -> tuple[float, float | None]:
    """Train a candidate's model from its weights, with its schedule from the beginning.

    A better model becomes the candidate's final `.keras` file. The candidate's own file stays.

    Args:
        candidate: The candidate, with a model on disk.
        data: The data; the test part is not read.
        plan: The plan of the run.
        folder: Folder of the run.
        device: Device of the training.
        on_progress: Callback for progress, called with (text, share).
        epochs: Number of epochs, at least 1.
        seconds: Time limit, at which the training ends within an epoch.

    Returns:
        The number of epochs, a part of one included, and the validation value of the first
        objective; None if it is no better than before.

    Raises:
        TrainingDiverged: The loss is not finite or far above that of guessing.

    Reference:
        Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts": one
        restart, and only of what is about to be pruned.
    """
    name, metric = candidate.id, plan.search.objectives[0]
    folder.get_shipped_path(name)  # a worker on another machine fetches the model
    model = load_model(folder.get_model_path(name))
    trial = optuna.trial.FixedTrial(candidate.choices)
    result = train(
        model,
        data,
        replace(optimizers.sample_settings(trial, plan, data), epochs=epochs),
        device=device,
        seed=candidate.seed,
        select_by=metric,
        seconds=seconds,
        on_epoch=lambda epoch, epochs, _: on_progress(
            f"{name}: epoch {epoch}/{epochs} of further training", epoch / epochs
        ),
    )
    trained = sum(record.share for record in result.history)
    if not result.val[metric] > candidate.val[metric]:
        return trained, None
    save_model(convert_to_float32(model), folder.final / f"{name}.keras")
    write_json(
        folder.final / f"{name}{FURTHER_SUFFIX}",
        {"model": name, "epochs": len(candidate.history) + len(result.history)},
    )
    return trained, result.val[metric]


def promote_final(model: str, folder: SearchFolder) -> None:
    """Copy a model's final training to its final `.keras` file, which is compressed and shipped.

    Args:
        model: Id of the candidate.
        folder: The folder of the run.
    """
    with replace_file(folder.final / f"{model}.keras") as part:
        shutil.copyfile(folder.final / f"{build_final_name(model)}.keras", part)


@dataclass(frozen=True)
class RunCost(Record):
    """Latency of a model's int8 file, compared with that of a nearly empty file.

    Attributes:
        own_ms, empty_ms: Milliseconds of one inference at batch size 1, of the model and of the
            empty file; see `Latency.quiet_ms`.
        how: Runtime and number of threads of the measurement.
        half_ms: Milliseconds of the model with half of its MACs removed (by l2, without
            reconstruction); None if the model is not slow, so that it was not measured.
    """

    own_ms: float
    empty_ms: float
    how: str
    half_ms: float | None = None

    @property
    def is_slow(self) -> bool:
        """Whether the model takes more than `SLOW_RATIO` times as long as an empty file."""
        return self.own_ms > SLOW_RATIO * self.empty_ms

    @property
    def is_worth_halving(self) -> bool:
        """Whether the model is slow and removing half of its MACs saves enough time."""
        return (
            self.is_slow
            and self.half_ms is not None
            and self.half_ms <= MAX_HALF_RATIO * self.own_ms
        )

    def __str__(self) -> str:
        half = (
            ""
            if self.half_ms is None
            else f", {formatting.format_time(self.half_ms)} with half the MACs"
        )
        return (
            f"its int8 file takes {formatting.format_time(self.own_ms)}{half}, an empty one "
            f"{formatting.format_time(self.empty_ms)} ({self.how}, measured)"
        )


def halve_slow_model(
    plan: SearchPlan, original: CoupledModel, data: Dataset, times_file: Path
) -> tuple[SearchPlan, list[str]]:
    """Return the plan with a channel target of half the MACs, if the model gains speed by it.

    The model gains if its int8 file takes more than three times as long as an empty one, and if the
    file takes at most 90 % of its time with half of the MACs. Both are measured with LiteRT and the
    plan's number of threads. The sparsity of the kept weights is reduced so that the number of
    non-zero weights stays about the same: 60 % of half the weights instead of 80 % of all.

    Args:
        plan: The plan of the run.
        original: The original model.
        data: Data for the calibration of the files.
        times_file: File of the measured times, which a resumed run reads to make the same decision.

    Returns:
        The plan for this model, and notes on the measurement and the decision. If the plan sets
        channels or a goal, the unchanged plan without notes.
    """
    if plan.channels.target is not None or plan.goal.is_given:
        return plan, []
    halved = _halve_macs(plan)
    try:
        check_channels(original.coupling, halved.channels)
        cost = (
            read_record(times_file, RunCost)
            if times_file.exists()
            else _measure_run_cost(original, halved, data)
        )
    except (InputError, RunFailed) as error:
        return plan, [f"no channels are removed: {to_one_line(str(error))}"]
    write_json(times_file, cost.to_json())
    if not cost.is_worth_halving:
        return plan, [f"no channels are removed, because that would save hardly any time: {cost}"]
    sparsity = halved.weights.sparsity
    sparsity_text = (
        f", zeros are {formatting.format_percent(sparsity)}"
        if sparsity != plan.weights.sparsity
        else ""
    )
    return halved, [f"channels are removed until half of the MACs remain{sparsity_text}: {cost}"]


def _halve_macs(plan: SearchPlan) -> SearchPlan:
    """Return the plan with a channel target of half the MACs and an adjusted sparsity."""
    channel_options, weights = plan.channels, plan.weights
    channels = replace(channel_options, target=HALF_MACS)
    if weights.pattern.kind == "n:m" or weights.overrides:
        return replace(plan, channels=channels)
    sparsity = round(max(0.0, 1.0 - (1.0 - weights.sparsity) / HALF_MACS.amount), 4)
    return replace(plan, channels=channels, weights=replace(weights, sparsity=sparsity))


def _measure_run_cost(original: CoupledModel, plan: SearchPlan, data: Dataset) -> RunCost:
    """Time the model's int8 file and an empty one, then, if it is slow, one with half the MACs.

    Args:
        original: The original model.
        plan: The plan of the model, with the target.
        data: Data for the calibration of the files.

    Raises:
        RunFailed: The empty model cannot be exported to int8.
        FeasibleError: Half of the MACs cannot be removed.
    """
    from compress.exporting import export
    from compress.exporting.batch_conversion import write_latency_files
    from compress.measure.latency_table.measurement import build_empty_model

    threads = plan.latency.threads
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)

        def export_int8(model: Any, name: str) -> Entry:
            (exported_file,) = export(
                model, folder / f"{name}.tflite", format="int8", data=data, seed=plan.seed,
                calibration=plan.export.calibration,
            )  # fmt: skip
            return Entry(exported_file.path, "litert", threads)

        def measure_times(entries: dict[str, Entry]) -> dict[str, Latency]:
            return time_entries(
                entries, precision=TIMING_PRECISION, budget=TIMING_SECONDS, seed=plan.seed
            )

        model_entry = export_int8(original.model, "own")
        (empty,) = write_latency_files([build_empty_model()], folder, "int8")
        if isinstance(empty, str):
            raise RunFailed(f"there is no empty int8 file to time: {empty}")
        times = measure_times({"own": model_entry, "empty": Entry(empty, "litert", threads)})
        runtime_text = f"{times['own'].runtime}, {format_threads(threads)}"
        cost = RunCost(times["own"].quiet_ms, times["empty"].quiet_ms, runtime_text)
        if not cost.is_slow:
            return cost
        # l2 is quick; channel counts by output error are only known after pruning,
        # and may give another latency
        quick_options = replace(plan.channels, criterion="l2", scope="global", blocks=False)
        halved_model = prune_channels(
            original.model, quick_options, coupling=original.coupling
        ).model
        times = measure_times({"own": model_entry, "half": export_int8(halved_model, "half")})
        return replace(cost, own_ms=times["own"].quiet_ms, half_ms=times["half"].quiet_ms)
