"""Plan of a search and of a whole run: a `Plan` with additional sections for the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from compress.core.registry import build_renamed_getattr
from compress.plan import ChannelOptions, DataOptions, Plan, Target, TeacherChoice
from compress.plan.conversion import ConvertedField
from compress.plan.fields import RemovedOption, option, require
from compress.plan.keywords import FUNCTIONS, Keywords
from compress.plan.shrink import (
    ShrinkChannels,
    ShrinkGoal,
    ShrinkPlan,
    ShrinkTraining,
    ShrinkWeights,
)
from search.plan.search import EngineOptions, SearchOptions
from search.plan.stopping import (
    COSTS,
    BudgetOptions,
    Condition,
    FinalOptions,
    StoppingOptions,
    compute_rungs,
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

DEFAULT_FINAL_MODELS = 8
"""Default limit of `final_models` if the search evaluates sub-networks without training, because
the front then has many models."""


@dataclass(frozen=True)
class SearchData(DataOptions):
    """Data of a search; the default is a small built-in data set."""

    source: str = field(
        default="digits", metadata=DataOptions.__dataclass_fields__["source"].metadata
    )


@dataclass(frozen=True)
class SearchChannels(ChannelOptions):
    """Channel pruning of the front's models that become faster by it."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = ChannelOptions.REMOVED | {
        "keep_all": RemovedOption(
            "--keep-channels",
            "Give --channels 1x, which keeps every channel.",
            unused_values=(False,),
        )
    }

    target: ConvertedField[Target | None, Target | str | float | None] = option(
        None,
        "--channels",
        "MACs to keep: 0.5x or an absolute 12M; 1x: every channel; default: half where the int8 "
        "file's measured latency is above three times that of an empty file, and falls by a tenth "
        "or more",
    )


@dataclass(frozen=True)
class SearchPlan(Plan):
    """All options of `paretune run`, for `search.run` and `search.run_search`."""

    if not TYPE_CHECKING:  # a type checker must refuse unknown attributes
        __getattr__ = build_renamed_getattr(
            {
                "compression": "build_compression_plan",
                "to_goal": "build_shrink_plan",
                "rungs": "list_rungs",
                "qat": "uses_qat",
                "trained_formats": "qat_formats",
            }
        )

    data: SearchData = field(default_factory=SearchData)
    channels: SearchChannels = field(default_factory=SearchChannels)
    search: SearchOptions = field(default_factory=SearchOptions)
    stopping: StoppingOptions = field(default_factory=StoppingOptions)
    budget: BudgetOptions = field(default_factory=BudgetOptions)
    final: FinalOptions = field(default_factory=FinalOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    shrink_to: ConvertedField[
        ShrinkGoal | None, ShrinkGoal | Mapping[str, str | float] | str | None
    ] = option(
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
        self.build_shrink_plan(())
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
        self.list_rungs()

    def build_compression_plan(self, teachers: Sequence[str | Path]) -> Plan:
        """Return the plan that compresses one model of the front.

        Args:
            teachers: Files of the teachers.
        """
        values = {field.name: getattr(self, field.name) for field in fields(Plan)}
        files = TeacherChoice(tuple(map(Path, teachers)))
        values["data"] = DataOptions(**vars(self.data))
        values["channels"] = ChannelOptions(
            **{item.name: getattr(self.channels, item.name) for item in fields(ChannelOptions)}
        )
        return Plan(**values | {"distill": replace(self.distill, teacher=files)})

    def build_shrink_plan(self, teachers: Sequence[str | Path]) -> ShrinkPlan | None:
        """Return the plan that shrinks one model to the goal, or None if there is no goal.

        Args:
            teachers: Files of the teachers.

        Raises:
            InputError: An option cannot be combined with a goal.
        """
        if self.shrink_to is None:
            return None
        plan = self.build_compression_plan(teachers)
        values = {item.name: getattr(plan, item.name) for item in fields(Plan)}
        changed = {
            name: value
            for name, value in vars(plan.channels).items()
            if value != getattr(ChannelOptions, name)
        }
        values["channels"] = ShrinkChannels(**changed)
        values["weights"] = ShrinkWeights()
        epochs = {"epochs": 0} if self.shrink_to.goal.no_train else {}
        values["finetune"] = ShrinkTraining(**vars(self.finetune) | epochs)
        return ShrinkPlan(**values, goal=self.shrink_to.goal)

    @property
    def final_epochs(self) -> int:
        """Epochs of the final training of the front's models; 0 for no final training."""
        if self.final_models == 0:
            return 0
        return self.final.epochs or (self.search.epochs if self.search.no_train else 0)

    @property
    def final_models(self) -> int | None:
        """Maximum number of front models to train once more and compress; None for all."""
        if self.final.models is None and self.search.no_train:
            return DEFAULT_FINAL_MODELS
        return self.final.models

    def list_rungs(self) -> tuple[int, ...]:
        """Return the epochs after which a trial may be stopped.

        Raises:
            InputError: A rung is not below the number of epochs.
        """
        return compute_rungs(self.stopping.rule, self.search.epochs, self.stopping.rungs)


RUN = Keywords("run", SearchPlan, excluded=frozenset({"data.source"}))
RUN_SEARCH = Keywords("run_search", SearchPlan, excluded=frozenset({"data.source"}))

FUNCTIONS.extend((RUN, RUN_SEARCH))
