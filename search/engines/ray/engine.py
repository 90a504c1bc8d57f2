"""How many workers a Ray cluster gives a run, and how it is joined."""

from __future__ import annotations

import logging
import math
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from compress.core.credentials import hidden
from compress.core.errors import InputError, one_line
from compress.core.memory_budget import current_budget
from search.engines._base import Crew, Demand, Order
from search.engines.memory import memory_of_each
from search.engines.ray.link import quiet
from search.engines.ray.pool import RayPool
from search.study.remote import Files

LOCAL, AUTO = "local", "auto"
ANSWER_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "localhost")


class RayEngine:
    """Runs workers as actors of a Ray cluster; see `search.engines.Engine`."""

    remote = True
    _joined = False

    def crew(self, demand: Demand) -> Crew:
        """Returns as many workers as are asked for, or as the cluster holds now.

        Raises:
            InputError: The cluster does not answer, or has no node that holds a worker.
        """
        options = demand.options
        if options.files:
            _check_files(demand)
        self._joined |= _connect(options.address)
        import ray

        alive = [item for item in ray.nodes() if item["Alive"]]
        total = ray.cluster_resources()
        cpus = options.cpus or demand.threads or 1
        cards = options.gpus
        if cards is None:
            cards = 1.0 if total.get("GPU", 0) >= 1 and demand.device != "cpu" else 0.0
        places = sum(_places(item["Resources"], cpus, cards) for item in alive)
        if not places:
            raise InputError(
                "cpus_per_worker and gpus_per_worker must fit on a node of the cluster. Received: "
                f"{cpus} cores and {cards:g} GPUs, where the nodes have "
                f"{', '.join(sorted({_told(item['Resources']) for item in alive})) or 'nothing'}."
            )
        count = demand.workers or min(places, demand.most)
        place = f"a Ray cluster of {len(alive)} node(s), {_told(total)}"
        if count > places:
            place += f" ({count - places} workers wait until there is room)"
        # whose amount nobody has named: each node has its own memory
        memory = memory_of_each(count) if current_budget().given else None
        threads = demand.threads or cpus
        return Crew(count, threads, place, cards=cards, cpus=cpus, memory=memory)

    def pool(self, order: Order) -> RayPool:
        """Returns the workers; all are asked for at once."""
        return RayPool(order, self._leave)

    def _leave(self) -> None:
        """Leaves the cluster, where this engine has joined it."""
        import ray

        if self._joined:
            self._joined = False
            ray.shutdown()


ENGINE = RayEngine()


def _check_files(demand: Demand) -> None:
    """Checks that workers can do without the run's folder.

    Raises:
        InputError: They would read a file of the run's machine; or nothing can be written where
            theirs shall go.
    """
    files = demand.options.files
    if demand.reads:
        raise InputError(
            f"files must be left out for {demand.reads}: workers read files of the run's machine. "
            f"Received: {files}. Put the output folder, and those files, where all see them."
        )
    if demand.journal:
        raise InputError(
            "files must come with a storage that workers reach: the run's journal lies in its "
            "folder. Received: none. Give --storage."
        )
    Files(files).check()


def _places(resources: dict[str, float], cpus: int, cards: float) -> int:
    """Returns how many workers a node holds."""
    places = math.floor(resources.get("CPU", 0) / cpus)
    if not cards:
        return places
    # as Ray divides cards: a worker's share lies on one of them
    return min(places, math.floor(resources.get("GPU", 0)) * math.floor(1 / cards + 1e-9))


def _told(resources: dict[str, float]) -> str:
    gpus = resources.get("GPU", 0)
    return f"{resources.get('CPU', 0):g} cores" + (f" and {gpus:g} GPUs" if gpus else "")


def _connect(address: str) -> bool:
    """Joins the cluster at an address, unless this program is of one already.

    Returns:
        Whether it was not.

    Raises:
        InputError: Nobody answers there.
    """
    # an actor without a card gets none, and no warning either
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL or address.startswith(LOOPBACK):
        # Ray would take the machine's own address for it, and listen there; it is asked not to
        # where systems warn of that, and so are we
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"include_dashboard": False}
    try:
        # Ray itself asks for minutes
        _answers(address)
        with quiet():
            ray.init(address, namespace="paretune", **options)
    except Exception as error:  # of many kinds, by what it tried
        reason, address = hidden(one_line(str(error), 200)), hidden(address)
        way = "ray status" + ("" if address == AUTO else f" --address {address}")
        raise InputError(
            f"address must be of a Ray cluster that runs. Received: '{address}' ({reason}). Check "
            f"it with: {way}. A cluster of this machine alone: --address local."
        ) from None
    return True


def _answers(address: str) -> None:
    """Checks that somebody listens at an address.

    Raises:
        OSError: Nobody does.
        ValueError: It is no address.
    """
    if address in (LOCAL, AUTO):
        return
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname is None or place.port is None:
        raise ValueError("write host:port")
    socket.create_connection((place.hostname, place.port), ANSWER_SECONDS).close()
