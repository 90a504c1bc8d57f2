"""A model to shrink, with all that goes with it, whoever hands it over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.pipeline.context import Work
from compress.pipeline.prepared import Prepared
from compress.plan.shrink import ShrinkPlan

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class Case:
    """A model to shrink.

    Attributes:
        name: Begins the names of its nets.
        file: That the model was read from.
        path: As records call it; where it is known how long it was trained.
        work: Data, plan (a `ShrinkPlan`), device.
        dense: The model, with teachers.
        val_learnt: The model or a teacher has learnt the validation part.
        notes: What is known already.
    """

    name: str
    file: Path
    path: Path
    work: Work
    dense: Prepared
    val_learnt: bool = False
    notes: tuple[str, ...] = ()

    @property
    def plan(self) -> ShrinkPlan:
        """What is to be done."""
        assert isinstance(self.work.plan, ShrinkPlan)
        return self.work.plan

    @property
    def model(self) -> keras.Model:
        """The model; it stays as it is."""
        return self.dense.model
