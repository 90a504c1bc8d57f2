"""Time budget of a shrinking: what was spent, and what a training will take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.core.arguments import convert_json
from compress.core.arrays import take_examples
from compress.core.atomic_files import read_json, write_json
from compress.model.logits import open_logits_view
from compress.shrinking.compression_job import RunContext
from compress.train.predict import Predictor

if TYPE_CHECKING:
    import keras

    from compress.core.summary import OnProgress

PROBED = 512
"""Number of examples on which a forward pass is timed."""
EVERY = 1.0
"""Seconds between two records of the spent time."""
BACKWARD = 3.0
"""Initial estimate of the time of a training step, relative to a forward pass."""


@dataclass(eq=False)
class TimeBudget:
    """Time budget of the work, with estimates of training times.

    Attributes:
        budget: Time limit in seconds; None: no limit.
        spent_before: Seconds spent by earlier processes of the same work.
        start_time: Start of this process's work, by `time.monotonic`.
    """

    budget: float | None
    spent_before: float = 0.0
    start_time: float = field(default_factory=time.monotonic)
    _forward_seconds: float = 0.0
    _training_factor: float = BACKWARD

    @property
    def left(self) -> float:
        """Remaining seconds; infinity without a budget."""
        return float("inf") if self.budget is None else self.budget - self.spent

    @property
    def spent(self) -> float:
        """Seconds spent by this process and earlier ones."""
        return self.spent_before + time.monotonic() - self.start_time

    @classmethod
    def resume(cls, budget: float | None, path: Path) -> TimeBudget:
        """Return the time budget of work that may have started in an earlier process.

        Args:
            budget: Time limit in seconds; None: no limit.
            path: File written by `record_progress`; it need not exist.

        Raises:
            InputError: The file is invalid.
        """
        seconds = read_json(path).get("seconds") if path.exists() else 0.0
        spent_before = convert_json(seconds, float, f"'{path}': seconds")
        return cls(budget, spent_before, time.monotonic())

    def record_progress(self, path: Path, on_progress: OnProgress) -> OnProgress:
        """Return a progress callback that also records the spent time, at most once a second.

        A resumed run reads the record, so that it has only the remaining time.

        Args:
            path: File of the record.
            on_progress: Callback to wrap.
        """
        recorded_seconds = self.spent

        def report_progress(text: str, share: float) -> None:
            nonlocal recorded_seconds
            if self.spent - recorded_seconds >= EVERY:
                recorded_seconds = self.spent
                write_json(path, {"seconds": recorded_seconds})
            on_progress(text, share)

        return report_progress

    def measure_forward(self, model: keras.Model, context: RunContext) -> None:
        """Estimate the time of a forward pass of the original model over the training part.

        It is extrapolated from the first `PROBED` validation examples.

        Args:
            model: The original model.
            context: Data and task.
        """
        examples = take_examples(context.data.val.x, slice(PROBED))
        with open_logits_view(model, context.data.task) as view:
            run = Predictor(view, context.data.preprocess, model)
            run(examples)
            start = time.perf_counter()
            run(examples)
        seconds_per_example = (time.perf_counter() - start) / min(PROBED, len(context.data.val))
        self._forward_seconds = seconds_per_example * len(context.data.train)

    def estimate_epoch(self, share: float) -> float:
        """Estimate the seconds of an epoch of a candidate with a share of the original's MACs.

        Args:
            share: MACs of the candidate as a share of the original's.
        """
        return self._training_factor * self._forward_seconds * share

    def update_estimate(self, share: float, epochs: int, seconds: float) -> None:
        """Update the estimate of training times with a finished training.

        Args:
            share: MACs of the candidate as a share of the original's.
            epochs: Number of epochs.
            seconds: Duration of the training.
        """
        if epochs and self._forward_seconds:
            measured = seconds / epochs / (self._forward_seconds * share)
            self._training_factor = float(np.mean([self._training_factor, measured]))

    def limit_epochs(self, share: float, epochs: int, trainings: int = 1) -> int:
        """Return the number of epochs that fit into the remaining time, at most `epochs`.

        Args:
            share: MACs of the candidate as a share of the original's.
            epochs: Wanted number of epochs.
            trainings: Number of remaining trainings one after the other, including this one; they
                share the time equally.
        """
        if self.budget is None:
            return epochs
        affordable_epochs = self.left / max(1, trainings) / max(1e-9, self.estimate_epoch(share))
        return max(0, min(epochs, int(affordable_epochs)))
