"""Plan section: search space, sampler, objectives, limits, early stopping, end of the search."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from compress.core import credentials
from compress.core.errors import InputError
from compress.data.tasks import list_metrics
from compress.plan import OPTIMIZERS
from compress.plan.conversion import ConvertedField, NameList
from compress.plan.data import AUTO
from compress.plan.fields import (
    Choices,
    RemovedOption,
    option,
    require,
    require_choice,
    validate_fields,
)
from compress.plan.training import MAX_EPOCHS, MAX_EPOCHS_REASON
from search.plugins import SAMPLERS

if TYPE_CHECKING:
    from search.spaces import Space

DEFAULT_SAMPLER = "pareto"
"""Sampler of "auto": the best or among the best in all measurements, see docs/results/search.md."""

COSTS = ("macs", "params", "size_bytes", "latency_ms")
"""Costs that can be objectives."""
DEFAULT_OBJECTIVES, DEFAULT_COST = ("accuracy",), "macs"
"""Objectives if none are given; where a task has no accuracy, its first quality takes the place."""
DEFAULT_TRIALS, MAX_TRIALS = 20, 10_000_000
"""Number of trials without and with a time budget, if none is given."""
Minutes = ConvertedField[float | None, float | str | None]
"""Minutes as a number, or a duration as text: "30m", "1h", "90s"."""
RULES = ("dominance", "none")
REMOVED_RULES = {
    "halving": "It lost 0.3 to 34 % of the hypervolume at 2 to 4.5 times fewer epochs. Use "
    "'dominance', the default, which lost 0.3 % at 2.5 times fewer; to save more, use fewer "
    "epochs, and final_epochs to train the front longer.",
}


def resolve_objectives(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the metric and the costs of trials, with the default cost if none is named.

    Args:
        names: Value of `objectives`.

    Example:
        >>> resolve_objectives(("accuracy",)), resolve_objectives(("r2", "params"))
        (('accuracy', 'macs'), ('r2', 'params'))
    """
    return (*names, DEFAULT_COST) if len(names) == 1 else names


