"""Who trains nets on the way to a goal: the process itself, or others beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from compress.core.errors import ParetuneError
from compress.core.progress import OnProgress

if TYPE_CHECKING:
    from compress.data import Dataset
    from compress.plan.shrink import ShrinkPlan
    from compress.shrinking.folder import ShrinkFolder


@dataclass(frozen=True)
class Training:
    """A net to train.

    Attributes:
        name: Its record and its model are in the folder.
        epochs: As far as the budget lets it.
    """

    name: str
    epochs: int


@dataclass(frozen=True, eq=False)
class Brief:
    """What those who train nets elsewhere must know.

    Attributes:
        folder: Where nets lie; the plan and the data's record stand there.
        name: What the model is called, in names of nets.
        file: The model.
        teachers: Files of those who teach.
        plan: What is done.
        data: Examples.
        handed_over: The data have no name by which another process could load them.
        progress: Told how far it is.
    """

    folder: ShrinkFolder
    name: str
    file: Path
    teachers: tuple[Path, ...]
    plan: ShrinkPlan
    data: Dataset
    handed_over: bool
    progress: OnProgress


class Trainers(Protocol):
    """Processes that train nets of a folder."""

    @property
    def places(self) -> int:
        """How many nets are trained at the same time, at least 1."""
        ...

    def trained(self, wanted: Sequence[Training]) -> list[ParetuneError | None]:
        """Trains nets; their records say so afterwards.

        Returns:
            For each why it was not trained, or None.
        """
        ...


class Crew(Protocol):
    """Opens trainers; `search.Workers` is one."""

    def check(self, plan: ShrinkPlan) -> None:
        """Checks that they can be had; nothing has been written yet, TensorFlow has not started.

        Raises:
            InputError: They cannot.
        """
        ...

    def at_work(self, brief: Brief) -> AbstractContextManager[Trainers]:
        """Returns trainers for one model, which end with the context.

        Raises:
            InputError: They cannot get the data or the model.
        """
        ...
