"""Distillation losses, one file each; every one equals its closed form in NumPy."""

from __future__ import annotations

from compress.core.errors import InputError
from compress.core.plugins import HINTS, LOGIT_LOSSES
from compress.distillation.losses._base import FeatureLoss, LogitLoss, by_position
from compress.distillation.losses.attention import AttentionTransfer
from compress.distillation.losses.dist import DIST
from compress.distillation.losses.dkd import DKD
from compress.distillation.losses.fitnets import FitNets
from compress.distillation.losses.hinton import HintonKD
from compress.distillation.losses.relational import Relational
from compress.distillation.losses.similarity import SimilarityPreserving
from compress.task import Task

__all__ = [
    "AttentionTransfer",
    "DIST",
    "DKD",
    "FeatureLoss",
    "FitNets",
    "HINTS",
    "HintonKD",
    "LOGIT_LOSSES",
    "LogitLoss",
    "Relational",
    "SimilarityPreserving",
    "by_position",
    "logit_loss",
]


def logit_loss(name: str, task: Task) -> LogitLoss | None:
    """Returns the loss on logits of a name for a task; None for "none".

    Raises:
        InputError: The loss is not defined for the task.
    """
    if name == "none":
        return None
    loss: LogitLoss = LOGIT_LOSSES[name].of(task)
    if task.activation not in loss.activations:
        raise InputError(
            f"Distillation loss '{name}' must be used on classes (softmax). Received: a "
            f"{task.name} task. Use 'kd'."
        )
    return loss
