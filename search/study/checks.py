"""Checks before the first trial: data, limits and compression.

A run is refused if models of earlier runs were trained on its validation or test data, if a limit
is below the smallest model of the space, or if a compression option does not fit its models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from compress.core.device import setup_device
from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.data import Dataset, load_data
from compress.plan import OPTIMIZERS
from compress.run.directory import LOG
from compress.run.held_out import check_choices
from compress.shrinking.compression_job import CoupledModel, check_by_models, iterate_checks
from compress.shrinking.job_runner import check_against_data, check_held_out_teachers
from compress.train import train
from compress.train.dataset_loading import prepare_dataset, with_metric
from search.plan import SearchPlan
from search.spaces.describe import measure_costs
from search.study.costs import NAMES, Costs, find_excesses, get_limits
from search.study.directory import SearchFolder
from search.study.optimizers import build_baseline
from search.study.warm_start import is_candidate_file

SEARCH_SHARE, AVERAGE_SIZE = 0.4, 0.5
"""Share of a time budget for the first trials, and the time of an average one over that of the
space's baseline."""
LEAST_TRIALS, FEWEST_TRIALS, LEAST_STEPS = 12, 6, 20
"""Number of first trials; where the time is too short for one epoch of each: their number, and the
fewest steps of a smaller epoch."""
OPTIMIZER_TRIALS = 50
"""Number of first trials below which the optimizer is not searched: so few find good networks or a
good optimizer, not both."""
PROBED_STEPS, PROBED_VALIDATION = 20, 256
"""Steps and validation examples that are timed."""
HANDED_OVER_NOTE = (
    "the data were handed over in Python: commands that are shown need them as a file, by --data"
)
LIMIT_OPTIONS = {"macs": "max_macs", "params": "max_params", "size_bytes": "max_size"}
"""Options of the checked limits, by cost: counted costs and the bytes of the weights."""


def load_run_data(plan: SearchPlan, dataset_arguments: Mapping[str, Any] | None = None) -> Dataset:
    """Load the plan's data.

    Args:
        plan: The plan, which names the data.
        dataset_arguments: Arguments of `compress.as_dataset` for data from Python; None: the data
            are loaded by name.

    Raises:
        InputError: The data cannot be loaded; or they are an instance of a user-defined data set
            class, which cannot be passed to other processes.
    """
    if dataset_arguments is None:
        return with_metric(load_data(plan.data, seed=plan.seed), plan.data.metric)
    dataset = prepare_dataset(None, **dataset_arguments, seed=plan.seed, testing=True)
    if type(dataset) is not Dataset:
        raise InputError(
            f"Data of a run must be a Dataset, which other processes can be given. Received: "
            f"{type(dataset).__name__}. Name the function that makes it: 'module:function'."
        )
    # data that were read by name can be read by that name again and need no note
    return (
        dataset
        if dataset.max_value is not None
        else replace(dataset, notes=(*dataset.notes, HANDED_OVER_NOTE))
    )


def check_data_leakage(plan: SearchPlan, data: Dataset) -> tuple[str, ...]:
    """Check that no earlier model or search was trained on held-out data of this run.

    Args:
        plan: The plan, which names teachers and warm starts.
        data: Training, validation and test parts.

    Returns:
        Notes on the teachers, for the reports.

    Raises:
        InputError: A teacher or a warm start was trained on the test part or on data that select
            models.
    """
    for name in plan.search.warm_start:
        path = Path(name).resolve().parent.parent if is_candidate_file(name) else Path(name)
        if (path / "plan.json").is_file():
            check_choices(SearchFolder(path), data, f"Warm start '{name}'")
    return tuple(check_held_out_teachers(plan, data))


def check_limits(plan: SearchPlan, data: Dataset) -> None:
    """Check that the smallest model of the space keeps the limits on counts.

    User-defined spaces whose smallest model is not known are not checked here.

    Args:
        plan: The plan, with space and limits.
        data: The data, which set the input shape and outputs of the models.

    Raises:
        InputError: The smallest model exceeds a limit; the message says its cost.
    """
    space = plan.search.resolved_space
    choices = space.smallest(data) if LIMIT_OPTIONS.keys() & get_limits(plan.search) else None
    if choices is None:
        return
    smallest = measure_costs(space, choices, data)
    for name, value, limit in find_excesses(Costs(smallest.macs, smallest.params), plan.search):
        raise InputError(
            f"{LIMIT_OPTIONS[name]} must be at least what the smallest candidate of space "
            f"'{plan.search.space}' has: {value:,.0f} {NAMES[name]}. Received: {limit:,}."
        )


