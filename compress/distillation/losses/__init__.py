"""Distillation losses, one file each; every one equals its closed form in NumPy."""

from __future__ import annotations

from compress.core.errors import InputError
from compress.core.plugins import LOGIT_LOSSES
from compress.data.tasks import Task
from compress.distillation.losses._base import FeatureLoss, LogitLoss, by_position
from compress.distillation.losses.dkd import DKD
from compress.distillation.losses.fitnets import FitNets
from compress.distillation.losses.hinton import HintonKD

__all__ = [
    "DKD",
    "FeatureLoss",
    "FitNets",
    "HintonKD",
    "LogitLoss",
    "by_position",
    "logit_losses",
]


def logit_losses(name: str, task: Task) -> dict[str, LogitLoss]:
    """Returns the loss of a name on the logits of each output, by the output's name.

    Outputs that it is not defined for, beside others that it is, are taught by "kd". Of "none"
    there are none.

    Raises:
        InputError: The loss is defined for no output of the task.
    """
    if name == "none":
        return {}
    kind = LOGIT_LOSSES[name]
    made = {output: kind.of(part) for output, part in task.parts.items()}
    fits = {output: task.parts[output].activation in loss.activations
            for output, loss in made.items()}  # fmt: skip
    if not any(fits.values()):
        raise InputError(
            f"Distillation loss '{name}' must be used on classes (softmax). Received: a "
            f"{task.name} task. Use 'kd'."
        )
    return {
        output: loss if fits[output] else HintonKD.of(task.parts[output])
        for output, loss in made.items()
    }
