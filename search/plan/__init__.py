"""The plan of a search and of a whole run: a `Plan` with sections on the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from compress.plan import DataOptions, Plan, TeacherChoice
from compress.plan.fields import require
from search.plan.conditions import COSTS, Condition
from search.plan.search import SearchOptions
from search.plan.stopping import BudgetOptions, FinalOptions, StoppingOptions, rungs

__all__ = [
    "COSTS",
    "BudgetOptions",
    "Condition",
    "FinalOptions",
    "SearchData",
    "SearchOptions",
    "SearchPlan",
    "StoppingOptions",
]

_SOURCE = next(item for item in fields(DataOptions) if item.name == "source")


@dataclass(frozen=True)
class SearchData(DataOptions):
    """Where the examples of a search come from: a first try needs no data of its own."""

    source: str = field(default="digits", metadata=_SOURCE.metadata)


@dataclass(frozen=True)
class SearchPlan(Plan):
    """Everything that `paretune run` does; `search.run` and `search.run_search` take it."""

    data: SearchData = field(default_factory=SearchData)
    search: SearchOptions = field(default_factory=SearchOptions)
    stopping: StoppingOptions = field(default_factory=StoppingOptions)
    budget: BudgetOptions = field(default_factory=BudgetOptions)
    final: FinalOptions = field(default_factory=FinalOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.finetune.own_train_step,
            "own_train_step",
            "go with paretune compress: models of a search have classes of Keras's",
            True,
        )
        self.rungs()

    def compression(self, teachers: Sequence[str | Path]) -> Plan:
        """Returns the part of the plan that compresses one model, with the teachers' files."""
        own = {field.name: getattr(self, field.name) for field in fields(Plan)}
        files = TeacherChoice(tuple(map(Path, teachers)))
        own["data"] = DataOptions(**vars(self.data))
        return Plan(**own | {"distill": replace(self.distill, teacher=files)})

    def rungs(self) -> tuple[int, ...]:
        """Returns the epochs after which a trial may be stopped.

        Raises:
            InputError: A rung is not below the epochs.
        """
        return rungs(self.stopping.rule, self.search.epochs, self.stopping.rungs)
