"""Training loop shared by all trainings.

The data are held in memory as TensorFlow tensors, and one compiled function runs many steps, so
that no time is lost in Python or an input pipeline between steps.
"""

from __future__ import annotations

from compress.train.loop import DIVERGENCE_FACTOR, STEPS_PER_CALL, train
from compress.train.objective import Batch, LabelObjective, Objective
from compress.train.records import EpochRecord, Hook, TrainResult
from compress.train.steps import compute_class_weights, compute_example_weights

__all__ = [
    "Batch",
    "DIVERGENCE_FACTOR",
    "EpochRecord",
    "Hook",
    "LabelObjective",
    "Objective",
    "STEPS_PER_CALL",
    "TrainResult",
    "compute_class_weights",
    "compute_example_weights",
    "train",
]
