"""Plan sections: search space, sampler, objectives, limits, and the engine of workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from compress.core import credentials
from compress.core.errors import InputError
from compress.data.tasks import list_metrics
from compress.plan import OPTIMIZERS
from compress.plan.conversion import ConvertedField, NameList, OptionalPath
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
from search.plan.stopping import COSTS, Conditions
from search.plugins import ENGINES, SAMPLERS

if TYPE_CHECKING:
    from search.spaces import Space

DEFAULT_SAMPLER = "pareto"
"""Sampler of "auto": the best or among the best in all measurements, see docs/search.md."""


DEFAULT_OBJECTIVES = ("accuracy", "macs")
LOCAL_ENGINE = "local"


@dataclass(frozen=True)
class SearchOptions:
    """Search space, sampler, objectives, number of trials and limits."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "inherit": RemovedOption(
            "--inherit-weights",
            "Candidates that began with weights of the nearest finished one gained nothing: the "
            "hypervolume changed by -0.004 +- 0.014. Leave it out.",
            unused_values=(False,),
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
        12, "--epochs", "epochs of a candidate's training", least=1, most=MAX_EPOCHS,
        why=MAX_EPOCHS_REASON,
    )  # fmt: skip
    sampler: str = option(
        AUTO,
        "--sampler",
        f"search strategy: {AUTO} (which is {DEFAULT_SAMPLER}), "
        + ", ".join(sorted(SAMPLERS))
        + ", or your own package.module:function(seed)",
        left_open=AUTO,
        choices=SAMPLERS,
        extra_choices=(AUTO,),
    )
    optimizers: NameList = option(
        OPTIMIZERS,
        "--optimizers",
        "optimizers of candidates to sample from, with commas",
        choices=Choices("optimizer", OPTIMIZERS),
    )
    objectives: NameList = option(
        DEFAULT_OBJECTIVES,
        "--objectives",
        f"a metric ({', '.join(list_metrics())}) and one cost or more ({', '.join(COSTS)}); of "
        "tasks without accuracy their first metric and macs",
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
    replay: OptionalPath = option(
        None, "--replay", "a candidate's .json: its choices and its seed are tried first"
    )
    warm_start: ConvertedField[tuple[str, ...], Iterable[str | Path]] = option(
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
        validate_fields(self)
        _ = self.resolved_space
        require(bool(self.optimizers), "optimizers", "name at least one", self.optimizers)
        if len(self.objectives) < 2:
            raise InputError(
                "objectives must be one quality and at least one cost. "
                f"Received: {','.join(self.objectives)}."
            )
        require_choice("quality", self.objectives[0], list_metrics())
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
            not self.no_train or self.resolved_space.trained,
            "no_train",
            "go with a space around a trained model, whose parts are worth something untrained",
            f"space '{self.space}'",
        )
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
    def costs(self) -> tuple[str, ...]:
        """Names of the cost objectives, without the metric."""
        return self.objectives[1:]

    def needs_cost(self, cost: str) -> bool:
        """Return whether a measured cost is needed for an objective or a limit.

        Args:
            cost: Name of the cost, like "latency_ms".
        """
        limit = {"size_bytes": self.max_size, "latency_ms": self.max_latency}.get(cost)
        soft = any(condition.name == cost for condition in self.prefer)
        return limit is not None or cost in self.costs or soft


@dataclass(frozen=True)
class EngineOptions:
    """Engine that runs workers, and the resources of each worker in a cluster.

    All of these options may change when a run is resumed, for example from one machine to many.
    """

    name: str = option(
        LOCAL_ENGINE,
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
        validate_fields(self)
        require(
            self.gpus is None or 0 <= self.gpus <= 1,
            "gpus_per_worker", "be in [0, 1]: a trial computes on one GPU at most", self.gpus,
        )  # fmt: skip
        cluster_options = {
            "address": self.address != "auto",
            "cpus_per_worker": self.cpus is not None,
            "gpus_per_worker": self.gpus is not None,
            "files": bool(self.files),
        }
        unused = [name for name, is_set in cluster_options.items() if is_set]
        if self.name == LOCAL_ENGINE and unused:
            raise InputError(
                f"{unused[0]} must come with the engine of a cluster. Received: engine "
                f"{LOCAL_ENGINE}. "
                "Give --engine ray."
            )
