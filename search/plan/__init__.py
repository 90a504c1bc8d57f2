"""Plan of a search and of a whole run: a `Plan` with additional sections for the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from compress.core.registry import build_renamed_getattr
from compress.plan import (
    ChannelOptions,
    DataOptions,
    Plan,
    TeacherChoice,
    TrainSettings,
    WeightOptions,
)
from compress.plan.fields import RemovedOption, option, require, validate_fields
from compress.plan.keywords import FUNCTIONS, Keywords
from compress.plan.shrink import (
    GoalLimits,
    GoalOptions,
    ShrinkChannels,
    ShrinkPlan,
    ShrinkTraining,
    ShrinkWeights,
)
from compress.plan.training import MAX_EPOCHS, MAX_EPOCHS_REASON
from search.plan.cluster import ClusterOptions
from search.plan.search import COSTS, DEFAULT_TRIALS, MAX_TRIALS, SearchOptions, compute_rungs

__all__ = [
    "COSTS",
    "ClusterOptions",
    "FinalOptions",
    "SearchData",
    "SearchOptions",
    "SearchPlan",
]

LEAST_BUDGET = 60.0
"""Smallest time budget of a run, in seconds."""
BUDGET_TIMING_SECONDS = 0.3
"""Time limit of timing a candidate's own files in a run with a time budget."""


@dataclass(frozen=True)
class SearchData(DataOptions):
    """Data of a search; the default is a small built-in data set."""

    source: str = field(
        default="digits", metadata=DataOptions.__dataclass_fields__["source"].metadata
    )


