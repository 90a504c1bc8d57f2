"""The training loop that every training goes through.

The data live in memory as TensorFlow tensors and many steps run in one compiled
function, so no core waits for Python or for an input pipeline between steps.
"""

from __future__ import annotations

from compress.train.loop import DIVERGED, STEPS_PER_CALL, train
from compress.train.objective import Batch, LabelObjective, Objective
from compress.train.records import EpochRecord, Hook, TrainResult
from compress.train.steps import class_weights, example_weights

__all__ = [
    "Batch",
    "DIVERGED",
    "EpochRecord",
    "Hook",
    "LabelObjective",
    "Objective",
    "STEPS_PER_CALL",
    "TrainResult",
    "class_weights",
    "example_weights",
    "train",
]
