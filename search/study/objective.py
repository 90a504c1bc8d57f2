"""Evaluation of one trial: build, find its costs, reject or train (with early stopping), record.

Optuna's pruners support only one objective (its issue 3450). Here a trial is compared, at each
rung (an epoch count), with all trials that reached the same rung: by their metric at the rung and
by costs, which training does not change. The values are stored in the study's storage, so workers
in other processes and on other machines and a resumed run can read them.
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
from compress.core.lazy_modules import keras
from compress.core.pareto import Losses
from compress.data import Dataset
from compress.model.copies import convert_to_float32
from compress.model.io import check_saveable, save_model
from compress.train import EpochRecord, train
from search.plan import SearchPlan
from search.spaces import Space
from search.study import optimizers
from search.study.costs import Costs, describe_excesses, find_costs, report_excess
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
"""Trial attribute that holds the seed of the trial's weights and batches."""
STOP_MARGIN = 0.02
"""Lead of another trial's metric from which on a trial is dominated; see docs/results/search.md."""
LEAST_SHARE = 0.25
"""Share of its epochs that a trial with a time limit must be able to train: with less it says
little about its architecture, and costs what several others would take."""
SEED_GIVEN = "seed_given"
"""Trial attribute that marks trials queued with a seed: replays and retries."""
COSTS_ATTR = "costs"
"""Trial attribute that holds the costs among the objectives, in their order."""
SEEN_TRIALS: WeakKeyDictionary[optuna.Trial, Sequence[FrozenTrial]] = WeakKeyDictionary()
"""Trial -> all trials at the time it began, which saves another reading of the storage."""


def format_candidate_id(number: int) -> str:
    """Return a trial's number in the form used in file names."""
    return f"{number:04d}"


def get_trial_seed(plan: SearchPlan, trial: optuna.Trial) -> int:
    """Return the seed of a trial's weights and batches: a stored one, or one from its number."""
    drawn = np.random.SeedSequence((plan.seed, trial.number)).generate_state(1)[0]
    return int(trial.user_attrs.get(SEED_ATTR, drawn >> 1))  # below 2^31


class TrialTooSlow(Exception):
    """A trial whose epochs are too slow for its time limit."""