def fit_training(plan: SearchPlan, data: Dataset, workers: int, threads: int) -> SearchPlan:
    """Return a plan whose trials fit into its time budget.

    A first part of the budget must be enough for some trials of average size. The space's baseline
    is trained for a few steps to find out how long they take. Trials get fewer epochs, then fewer
    examples an epoch. Where few trials fit, all have one optimizer, unless the plan names some.

    Args:
        plan: The plan, with a budget.
        data: The data of the run.
        workers: Number of workers.
        threads: CPU threads of each worker.
    """
    budget = plan.goal.seconds
    assert budget is not None
    size = min(len(data.train), PROBED_STEPS * plan.finetune.batch_size)
    part = replace(
        data,
        train=data.train.take(np.arange(size)),
        val=data.val.take(np.arange(min(len(data.val), PROBED_VALIDATION))),
    )
    device = setup_device("cpu", threads)
    model = next(_build_models(plan, data), None)
    if model is None:  # trials report the errors of user-defined spaces
        return plan
    settings = replace(plan.finetune, epochs=2, epoch_examples=None)
    first, second = train(model, part, settings, device=device, seed=plan.seed).history
    compilation = max(0.0, first.seconds - second.seconds)
    examples = plan.finetune.count_epoch_examples(len(data.train))
    epoch_seconds = second.seconds * examples / size
    available = SEARCH_SHARE * budget * workers
    for count in (LEAST_TRIALS, FEWEST_TRIALS):
        fitting = (available / count - compilation) / (AVERAGE_SIZE * epoch_seconds)
        if fitting >= 1:
            break
    search, finetune, changes = plan.search, plan.finetune, list[str]()
    if fitting < search.epochs:
        epochs = max(1, int(fitting))
        fewer = max(round(fitting * examples), LEAST_STEPS * finetune.batch_size)
        changes.append(f"trials have {epochs} epoch{'s' * (epochs > 1)} of {search.epochs}")
        search = replace(search, epochs=epochs)
        if fewer < examples:
            finetune = replace(finetune, epoch_examples=fewer)
            changes = [f"trials have one epoch of {fewer:,} of {len(data.train):,} examples"]
    trial_seconds = compilation + AVERAGE_SIZE * epoch_seconds * plan.search.epochs
    if available < OPTIMIZER_TRIALS * trial_seconds and search.optimizers == OPTIMIZERS:
        search = replace(search, optimizers=(build_baseline(plan, data)["optimizer"],))
        changes.append(f"trials have the optimizer {search.optimizers[0]}")
    if changes:
        LOG.info(
            "%s, because an epoch of the space's baseline takes about %.0f s and %.0f %% of the "
            "budget are for first trials",
            " and ".join(changes), epoch_seconds, 100 * SEARCH_SHARE,
        )  # fmt: skip
    return replace(plan, search=search, finetune=finetune)


def check_compression(plan: SearchPlan, data: Dataset, teachers: Sequence[keras.Model]) -> None:
    """Check the options of compression against models of the space.

    The checked models are the baseline, the largest and the smallest, where they are known, and one
    sample of a user-defined space. Options that fit none of them are refused: a target that is too
    small or too large for all, a pattern or a pair of layers that matches no name. The front may
    hold models with other layers, so options that fit only some models are skipped for the others.

    Args:
        plan: The plan of the run.
        data: The data of the run.
        teachers: The teachers of the plan.

    Raises:
        InputError: An option fits none of the checked models.
    """
    check_against_data(plan, data)
    if any(iterate_checks(plan, [None])):
        subjects = [CoupledModel(model, [data.input_shape]) for model in _build_models(plan, data)]
        check_by_models(plan, subjects, teachers)


def _build_models(plan: SearchPlan, data: Dataset) -> Iterator[keras.Model]:
    """Yield the space's distinct baseline, largest and smallest models, without those that fail."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = plan.search.resolved_space
    seen_choices: list[dict[str, Any]] = []
    for choices in (space.baseline(data), space.largest(data), space.smallest(data)):
        if choices is None or choices in seen_choices:
            continue
        seen_choices.append(choices)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(plan.seed))
        study.enqueue_trial(choices)
        try:
            model = space.build(study.ask(), data)
        except Exception as error:  # user-defined code; trials report their own errors
            LOG.info("a first model of the space cannot be built: %s", error)
            continue
        yield model
