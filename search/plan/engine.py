"""Plan section: where a run's workers are."""

from __future__ import annotations

from dataclasses import dataclass

from compress.core.errors import InputError
from compress.plan.fields import option, require, settle
from search.plugins import ENGINES

LOCAL = "local"


@dataclass(frozen=True)
class EngineOptions:
    """Where workers run, and what each of them takes of a cluster.

    All of it may differ when a run goes on: it may begin on one machine and end on many.
    """

    name: str = option(
        LOCAL,
        "--engine",
        "where workers run. local: processes of this machine; ray: actors of a Ray cluster",
        extendable=True,
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
        ENGINES.require(self.name)
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