@dataclass(frozen=True)
class FinalOptions:
    """Final training of the front's candidates after the search."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "seeds": RemovedOption(
            "--final-seeds",
            "No figure showed that several trainings of each model gain anything. Leave it out.",
            unused_values=(1,),
        ),
        "on_validation": RemovedOption(
            "--final-on-validation",
            "No figure showed a gain, and without a validation part nothing could select an epoch "
            "or a file. Use a smaller val_fraction (--val-fraction) to train on more data.",
            unused_values=(False,),
        ),
    }

    epochs: int = option(
        0,
        "epochs of the Pareto front's second training after the search; 0: none",
        flat_name="final_epochs",
        least=0,
        most=MAX_EPOCHS,
        why=MAX_EPOCHS_REASON,
    )
    models: int | None = option(
        None,
        "maximum number of front models to train again and compress; default: all",
        flat_name="final_models",
        least=1,
        most=10_000,
        why="each is trained and compressed",
    )

    def __post_init__(self) -> None:
        validate_fields(self)


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

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "shrink_to": RemovedOption(
            "--shrink-to",
            "Goals are options of their own, as in paretune shrink: --latency 0.5x --max-drop 1; "
            "in Python latency=0.5, max_drop=1; in TOML keys of [goal]. In place of no_train, give "
            "--finetune-epochs 0.",
            unused_values=(None,),
        ),
    }
    FORMER_PATHS: ClassVar[dict[str, str]] = Plan.FORMER_PATHS | {
        "stopping.rule": "search.stopping",
        "stopping.eta": "search.eta",
        "stopping.margin": "search.margin",
        "stopping.rungs": "search.rungs",
        "stopping.plateau": "search.plateau",
        "budget.minutes": "search.max_minutes",
        "budget.trial_minutes": "search.trial_minutes",
        "budget.target": "search.target",
        "budget.converged": "search.converged",
        "engine.name": "cluster.engine",
        "engine.address": "cluster.address",
        "engine.cpus": "cluster.cpus_per_worker",
        "engine.gpus": "cluster.gpus_per_worker",
        "engine.files": "cluster.files",
    }

    data: SearchData = field(default_factory=SearchData)
    search: SearchOptions = field(default_factory=SearchOptions)
    final: FinalOptions = field(default_factory=FinalOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    goal: GoalLimits = field(default_factory=GoalLimits)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.goal.is_given or self.channels.target is None,
            "channels",
            "be left out beside a goal, which determines how many are kept",
            self.channels.target,
        )
        self.build_shrink_plan(())
        if self.goal.budget is not None:
            self._check_budget()
        require(
            not self.finetune.own_train_step,
            "own_train_step",
            "go with paretune compress: models of a search have classes of Keras's",
            True,
        )

    def _check_budget(self) -> None:
        """Check that no option contradicts a time budget, which leaves choices to measurements."""
        seconds = self.goal.seconds
        require(
            seconds is not None and seconds >= LEAST_BUDGET,
            "budget",
            f"be at least {LEAST_BUDGET:g} seconds in a run, which trains models from scratch",
            seconds,
        )
        remedy = "Without a budget, every model of the front is compressed alike."
        for name, value, unset in (
            ("a goal for each model", self.goal.is_given, False),
            ("channels", self.channels.target, None),
            ("sparsity", self.weights.sparsity, WeightOptions().sparsity),
            ("final_epochs", self.final.epochs, 0),
            ("as_long", self.finetune.as_long, False),
        ):
            rule = "be left out beside a budget, which decides what each model is worth"
            require(value == unset, name, rule, value, remedy)
        formats = self.export.formats
        require(
            set(formats) == set(self.export.candidate_formats),
            "formats",
            "be without those that need more training or a search of their own beside a budget",
            ",".join(formats),
            "Make these of a model of the front: paretune compress, or paretune shrink.",
        )
        require(
            not self.cluster.files,
            "files",
            "be left out beside a budget: its steps need a folder that every worker sees",
            self.cluster.files,
        )
        self.build_candidate_plan(())

    def build_compression_plan(self, teachers: Sequence[str | Path]) -> Plan:
        """Return the plan that compresses one model of the front.

        Args:
            teachers: Files of the teachers.
        """
        values = {field.name: getattr(self, field.name) for field in fields(Plan)}
        files = TeacherChoice(tuple(map(Path, teachers)))
        values["data"] = DataOptions(**vars(self.data))
        return Plan(**values | {"distill": replace(self.distill, teacher=files)})

    def build_shrink_plan(self, teachers: Sequence[str | Path]) -> ShrinkPlan | None:
        """Return the plan that shrinks one model to the goal, or None if there is no goal.

        Args:
            teachers: Files of the teachers.

        Raises:
            InputError: An option cannot be combined with a goal.
        """
        if not self.goal.is_given:
            return None
        return self._build_shrink_plan(
            teachers, GoalOptions(**vars(self.goal), no_train=self.finetune.epochs == 0)
        )

    def build_candidate_plan(self, teachers: Sequence[str | Path]) -> ShrinkPlan:
        """Return the plan of the sizes of one candidate in a run with a time budget.

        Neither neighbours of a choice of channels nor other methods are tried, and latencies only
        roughly measured: the fine-tuned files and the time of the whole run decide.

        Args:
            teachers: Files of the teachers.

        Raises:
            InputError: An option cannot be combined with a time budget.
        """
        plan = self._build_shrink_plan(teachers, GoalOptions(no_train=self.finetune.epochs == 0))
        is_default = self.channels.tries == ChannelOptions.tries
        channels = replace(plan.channels, tries=0) if is_default else plan.channels
        if channels.should_compare:
            channels = replace(channels, criterion="reconstruction", scope="output_error")
        return replace(
            plan, channels=channels, latency=replace(plan.latency, budget=BUDGET_TIMING_SECONDS)
        )

    def _build_shrink_plan(self, teachers: Sequence[str | Path], goal: GoalOptions) -> ShrinkPlan:
        plan = self.build_compression_plan(teachers)
        values = {item.name: getattr(plan, item.name) for item in fields(Plan)}
        changed = {
            name: value
            for name, value in vars(plan.channels).items()
            if value != getattr(ChannelOptions, name)
        }
        values["channels"] = ShrinkChannels(**changed)
        values["weights"] = ShrinkWeights()
        values["finetune"] = ShrinkTraining(**vars(self.finetune))
        return ShrinkPlan(**values, goal=goal)

    @property
    def max_trials(self) -> int:
        """Largest number of trials."""
        if self.search.trials is not None:
            return self.search.trials
        return DEFAULT_TRIALS if self.goal.budget is None else MAX_TRIALS

    @property
    def rewinds_training(self) -> bool:
        """Whether a candidate is fine-tuned with the settings that it was trained with.

        So it is in a run with a time budget, unless options of fine-tuning alone are given.
        """
        of_every_training = TrainSettings(
            class_weights=self.finetune.class_weights,
            augment=self.finetune.augment,
            epoch_examples=self.finetune.epoch_examples,
        )
        return self.finetune == of_every_training

    @property
    def front_cost(self) -> str:
        """Cost of files in a run with a time budget: that of the objectives, else latency."""
        return next(iter(self.search.objectives[1:]), "latency_ms")

    def list_rungs(self) -> tuple[int, ...]:
        """Return the epochs after which a trial may be stopped."""
        return compute_rungs(self.search.stopping, self.search.epochs)


RUN = Keywords("run", SearchPlan, excluded=frozenset({"data.source"}))
RUN_SEARCH = Keywords("run_search", SearchPlan, excluded=frozenset({"data.source"}))

FUNCTIONS.extend((RUN, RUN_SEARCH))
