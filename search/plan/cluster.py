"""Plan section: the engine that runs workers, and the resources of each worker in a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.core.errors import InputError
from compress.plan.fields import RemovedOption, option, require, validate_fields
from search.plugins import ENGINES

LOCAL_ENGINE = "local"


@dataclass(frozen=True)
class ClusterOptions:
    """Engine that runs workers, and the resources of each worker in a cluster.

    All of these options may change when a run is resumed, for example from one machine to many.
    """

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "address": RemovedOption(
            "--address",
            "Ray itself reads the environment variable RAY_ADDRESS. Set it to host:port or "
            "ray://host:port, or to local for a new cluster of this machine alone; without it, the "
            "cluster that runs on this machine is used.",
            unused_values=("auto",),
        ),
    }

    engine: str = option(
        LOCAL_ENGINE,
        "where workers run: local processes, or actors of a Ray cluster (RAY_ADDRESS)",
        extendable=True,
        choices=ENGINES,
    )
    cpus_per_worker: int | None = option(
        None,
        "CPU cores per worker in a cluster; default: --threads, or 1",
        extendable=True,
        least=1,
        most=4096,
        why="no node has more",
    )
    gpus_per_worker: float | None = option(
        None,
        "GPUs per worker in a cluster, in [0, 1]; default: 1 if the cluster has GPUs, else 0",
        extendable=True,
    )
    files: str = option(
        "",
        "storage for Ray workers that do not see --out (with --storage): s3://bucket/path (fsspec)",
        extendable=True,
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(
            self.gpus_per_worker is None or 0 <= self.gpus_per_worker <= 1,
            "gpus_per_worker",
            "be in [0, 1]: a trial computes on one GPU at most",
            self.gpus_per_worker,
        )
        used = [
            name
            for name in ("cpus_per_worker", "gpus_per_worker", "files")
            if getattr(self, name) not in (None, "")
        ]
        if self.engine == LOCAL_ENGINE and used:
            raise InputError(
                f"{used[0]} must come with the engine of a cluster. Received: engine "
                f"{LOCAL_ENGINE}. Give --engine ray."
            )
