"""How long trainings take: estimated before the first, then by those that were."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.core.arrays import taken
from compress.core.atomic_files import write_json
from compress.run.records import Record, read_record

if TYPE_CHECKING:
    import keras

    from compress.core.summary import OnProgress
    from compress.shrinking.case import Work

PROBED = 512
EVERY = 1.0
"""Seconds between two notes of the time that was spent."""
BACKWARD = 3.0
"""Time of a step of training over that of a forward pass, before one was measured."""


@dataclass(frozen=True)
class Spent(Record):
    """What was spent of a budget.

    Attributes:
        seconds: By all processes.
    """

    seconds: float


@dataclass(eq=False)
class Pace:
    """What an epoch takes, and what is left of the budget.

    Attributes:
        budget: Seconds for everything; None: no limit.
        before: Seconds that processes before this one have spent on it.
        began: When this one began, by `time.monotonic`.
    """

    budget: float | None
    before: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _forward: float = 0.0
    _factor: float = BACKWARD

    @property
    def left(self) -> float:
        """Seconds that are left; infinity without a budget."""
        if self.budget is None:
            return float("inf")
        return self.budget - self.spent

    @property
    def spent(self) -> float:
        """Seconds that were spent, by this process and those before."""
        return self.before + time.monotonic() - self.began

    @classmethod
    def resumed(cls, budget: float | None, path: Path) -> Pace:
        """Returns the pace of work that may have begun before.

        Args:
            budget: Seconds for everything; None: no limit.
            path: Where `noting` wrote what was spent; it need not be there.
        """
        before = read_record(path, Spent).seconds if path.exists() else 0.0
        return cls(budget, before, time.monotonic())

    def noting(self, path: Path, progress: OnProgress) -> OnProgress:
        """Returns a progress that also writes what was spent, every few seconds.

        A process that is killed leaves it there, so that its successor has no more time than is
        left.
        """
        written = self.spent

        def told(text: str, share: float) -> None:
            nonlocal written
            if self.spent - written >= EVERY:
                written = self.spent
                write_json(path, Spent(written).to_json())
            progress(text, share)

        return told

    def probe(self, model: keras.Model, work: Work) -> None:
        """Measures what a forward pass over the training part takes with the model as it is."""
        from compress.model.logits import logits_view
        from compress.train.predict import Predictor

        few = taken(work.data.val.x, slice(PROBED))
        with logits_view(model, work.data.task) as view:
            run = Predictor(view, work.data.preprocess, model)
            run(few)
            began = time.perf_counter()
            run(few)
        count = min(PROBED, len(work.data.val))
        self._forward = (time.perf_counter() - began) / count * len(work.data.train)

    def epoch(self, share: float) -> float:
        """Estimates the seconds of an epoch of a net with a share of the model's MACs."""
        return self._factor * self._forward * share

    def learn(self, share: float, epochs: int, seconds: float) -> None:
        """Takes what a training took."""
        if epochs and self._forward:
            measured = seconds / epochs / (self._forward * share)
            self._factor = float(np.mean([self._factor, measured]))

    def epochs_within(self, share: float, wanted: int, after: int = 1) -> int:
        """Returns how many of some epochs fit into what is left.

        Args:
            share: Of the model's MACs.
            wanted: Epochs.
            after: Trainings that are still to come, this one included: each gets as much.
        """
        if self.budget is None:
            return wanted
        one = max(1e-9, self.epoch(share))
        return max(0, min(wanted, int(self.left / max(1, after) / one)))
