"""Weight pruning: `prune_weights` trains a model to a sparsity; masks leave no trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compress.data import Dataset
from compress.plan import TrainSettings, WeightOptions
from compress.prune.weights.pruner import PrunedLayer, WeightPruner, WeightReport, update_times
from compress.prune.weights.targets import Kept, Target, find_targets

if TYPE_CHECKING:
    import keras

    from compress.device import Device
    from compress.train import TrainResult

__all__ = [
    "Kept",
    "PrunedLayer",
    "PruneWeightsResult",
    "Target",
    "WeightPruner",
    "WeightReport",
    "find_targets",
    "prune_weights",
    "update_times",
]


@dataclass(frozen=True)
class PruneWeightsResult:
    """A pruned model, what was pruned and how its training went."""

    model: keras.Model
    report: WeightReport
    training: TrainResult


def prune_weights(
    model: keras.Model,
    data: Dataset,
    options: WeightOptions | None = None,
    *,
    finetune: TrainSettings | None = None,
    device: Device | None = None,
    seed: int = 0,
) -> PruneWeightsResult:
    """Prunes a classifier's kernels by magnitude while training it on labels.

    Args:
        model: A functional model or a built Sequential; it stays as it is.
        data: From `load_data`.
        options: Sparsity in [0, 1) and its schedule; default: 80 %.
        finetune: How to train meanwhile.
        device: From `compress.device.setup`; default: "auto".
        seed: Seed of the batch order.

    Returns:
        A new, ordinary model with the same layer names, and the report.

    Raises:
        InputError: The model does not fit the data, or is no graph.
        TrainingDiverged: The loss became NaN or infinite.
    """
    from compress.device import setup
    from compress.io import copy_model
    from compress.train import train

    student = copy_model(model)
    pruner = WeightPruner(options or WeightOptions())
    training = train(
        student,
        data,
        finetune or TrainSettings(),
        device=device or setup(),
        seed=seed,
        hooks=[pruner],
    )
    return PruneWeightsResult(student, pruner.strip(), training)