class SpeedMonitor:
    """Monitor of the speed of a training with a time limit.

    Args:
        seconds: The time limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._calls = seconds, list[tuple[float, float]]()

    def on_share(self, share: float) -> None:
        """Check the speed since the first steps, which include the compilation.

        Args:
            share: Share of the training that is done; 0 at the first call.

        Raises:
            TrialTooSlow: Less than `LEAST_SHARE` of it would fit.
        """
        self._calls.append((time.perf_counter(), share))
        if len(self._calls) < 3 or share >= LEAST_SHARE:
            return
        (began, _), (first, first_share), *_, (now, _) = self._calls
        speed = (share - first_share) / max(now - first, 1e-9)
        fitting = first_share + speed * (self._seconds - (first - began))
        if fitting < LEAST_SHARE:
            raise TrialTooSlow(
                f"too slow: {100 * fitting:.0f} % of its training would fit into the "
                f"{self._seconds:.0f} s that a trial has"
            )


def evaluate_trial(
    trial: optuna.Trial,
    data: Dataset,
    plan: SearchPlan,
    folder: SearchFolder,
    device: Device,
    on_progress: Callable[[str, float], None],
    seconds: float | None = None,
) -> Candidate:
    """Evaluate a trial and write the files of its candidate; the study is updated later.

    The model and record of a trained candidate are on disk before this function returns, so that
    the study never holds a finished trial without them.

    Args:
        trial: A running trial; its study holds the rungs of the other trials.
        data: The training part is trained on, the validation part evaluates.
        plan: Space, limits, epochs, stopping, objectives.
        folder: Folder for the model and the record.
        device: Device of the training.
        on_progress: Callback for progress, called with (text, share).
        seconds: Time limit of the trial, at which its training ends; default: none. All but the
            first one are rejected if they are so slow that they would train less than `LEAST_SHARE`
            of their epochs.

    Returns:
        The candidate: complete, stopped (dominated), rejected (above a limit, or too slow), a
        duplicate, or failed (diverged).

    Raises:
        TrialGivenUp: The trial was given to another worker.
    """
    began = time.perf_counter()
    seed = get_trial_seed(plan, trial)
    keras.utils.set_random_seed(seed)
    name = format_candidate_id(trial.number)
    on_progress(f"{name}: building", 0.0)
    model = build_model(plan.search.resolved_space, trial, data, device.policy)
    settings = optimizers.sample_settings(trial, plan, data)
    candidate = Candidate(name, COMPLETE, dict(trial.params), seed, device=device.describe())
    # replays and retries run again on purpose, so they are never treated as duplicates
    original_number = None if SEED_GIVEN in trial.user_attrs else find_same_choices(trial)
    original = (
        None
        if original_number is None
        else folder.read_candidate(format_candidate_id(original_number))
    )
    if original is not None:
        return _write_candidate(folder, build_duplicate(original, candidate))
    note = getattr(trial.study.sampler, "note", "")  # each trial has its own sampler
    sampler_notes = (note,) if note else ()
    on_progress(f"{name}: counting", 0.0)
    costs = find_costs(model, plan.search, folder)
    candidate = replace(candidate, **vars(costs))
    reason = describe_excesses(costs, plan.search)
    if reason:
        report_excess(trial, costs, plan.search)
        return _write_candidate(folder, replace(candidate, state=REJECTED, reason=reason))
    check_saveable(model)  # fails before the training rather than after it
    monitor = TrainingMonitor(trial, plan, costs, name, on_progress)
    left = None if seconds is None else max(0.0, seconds - (time.perf_counter() - began))
    try:
        result = train(
            model,
            data,
            settings,
            device=device,
            seed=seed,
            select_by=plan.search.objectives[0],
            on_epoch=monitor.on_epoch,
            should_stop=monitor.should_stop,
            seconds=left,
            # the space's baseline, whose epochs were planned to fit, is trained in any case
            on_share=SpeedMonitor(left).on_share if left and trial.number else None,
        )
    except (TrainingDiverged, TrialTooSlow) as error:
        state = FAILED if isinstance(error, TrainingDiverged) else REJECTED
        spent = time.perf_counter() - began
        return _write_candidate(
            folder, replace(candidate, state=state, reason=str(error), seconds=spent)
        )
    if not monitor.stop_reason:
        save_model(convert_to_float32(model), folder.get_model_path(name))
    candidate = replace(
        candidate,
        state=STOPPED if monitor.stop_reason else COMPLETE,
        reason=monitor.stop_reason,
        val=result.val,
        best_epoch=result.best_epoch,
        history=tuple(asdict(record) for record in result.history),
        seconds=time.perf_counter() - began,
        notes=(*sampler_notes, *result.notes),
    )
    return _write_candidate(folder, candidate)


def _write_candidate(folder: SearchFolder, candidate: Candidate) -> Candidate:
    return folder.write_candidate(replace(candidate, ended=time.time()))


def find_same_choices(trial: optuna.Trial) -> int | None:
    """Return the number of the earliest trial with the same choices and a result; None: none.

    It searches the trials that were read when this trial began, or else the current ones.
    """
    reusable = (TrialState.COMPLETE, TrialState.PRUNED)
    seen = SEEN_TRIALS.get(trial) or trial.study.get_trials(deepcopy=False)
    others = (item for item in seen if item.state in reusable and item.number != trial.number)
    return next((item.number for item in others if item.params == trial.params), None)


def build_duplicate(original: Candidate, candidate: Candidate) -> Candidate:
    """Return a candidate that duplicates another's choices, with the other's result.

    It has a metric only if the original is complete, because the study records it as final.

    Args:
        original: The candidate that ended before.
        candidate: The duplicate, with its own id and seed.
    """
    return replace(
        original,
        id=candidate.id,
        val=original.val if original.state == COMPLETE else {},
        state=DUPLICATE,
        reason=f"same choices as {original.id} ({original.state})",
        seed=candidate.seed,
        seconds=0.0,
        history=(),
    )


def build_model(space: Space, trial: BaseTrial, data: Dataset, policy: str) -> Any:
    """Build a trial's model under a dtype policy of Keras.

    Args:
        space: The space.
        trial: The trial.
        data: The data of the search.
        policy: Name of the dtype policy, such as "float32" or "mixed_float16".
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return space.build(trial, data)
    finally:
        keras.config.set_dtype_policy(before)


