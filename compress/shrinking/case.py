"""A model to shrink, with all that goes with it, whoever hands it over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.errors import InputError
from compress.plan.shrink import ShrinkPlan
from compress.shrinking.context import Work
from compress.shrinking.prepared import Prepared

if TYPE_CHECKING:
    import keras

    from compress.devices import DeviceTimes


def refuse_learnt(learnt: bool) -> None:
    """Refuses validation data that have been learnt: by them nets and files are chosen.

    Raises:
        InputError: They have.
    """
    if learnt:
        raise InputError(
            "The validation part must be one that neither the model nor its teachers have learnt: "
            "it chooses nets and files on the way to a goal. Received: one that was learnt. Give "
            "another (val=, or x_val and y_val in an .npz), or name steps with paretune compress."
        )


@dataclass(frozen=True, eq=False)
class Case:
    """A model to shrink; neither it nor its teachers have learnt the validation part.

    Attributes:
        name: Begins the names of its nets.
        file: That the model was read from.
        path: As records call it; where it is known how long it was trained.
        work: Data, plan (a `ShrinkPlan`), device.
        dense: The model, with teachers.
        notes: What is known already.
        device: Times of the device that a latency is of; None: it is of this machine.
    """

    name: str
    file: Path
    path: Path
    work: Work
    dense: Prepared
    notes: tuple[str, ...] = ()
    device: DeviceTimes | None = None

    @property
    def plan(self) -> ShrinkPlan:
        """What is to be done."""
        assert isinstance(self.work.plan, ShrinkPlan)
        return self.work.plan

    @property
    def model(self) -> keras.Model:
        """The model; it stays as it is."""
        return self.dense.model
