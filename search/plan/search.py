"""Plan sections: search space, sampler, objectives and limits; the engine of workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from compress.core import credentials
from compress.core.errors import InputError
from compress.data.tasks import qualities
from compress.plan import OPTIMIZERS
from compress.plan.data import AUTO
from compress.plan.fields import Choices, RemovedOption, option, require, require_choice, settle
from compress.plan.forms import Given, Names, Place
from compress.plan.training import EPOCHS_WHY, MOST_EPOCHS
from search.plan.stopping import COSTS, Conditions
from search.plugins import ENGINES, SAMPLERS

if TYPE_CHECKING:
    from search.spaces import Space

DEFAULT_SAMPLER = "pareto"
"""What "auto" is: the best or among the best of all that were measured, see docs/search.md."""


DEFAULT_OBJECTIVES = ("accuracy", "macs")
LOCAL = "local"


@dataclass(frozen=True)
class SearchOptions:
    """Search space, sampler, objectives, number of trials and limits."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "inherit": RemovedOption(
            "--inherit-weights",
            "Candidates that began with weights of the nearest finished one gained nothing: the "
            "hypervolume changed by -0.004 +- 0.014. Leave it out.",
            off=(False,),
        ),
    }

    space: str = option(
        "cnn",
        "--space",
        "search space: cnn, mlp, mobilenet, resnet, around:model.keras (sub-networks of a trained "
        "model), or your own module:function(trial, data)",
    )
    trials: int = option(
        20, "--trials", "candidates to train", extendable=True, least=1, most=10_000_000,
        why="each writes a record",
    )  # fmt: skip
    epochs: int = option(
        12, "--epochs", "epochs of a candidate's training", least=1, most=MOST_EPOCHS,
        why=EPOCHS_WHY,
    )  # fmt: skip
    sampler: str = option(
        AUTO,
        "--sampler",
        f"search strategy: {AUTO} (which is {DEFAULT_SAMPLER}), "
        + ", ".join(sorted(SAMPLERS))
        + ", or your own package.module:function(seed)",
        left_open=AUTO,
        choices=SAMPLERS,
        beside=(AUTO,),
    )
    optimizers: Names = option(
        OPTIMIZERS,
        "--optimizers",
        "optimizers of candidates to sample from, with commas",
        choices=Choices("optimizer", OPTIMIZERS),
    )
    objectives: Names = option(
        DEFAULT_OBJECTIVES,
        "--objectives",
        f"a metric ({', '.join(qualities())}) and one cost or more ({', '.join(COSTS)}); of tasks "
        "without accuracy their first metric and macs",
    )
    max_macs: int | None = option(
        None,
        "--max-macs",
        "reject candidates above this without training them; 2M is 2,000,000",
        least=1,
    )
    max_params: int | None = option(
        None,
        "--max-params",
        "reject candidates with more parameters without training them; 200k is 200,000",
        least=1,
    )
    max_size: int | None = option(
        None, "--max-size",
        "bytes of the float32 .tflite file (or 2MB, 2MiB): reject larger candidates without "
        "training them",
        least=1, unit="bytes",
    )  # fmt: skip
    max_latency: float | None = option(
        None,
        "--max-latency",
        "milliseconds (or 3ms, 250us) on LiteRT with one thread: reject slower candidates without "
        "training them",
        unit="ms",
    )
    prefer: Conditions = option(
        (),
        "--prefer",
        "soft limits, macs<=1e6,accuracy>=0.8: candidates beyond one are trained, but the sampler "
        "is led away from them",
    )
    workers: int | None = option(
        None,
        "--workers",
        "worker processes; default: one per GPU, else one per core; those on one GPU share its "
        "memory",
        extendable=True,
        least=1,
        most=1024,
        why="each is a process of its own",
    )
    storage: str = option(
        "",
        "--storage",
        "Optuna storage URL; default: a journal in --out. Its password is not stored: give it in "
        "PARETUNE_STORAGE_PASSWORD",
    )
    replay: Place = option(
        None, "--replay", "a candidate's .json: its choices and its seed are tried first"
    )
    warm_start: Given[tuple[str, ...], Iterable[str | Path]] = option(
        (),
        "--warm-start",
        "folders of finished runs or storage URLs, with commas: their fronts are tried first",
    )
    no_train: bool = option(
        False,
        "--no-train",
        "with around: judge sub-networks as they are, cut and repaired, in seconds each; some of "
        "the front are trained when the search is over (--final-epochs, --final-models)",
    )

    def __post_init__(self) -> None:
        settle(self)
        _ = self.made_space
        require(bool(self.optimizers), "optimizers", "name at least one", self.optimizers)
        if len(self.objectives) < 2:
            raise InputError(
                "objectives must be one quality and at least one cost. "
                f"Received: {','.join(self.objectives)}."
            )
        require_choice("quality", self.objectives[0], qualities())
        for name in self.objectives[1:]:
            require_choice("cost", name, tuple(COSTS))
        require(
            len(set(self.objectives)) == len(self.objectives),
            "objectives", "name each cost once", ",".join(self.objectives),
        )  # fmt: skip
        require(
            self.max_latency is None or self.max_latency > 0,
            "max_latency", "be above 0", self.max_latency,
        )  # fmt: skip
        require(
            not self.no_train or self.made_space.trained,
            "no_train",
            "go with a space around a trained model, whose parts are worth something untrained",
            f"space '{self.space}'",
        )
        if self.storage and "://" not in self.storage:
            # what stands in front of @ may be a password
            raise InputError(
                "storage must be a URL that Optuna can open, like sqlite:///study.db. Received: "
                f"'{'...@' if '@' in self.storage else ''}{self.storage.rpartition('@')[2]}'."
            )
        # whoever shows or stores a plan finds no password in it
        object.__setattr__(self, "storage", credentials.keep(self.storage))
        sources = tuple(
            credentials.keep(name) if "://" in name else name for name in self.warm_start
        )
        object.__setattr__(self, "warm_start", sources)

    @cached_property
    def made_space(self) -> Space:
        """The space that `space` names, made once for this plan.

        Raises:
            InputError: There is none.
        """
        from search.spaces import space_for

        return space_for(self.space)

    @property
    def strategy(self) -> str:
        """The sampler's name, or where it is imported from."""
        return DEFAULT_SAMPLER if self.sampler == AUTO else self.sampler

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the objectives behind the quality."""
        return self.objectives[1:]

    def needs(self, cost: str) -> bool:
        """Return whether a measured cost is asked for, as an objective or by a limit."""
        limit = {"size_bytes": self.max_size, "latency_ms": self.max_latency}.get(cost)
        soft = any(condition.name == cost for condition in self.prefer)
        return limit is not None or cost in self.costs or soft


@dataclass(frozen=True)
class EngineOptions:
    """The engine that runs workers, and each worker's share of a cluster.

    All of it may differ when a run goes on: it may begin on one machine and end on many.
    """

    name: str = option(
        LOCAL,
        "--engine",
        "where workers run. local: processes of this machine; ray: actors of a Ray cluster",
        extendable=True,
        choices=ENGINES,
    )
    address: str = option(
        "auto",
        "--address",
        "of the Ray cluster: host:port or ray://host:port; auto: the one that runs on this "
        "machine, or of RAY_ADDRESS; local: a new one, of this machine alone",
        extendable=True,
    )
    cpus: int | None = option(
        None, "--cpus-per-worker",
        "cores that a worker takes of the cluster; default: --threads, or 1",
        extendable=True, least=1, most=4096,
        why="no node has more",
    )  # fmt: skip
    gpus: float | None = option(
        None,
        "--gpus-per-worker",
        "GPUs that a worker takes of the cluster, in [0, 1]: 0.25 puts four on a card, each with a "
        "quarter of its memory; default: 1 where the cluster has GPUs, else 0",
        extendable=True,
    )

    files: str = option(
        "",
        "--files",
        "where workers put what they make, if they do not see --out: s3://bucket/path, or another "
        "place that fsspec opens",
        extendable=True,
    )

    def __post_init__(self) -> None:
        settle(self)
        require(
            self.gpus is None or 0 <= self.gpus <= 1,
            "gpus_per_worker", "be in [0, 1]: a trial computes on one GPU at most", self.gpus,
        )  # fmt: skip
        given = {"address": self.address != "auto", "cpus_per_worker": self.cpus is not None,
                 "gpus_per_worker": self.gpus is not None, "files": bool(self.files)}  # fmt: skip
        unused = [name for name, is_given in given.items() if is_given]
        if self.name == LOCAL and unused:
            raise InputError(
                f"{unused[0]} must come with the engine of a cluster. Received: engine {LOCAL}. "
                "Give --engine ray."
            )
