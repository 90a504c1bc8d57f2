"""The plan of a search and of a whole run: a `Plan` with sections on the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from compress.plan import ChannelOptions, DataOptions, Plan, TeacherChoice
from compress.plan.fields import option, require
from compress.plan.forms import Given
from compress.plan.keywords import FUNCTIONS, Keywords
from compress.plan.shrink import ShrinkChannels, ShrinkPlan, ShrinkTo, ShrinkTraining, ShrinkWeights
from search.plan.search import EngineOptions, SearchOptions
from search.plan.stopping import (
    COSTS,
    BudgetOptions,
    Condition,
    FinalOptions,
    StoppingOptions,
    rungs,
)

__all__ = [
    "COSTS",
    "BudgetOptions",
    "Condition",
    "EngineOptions",
    "FinalOptions",
    "SearchChannels",
    "SearchData",
    "SearchOptions",
    "SearchPlan",
    "StoppingOptions",
]

FINAL_MODELS = 8
"""Of the front go on at most where sub-networks were judged untrained: there are many of them."""


@dataclass(frozen=True)
class SearchData(DataOptions):
    """Data of a search; the default is a small built-in data set."""

    source: str = field(
        default="digits", metadata=DataOptions.__dataclass_fields__["source"].metadata
    )


@dataclass(frozen=True)
class SearchChannels(ChannelOptions):
    """Channel pruning of the front's models that become faster by it."""

    keep_all: bool = option(
        False,
        "--keep-channels",
        "keep every channel; default, without --channels: half of the MACs leave of models whose "
        "dense int8 file takes more than three times an empty one, and a tenth longer than "
        "without that half (measured)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not (self.keep_all and self.active),
            "keep_channels",
            "be left out beside channels, which says how many stay",
            f"channels {self.target}",
        )


@dataclass(frozen=True)
class SearchPlan(Plan):
    """All options of `paretune run`; `search.run` and `search.run_search` take them."""

    data: SearchData = field(default_factory=SearchData)
    channels: SearchChannels = field(default_factory=SearchChannels)
    search: SearchOptions = field(default_factory=SearchOptions)
    stopping: StoppingOptions = field(default_factory=StoppingOptions)
    budget: BudgetOptions = field(default_factory=BudgetOptions)
    final: FinalOptions = field(default_factory=FinalOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    shrink_to: Given[ShrinkTo | None, ShrinkTo | Mapping[str, str | float] | str | None] = option(
        None,
        "--shrink-to",
        "a goal for each model of the front, as paretune shrink takes it: latency=0.5x,max_drop=1; "
        "in place of --channels and --sparsity",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.shrink_to is None or self.channels.target is None,
            "channels",
            "be left out beside shrink_to: the goal says how many leave",
            self.channels.target,
        )
        require(
            self.shrink_to is None or not self.channels.keep_all,
            "keep_channels",
            "be left out beside shrink_to: the goal says how many leave",
            True,
        )
        self.to_goal(())
        require(
            bool(self.final_epochs) or not (self.final.seeds > 1 or self.final.on_validation),
            "final_epochs",
            "be at least 1 where final_seeds or final_on_validation is given",
            self.final_epochs,
        )
        require(
            not self.finetune.own_train_step,
            "own_train_step",
            "go with paretune compress: models of a search have classes of Keras's",
            True,
        )
        self.rungs()

    def compression(self, teachers: Sequence[str | Path]) -> Plan:
        """Return the part of the plan that compresses one model, with the teachers' files."""
        own = {field.name: getattr(self, field.name) for field in fields(Plan)}
        files = TeacherChoice(tuple(map(Path, teachers)))
        own["data"] = DataOptions(**vars(self.data))
        own["channels"] = ChannelOptions(
            **{item.name: getattr(self.channels, item.name) for item in fields(ChannelOptions)}
        )
        return Plan(**own | {"distill": replace(self.distill, teacher=files)})

    def to_goal(self, teachers: Sequence[str | Path]) -> ShrinkPlan | None:
        """Return the plan that shrinks one model to the goal; None: there is none.

        Args:
            teachers: Their files.

        Raises:
            InputError: An option does not go with a goal.
        """
        if self.shrink_to is None:
            return None
        plan = self.compression(teachers)
        own = {item.name: getattr(plan, item.name) for item in fields(Plan)}
        given = {
            name: value
            for name, value in vars(plan.channels).items()
            if value != getattr(ChannelOptions, name)
        }
        own["channels"] = ShrinkChannels(**given)
        own["weights"] = ShrinkWeights()
        epochs = {"epochs": 0} if self.shrink_to.goal.no_train else {}
        own["finetune"] = ShrinkTraining(**vars(self.finetune) | epochs)
        return ShrinkPlan(**own, goal=self.shrink_to.goal)

    @property
    def final_epochs(self) -> int:
        """Epochs for which models of the front are trained once more; 0: they are not."""
        if self.final_models == 0:
            return 0
        return self.final.epochs or (self.search.epochs if self.search.no_train else 0)

    @property
    def final_models(self) -> int | None:
        """How many models of the front at most go on; None: all."""
        if self.final.models is None and self.search.no_train:
            return FINAL_MODELS
        return self.final.models

    def rungs(self) -> tuple[int, ...]:
        """Return the epochs after which a trial may be stopped.

        Raises:
            InputError: A rung is not below the epochs.
        """
        return rungs(self.stopping.rule, self.search.epochs, self.stopping.rungs)


RUN = Keywords("run", SearchPlan, without=frozenset({"data.source"}))
RUN_SEARCH = Keywords("run_search", SearchPlan, without=frozenset({"data.source"}))

FUNCTIONS.extend((RUN, RUN_SEARCH))