@dataclass(frozen=True)
class SearchOptions:
    """Search space, sampler, objectives, limits, early stopping of trials and end of the search."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "inherit": RemovedOption(
            "--inherit-weights",
            "Candidates that began with weights of the nearest finished one gained nothing: the "
            "hypervolume changed by -0.004 +- 0.014. Leave it out.",
            unused_values=(False,),
        ),
        "prefer": RemovedOption(
            "--prefer",
            "No figure showed that soft limits gain anything. Give a limit (max_macs, max_params, "
            "max_size, max_latency), or name the cost in objectives.",
            unused_values=([], ()),
        ),
        "replay": RemovedOption(
            "--replay",
            "Give the file to warm_start: the choices and the seed of a candidate's .json are "
            "tried first.",
            unused_values=(None, ""),
        ),
        "eta": RemovedOption(
            "--eta",
            "Only the stopping rule 'halving' used it, which was removed too. Leave it out.",
            unused_values=(3.0,),
        ),
        "margin": RemovedOption(
            "--stop-margin",
            "It is 0.02: margins of 0.01 to 0.03 lost the same share of the hypervolume, 0.15 % "
            "on average, at 2.5 to 2.6 times fewer epochs. Leave it out.",
            unused_values=(0.02,),
        ),
        "rungs": RemovedOption(
            "--rungs",
            "Trials are compared after an eighth, a quarter and a half of their epochs: 2.5 times "
            "fewer epochs for 0.15 % of the hypervolume, on average. Leave it out; stopping none "
            "trains every trial to its end.",
            unused_values=([], ()),
        ),
        "plateau": RemovedOption(
            "--plateau",
            "No figure showed that ending a training without improvement gains anything. Leave it "
            "out, or use fewer epochs.",
            unused_values=(0,),
        ),
        "converged": RemovedOption(
            "--converged-after",
            "No figure showed after how many trials without a larger hypervolume a search is "
            "worth ending. Use trials or max_minutes; the report shows the hypervolume over the "
            "trials.",
            unused_values=(0,),
        ),
        "target": RemovedOption(
            "--target",
            "No figure showed that ending at the first candidate that meets conditions gains "
            "anything. Use trials or max_minutes, or Ctrl-C once a candidate is good enough: the "
            "same command with fewer trials ends with the candidates so far.",
            unused_values=([], ()),
        ),
        "no_train": RemovedOption(
            "--no-train",
            "Only the space around:MODEL used it, which was removed too. Use paretune shrink "
            "MODEL, without a goal.",
            unused_values=(False,),
        ),
    }

    space: str = option("cnn", "search space: a name, or module:function(trial, data)")
    trials: int | None = option(
        None,
        f"number of candidates to train; default: {DEFAULT_TRIALS}; with --budget: as many as pay",
        extendable=True,
        least=1,
        most=MAX_TRIALS,
        why="each writes a record",
    )
    epochs: int = option(
        12,
        "epochs of each candidate's training",
        least=1,
        most=MAX_EPOCHS,
        why=MAX_EPOCHS_REASON,
    )
    max_minutes: Minutes = option(
        None,
        "time limit for starting trials, in minutes (or 90s, 2h); paused time does not "
        "count; default: none",
        extendable=True,
        unit="minutes",
    )
    trial_minutes: Minutes = option(
        None,
        "time limit of one trial, in minutes (or 90s); a longer one fails; default: none",
        extendable=True,
        unit="minutes",
    )
    stopping: str = option(
        "dominance",
        "early-stopping rule; dominance: stop a trial that is Pareto-dominated at the same epoch",
        choices=Choices("stopping rule", RULES, REMOVED_RULES),
    )
    sampler: str = option(
        AUTO,
        "sampling algorithm, or package.module:function(seed); auto: pareto",
        left_open=AUTO,
        choices=SAMPLERS,
        extra_choices=(AUTO,),
    )
    optimizers: NameList = option(
        OPTIMIZERS,
        "optimizers of candidates to sample from, with commas",
        choices=Choices("optimizer", OPTIMIZERS),
    )
    objectives: NameList = option(
        DEFAULT_OBJECTIVES,
        "a metric, then costs (macs, params, size_bytes, latency_ms); none: macs, or beside a "
        "budget latency",
        left_open=DEFAULT_OBJECTIVES,
    )
    max_macs: int | None = option(
        None,
        "reject candidates with more MACs before training, like 2M; default: no limit",
        least=1,
    )
    max_params: int | None = option(
        None,
        "reject candidates with more parameters before training, like 200k; default: no limit",
        least=1,
    )
    max_size: int | None = option(
        None,
        "reject candidates with a larger float32 file before training, like 2MB; default: no limit",
        least=1,
        unit="bytes",
    )
    max_latency: float | None = option(
        None,
        "reject candidates that are slower on LiteRT before training, in ms (or 250us); "
        "default: no limit",
        unit="ms",
    )
    workers: int | None = option(
        None,
        "worker processes; default: one per GPU, else one per CPU core, at most 8 (Ray: "
        "as many as fit)",
        extendable=True,
        least=1,
        most=1024,
        why="each is a process of its own",
    )
    storage: str = option(
        "",
        "Optuna storage URL (password: PARETUNE_STORAGE_PASSWORD); default: a journal in --out",
    )
    warm_start: ConvertedField[tuple[str, ...], Iterable[str | Path]] = option(
        (),
        "finished runs (folders, storage URLs) or candidates (.json) to try first, with commas",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        _ = self.resolved_space
        require(bool(self.optimizers), "optimizers", "name at least one", self.optimizers)
        require(bool(self.objectives), "objectives", "name one quality", self.objectives)
        require_choice("quality", self.objectives[0], list_metrics())
        for name in self.objectives[1:]:
            require_choice("cost", name, COSTS)
        require(
            len(set(self.objectives)) == len(self.objectives),
            "objectives",
            "name each cost once",
            ",".join(self.objectives),
        )
        for name in ("max_latency", "max_minutes", "trial_minutes"):
            value = getattr(self, name)
            require(value is None or value > 0, name, "be above 0", value)
        if self.storage and "://" not in self.storage:
            # the text before the @ may contain a password
            raise InputError(
                "storage must be a URL that Optuna can open, like sqlite:///study.db. Received: "
                f"'{'...@' if '@' in self.storage else ''}{self.storage.rpartition('@')[2]}'."
            )
        # a plan must not contain a password, because it is stored and shown
        object.__setattr__(self, "storage", credentials.remember_password(self.storage))
        sources = tuple(
            credentials.remember_password(name) if "://" in name else name
            for name in self.warm_start
        )
        object.__setattr__(self, "warm_start", sources)

    @cached_property
    def resolved_space(self) -> Space:
        """Search space named by `space`, created once per plan.

        Raises:
            InputError: There is no such space.
        """
        from search.spaces import resolve_space

        return resolve_space(self.space)

    @property
    def sampler_name(self) -> str:
        """Name or import reference of the sampler, with "auto" resolved."""
        return DEFAULT_SAMPLER if self.sampler == AUTO else self.sampler

    @property
    def resolved_objectives(self) -> tuple[str, ...]:
        """Metric and costs of the trials, see `resolve_objectives`."""
        return resolve_objectives(self.objectives)

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the cost objectives, without the metric."""
        return self.resolved_objectives[1:]

    def needs_cost(self, cost: str) -> bool:
        """Return whether a measured cost is needed for an objective or a limit.

        Args:
            cost: Name of the cost, like "latency_ms".
        """
        limit = {"size_bytes": self.max_size, "latency_ms": self.max_latency}.get(cost)
        return limit is not None or cost in self.costs


def compute_rungs(rule: str, epochs: int) -> tuple[int, ...]:
    """Return the epochs after which a trial may be stopped, all below `epochs`.

    They are an eighth, a quarter and a half of the epochs. Earlier epochs predict the final metric
    poorly (see docs/results/search.md).

    Args:
        rule: Stopping rule; "none" has no rungs.
        epochs: Epochs of a full training.
    """
    if rule == "none":
        return ()
    rungs = {math.ceil(epochs / share) for share in (8, 4, 2)}
    return tuple(sorted(rung for rung in rungs if rung < epochs))
