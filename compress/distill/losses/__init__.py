"""Distillation losses, one file each; every one equals its closed form in NumPy."""

from __future__ import annotations

from collections.abc import Callable

from compress.distill.losses._base import FeatureLoss, LogitLoss
from compress.distill.losses.attention import AttentionTransfer
from compress.distill.losses.dist import DIST
from compress.distill.losses.dkd import DKD
from compress.distill.losses.fitnets import FitNets
from compress.distill.losses.hinton import HintonKD
from compress.distill.losses.relational import Relational
from compress.distill.losses.similarity import SimilarityPreserving
from compress.errors import InputError
from compress.registry import Registry
from compress.task import Regression, Task

__all__ = [
    "AttentionTransfer",
    "DIST",
    "DKD",
    "FEATURE_LOSSES",
    "FeatureLoss",
    "FitNets",
    "HintonKD",
    "LogitLoss",
    "Relational",
    "SimilarityPreserving",
    "logit_loss",
]

FEATURE_LOSSES: Registry[Callable[[], FeatureLoss]] = Registry("hint")
for _loss in (FitNets, AttentionTransfer, SimilarityPreserving, Relational):
    FEATURE_LOSSES.add(_loss.name, _loss)

_LOGIT_LOSSES: Registry[Callable[[Task], LogitLoss]] = Registry("distillation loss")
_LOGIT_LOSSES.add(
    "kd",
    lambda task: HintonKD(
        task.activation, task.guessing() if isinstance(task, Regression) else 1.0
    ),
)
_LOGIT_LOSSES.add("dkd", lambda _: DKD())
_LOGIT_LOSSES.add("dist", lambda _: DIST())


def logit_loss(name: str, task: Task) -> LogitLoss | None:
    """Returns the loss on logits of a name for a task; None for "none".

    Raises:
        InputError: The loss is not defined for the task.
    """
    if name == "none":
        return None
    loss = _LOGIT_LOSSES[name](task)
    if task.activation not in loss.activations:
        raise InputError(
            f"Distillation loss '{name}' must be used on classes (softmax). Received: a "
            f"{task.name} task. Use 'kd'."
        )
    return loss
