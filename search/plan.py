"""The plan of a search and of a whole run: a `Plan` with a search section."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.errors import InputError
from compress.options import option, require, require_choice
from compress.plan import OPTIMIZERS, Plan, require_epochs
from compress.task import QUALITIES

COSTS = ("macs", "params")


@dataclass(frozen=True)
class SearchOptions:
    """What is searched, how, for how long and within which limits."""

    space: str = option("cnn", "--space", "search space: cnn")
    trials: int = option(20, "--trials", "candidates to train", extendable=True)
    epochs: int = option(12, "--epochs", "epochs of a candidate's training")
    sampler: str = option("tpe", "--sampler", "random, tpe or nsga2")
    optimizers: tuple[str, ...] = option(
        OPTIMIZERS, "--optimizers", "optimizers to sample from: " + ",".join(OPTIMIZERS)
    )
    objectives: tuple[str, ...] = option(
        ("accuracy", "macs"),
        "--objectives",
        f"a quality ({', '.join(QUALITIES)}) and a cost ({', '.join(COSTS)})",
    )
    max_macs: int | None = option(None, "--max-macs", "reject costlier candidates untrained")
    max_params: int | None = option(None, "--max-params", "reject larger candidates untrained")
    workers: int | None = option(
        None,
        "--workers",
        "worker processes; default: one a GPU, else one a core",
        extendable=True,
    )
    storage: str = option("", "--storage", "Optuna storage URL; default: a journal in --out")
    replay: str = option(
        "", "--replay", "a candidate's .json: its choices and its seed are tried first"
    )

    def __post_init__(self) -> None:
        from search.samplers import SAMPLERS
        from search.spaces import SPACES

        SPACES[self.space]
        SAMPLERS[self.sampler]
        require(self.trials >= 1, "trials", "be at least 1", self.trials)
        require_epochs("epochs", self.epochs)
        require(bool(self.optimizers), "optimizers", "name at least one", self.optimizers)
        for name in self.optimizers:
            require_choice("optimizer", name, OPTIMIZERS)
        if len(self.objectives) != 2:
            raise InputError(
                "objectives must be one quality and one cost. "
                f"Received: {','.join(self.objectives)}."
            )
        require_choice("quality", self.objectives[0], QUALITIES)
        require_choice("cost", self.objectives[1], COSTS)
        for name in ("max_macs", "max_params", "workers"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "be at least 1", value)


@dataclass(frozen=True)
class SearchPlan(Plan):
    """Everything that `paretune run` does; `search.run` and `search.run_search` take it."""

    search: SearchOptions = field(default_factory=SearchOptions)