def get_objective_values(candidate: Candidate, plan: SearchPlan) -> list[float]:
    """Return a trained candidate's objectives: metric (maximized), costs (minimized)."""
    metric, *costs = plan.search.resolved_objectives
    return [float(candidate.val[metric]), *(float(getattr(candidate, cost)) for cost in costs)]


class TrainingMonitor:
    """Progress display and early stopping of one training."""

    def __init__(
        self,
        trial: optuna.Trial,
        plan: SearchPlan,
        costs: Costs,
        name: str,
        on_progress: Callable[[str, float], None],
    ) -> None:
        # costs that are objectives have been measured and are not None
        values = [getattr(costs, name) for name in plan.search.costs]
        self._stopper = DominanceStopper(trial, plan.list_rungs(), values)
        self._metric, self._best = plan.search.objectives[0], -math.inf
        self._name, self._on_progress = name, on_progress
        self.stop_reason = ""

    def on_epoch(self, epoch: int, epochs: int, record: EpochRecord) -> None:
        """Show the progress of the training."""
        value = record.val[self._metric]
        self._on_progress(
            f"{self._name}: epoch {epoch}/{epochs}, validation {value:.3f}", epoch / epochs
        )

    def should_stop(self, record: EpochRecord) -> bool:
        """Return whether the training ends after this epoch."""
        self._best = max(self._best, record.val[self._metric])
        # the best epoch so far represents a trial, as at its end
        if self._stopper.should_stop(record.epoch, self._best):
            self.stop_reason = f"others were better after {record.epoch} epochs"
        return bool(self.stop_reason)


class DominanceStopper:
    """Early-stopping rule of one trial, which records its metric at each rung in the storage.

    Args:
        trial: The trial; its study holds the values of the other trials.
        epochs: The rungs; empty: the rule never stops a trial.
        costs: The trial's costs, in the order of the objectives.
    """

    def __init__(self, trial: optuna.Trial, epochs: Sequence[int], costs: Sequence[float]) -> None:
        self._trial, self._epochs = trial, epochs
        self._costs = [float(cost) for cost in costs]
        trial.set_user_attr(COSTS_ATTR, self._costs)

    def should_stop(self, epoch: int, value: float) -> bool:
        """Return whether the trial is stopped after this epoch."""
        if epoch not in self._epochs:
            return False
        self._trial.set_user_attr(format_rung_attr(epoch), value)
        peers = collect_rung_losses(
            self._trial.study, epoch, len(self._costs), excluded_number=self._trial.number
        )
        row = np.array([[-value, *self._costs]])
        return is_dominated(np.concatenate([peers, row]), len(peers))


def is_dominated(losses: Losses, index: int, margin: float = STOP_MARGIN) -> bool:
    """Return whether another trial is better by a margin, at no higher cost.

    A trial is only compared with trials that cost no more, so the cheap end of the front survives
    however low its metric is.

    Args:
        losses: (trials, 1 + costs) of all trials that reached a rung: negated metric, then costs.
        index: The row of the trial in question.
        margin: Minimum lead of the other trial's metric; above the noise of an epoch.
    """
    is_better = losses[:, 0] <= losses[index, 0] - margin
    is_better[index] = False
    is_as_cheap = (losses[:, 1:] <= losses[index, 1:]).all(axis=1)
    return bool((is_better & is_as_cheap).any())


def format_rung_attr(epoch: int) -> str:
    """Return the trial attribute that holds the metric at a rung."""
    return f"rung{epoch}"


def collect_rung_losses(
    study: optuna.Study, epoch: int, cost_count: int, excluded_number: int
) -> Losses:
    """Return the losses (trials, 1 + costs) of the trials that reached a rung, except one.

    Args:
        study: The study.
        epoch: Epoch of the rung.
        cost_count: Number of costs among the objectives.
        excluded_number: Number of the trial to leave out.
    """
    name = format_rung_attr(epoch)
    rows = [
        [-float(trial.user_attrs[name]), *trial.user_attrs[COSTS_ATTR]]
        for trial in study.get_trials(deepcopy=False)
        if name in trial.user_attrs and trial.number != excluded_number
    ]
    return np.array(rows, float).reshape(-1, 1 + cost_count)
