"""Weight pruning: `prune_weights` makes a model sparse; masks leave no trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan import TrainSettings, WeightOptions
from compress.prune.weights.pruner import WeightPruner
from compress.prune.weights.report import PrunedLayer, WeightReport
from compress.prune.weights.resume import resume_pruning, save_pruning
from compress.prune.weights.schedules import update_times
from compress.prune.weights.targets import SkippedLayer, Target, find_targets

if TYPE_CHECKING:
    import keras

    from compress.core.device import Device
    from compress.train import TrainResult

__all__ = [
    "SkippedLayer",
    "PrunedLayer",
    "PruneWeightsResult",
    "Target",
    "WeightPruner",
    "WeightReport",
    "find_targets",
    "prune_weights",
    "resume_pruning",
    "save_pruning",
    "update_times",
]


@dataclass(frozen=True)
class PruneWeightsResult:
    """A pruned model, what was pruned and how its training went (None: one-shot)."""

    model: keras.Model
    report: WeightReport
    training: TrainResult | None


def prune_weights(
    model: keras.Model,
    data: Dataset | None = None,
    options: WeightOptions | None = None,
    *,
    schedule: Any = None,
    finetune: TrainSettings | None = None,
    device: Device | None = None,
    seed: int = 0,
) -> PruneWeightsResult:
    """Prunes weights by magnitude, while training on labels or at once.

    For pruning in a training of your own (`fit`, a custom loop) see `WeightPruner.attach`.

    Args:
        model: A functional model or a built Sequential; it stays as it is.
        data: From `load_data`; None: one-shot, without training.
        options: Pattern, scope, sparsity in [0, 1) and its times; default: 80 % of each
            kernel, unstructured.
        schedule: tfmot's `ConstantSparsity` or `PolynomialDecay` in place of the plan's; its
            first step is 1.
        finetune: How to train meanwhile.
        device: From `compress.core.device.setup`; default: "auto".
        seed: Seed of the batch order.

    Returns:
        A new, ordinary model with the same layer names, and the report.

    Raises:
        InputError: The model does not fit the data or is no graph, a block is larger than a
            weight, a pattern of names matches nothing, a schedule does not fit the training,
            or `recalibrate` without data.
        TrainingDiverged: The loss became NaN or infinite.
    """
    from compress.model.copies import copy_model

    options = options or WeightOptions()
    student = copy_model(model)
    pruner = WeightPruner(options, schedule=schedule)
    if data is None:
        if options.recalibrate:
            raise InputError("prune_recalibrate must have data to look at. Give data=.")
        return PruneWeightsResult(student, pruner.once(student), None)
    from compress.core.device import setup
    from compress.prune.recalibrate import recalibrate
    from compress.train import train

    try:
        training = train(
            student,
            data,
            finetune or TrainSettings(),
            device=device or setup(),
            seed=seed,
            hooks=[pruner],
        )
    finally:
        report = pruner.strip()
    if options.recalibrate:
        recalibrate(student, data, options.recalibrate, seed=seed)
    return PruneWeightsResult(student, report, training)
