"""Workers on a Ray cluster: their number, and how they are asked for, refused and replaced."""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from compress.core.atomic_files import read_json
from compress.core.credentials import hidden
from compress.core.errors import InputError, one_line
from compress.core.interpreter import current_folder
from compress.core.memory_budget import current_budget
from compress.data.dataset import files_of
from compress.run.directory import LOG
from search.engines import messages
from search.engines._base import Crew, Demand, Job, JobQueue, Order
from search.engines.local import memory_of_each
from search.engines.pool import Link, Pool, Slot, Tell
from search.engines.ray.host import REFUSED, Brief, RayHost, digest_of, versions
from search.engines.ray.link import END_SECONDS, RayLink
from search.study.remote import Files, given, receive

LOCAL, AUTO = "local", "auto"


class RayEngine:
    """An engine whose workers are actors of a Ray cluster; see `search.engines.Engine`."""

    remote = True
    _joined = False

    def crew(self, demand: Demand) -> Crew:
        """Return as many workers as are asked for, or as the cluster holds now.

        Raises:
            InputError: The cluster does not answer, or has no node that holds a worker; workers
                that do not see the run's folder would read a file of the run's machine, or nothing
                can be written where their files shall go.
        """
        options = demand.options
        if options.files and demand.reads:
            raise InputError(
                f"files must be left out for {demand.reads}: workers read files of the run's "
                f"machine. Received: {options.files}. Put the output folder, and those files, "
                "where all see them."
            )
        if options.files and demand.journal:
            raise InputError(
                "files must come with a storage that workers reach: the run's journal lies in its "
                "folder. Received: none. Give --storage."
            )
        if options.files:
            Files(options.files).check()
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
        return Crew(count, demand.threads or cpus, place, cards=cards, cpus=cpus, memory=memory)

    def pool(self, order: Order) -> RayPool:
        """Return the workers; all are asked for at once."""
        return RayPool(order, self._leave)

    def _leave(self) -> None:
        import ray

        if self._joined:
            self._joined = False
            ray.shutdown()


ENGINE = RayEngine()


class RayPool(Pool):
    """Workers that Ray has placed on nodes; one that is lost with its node is asked for anew.

    Args:
        order: See `Pool`.
        leave: Called at the end.
    """

    AHEAD = True

    def __init__(self, order: Order, leave: Callable[[], None]) -> None:
        super().__init__(order)
        self._leave = leave
        self._links: list[RayLink] = []
        self._brief: Brief | None = None
        place = order.demand.options.files
        self._files = Files(place) if place else None
        self._given: dict[tuple[str, ...], list[str]] = {}
        self._refused: set[str] = set()
        self._worked = False
        self._told = time.monotonic()

    def __enter__(self) -> RayPool:
        import ray

        folder, crew = self._order.folder, self._order.crew
        with warnings.catch_warnings(action="ignore"):  # Ray's are of its next version
            data = {
                path.name: ray.put(np.memmap(path, np.uint8, "r"))
                for path in files_of(folder.shared)
            }
        shared = max(1, math.floor(1 / crew.cards + 1e-9)) if crew.cards else 1
        self._brief = Brief(
            folder=str(folder.path.resolve()),
            plan_digest=digest_of(folder.plan_path),
            versions=versions(),
            words=(
                "--device", self._order.demand.device if crew.cards else "cpu",
                *crew.words, "--sharers", str(shared),
            ),
            modules=tuple(filter(None, (current_folder(), *sys.path))),
            fingerprint=str(read_json(folder.data)["fingerprint"]),
            data=data,
            pace=max(1.0, crew.count / 50),  # fifty words of progress a second, of all of them
            files=self._order.demand.options.files,
            records=(folder.plan_path.read_bytes(), folder.data.read_bytes()),
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        # those that do not end in time are killed
        deadline = time.monotonic() + END_SECONDS
        for link in self._links:
            link.join(deadline - time.monotonic())
        self._leave()

    def _log_of(self, index: int) -> Path:
        return self._folder.path.resolve() / f"workers-{index}.log"

    def _open(self, index: int, tell: Tell) -> Link:
        import ray

        assert self._brief is not None, "the pool was entered"
        crew = self._order.crew
        log = self._log_of(index)
        # it is not Ray that starts one again: the slot does, with a job of now
        made = ray.remote(RayHost).options(
            num_cpus=crew.cpus, num_gpus=crew.cards, max_concurrency=4, max_restarts=0
        )
        with warnings.catch_warnings(action="ignore"):  # Ray's are of its next version
            actor = made.remote(self._brief, log)
        link = RayLink(actor, tell, self._order.environment, self._receive, log)
        self._links.append(link)
        return link

    def _receive(self, names: list[str]) -> None:
        assert self._files is not None, "a worker has put something there"
        receive(self._folder, self._files, names)

    def _sent(self, job: Job) -> Job:
        if self._files is None or "teachers" not in job:
            return job
        key = tuple(job["teachers"])
        if key not in self._given:
            self._given[key] = given(self._folder, self._files, key)
        return {**job, "teachers": self._given[key]}

    def _handle(self, slot: Slot, message: Job | None, handler: JobQueue) -> None:
        if message is not None and message["kind"] == REFUSED:
            self._refuse(slot, message["node"], message["reason"])
            return
        if message is not None and message["kind"] == messages.READY:
            self._worked = True
        elif message is None and not slot.started:
            # the next one may come to another node, when this one is known to be gone
            slot.asleep_until = time.monotonic() + 1
        super()._handle(slot, message, handler)

    def _refuse(self, slot: Slot, where: str, reason: str) -> None:
        """Leave a node out; raise where none has worked yet: the user can mend that then.

        Raises:
            InputError: No worker has worked yet.
        """
        text = f"Node '{where}' cannot work for this run: {reason}."
        if not self._worked:
            raise InputError(text)
        if where not in self._refused:
            LOG.warning("%s It is left out until that is mended.", text)
            self._refused.add(where)
        self._end(slot)
        slot.lost_starts = 0
        slot.asleep_until = time.monotonic() + 30  # then it asks for another node

    def _wait(self, handler: JobQueue) -> None:
        if any(slot.ready for slot in self._slots):
            self._told = time.monotonic()
        elif time.monotonic() > self._told + 60:
            self._told = time.monotonic()
            LOG.info("no worker runs: waiting for room on the cluster (see `ray status`)")
        for slot in self._slots:
            if slot.link is None:
                self._feed(slot, handler)


def _places(resources: dict[str, float], cpus: int, cards: float) -> int:
    places = math.floor(resources.get("CPU", 0) / cpus)
    if not cards:
        return places
    # as Ray divides cards: a worker's share lies on one of them
    return min(places, math.floor(resources.get("GPU", 0)) * math.floor(1 / cards + 1e-9))


def _told(resources: dict[str, float]) -> str:
    gpus = resources.get("GPU", 0)
    return f"{resources.get('CPU', 0):g} cores" + (f" and {gpus:g} GPUs" if gpus else "")


def _connect(address: str) -> bool:
    """Join the cluster at an address, unless this program is of one already.

    Returns:
        Whether it was not.

    Raises:
        InputError: Nobody answers there.
    """
    # an actor without a card gets none, and no warning either
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL or address.startswith(("127.0.0.1", "localhost")):
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
        with warnings.catch_warnings(action="ignore"):  # Ray's are of its next version
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
    """Check that a server listens at an address.

    Raises:
        OSError: Nobody does.
        ValueError: It is no address.
    """
    if address in (LOCAL, AUTO):
        return
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname is None or place.port is None:
        raise ValueError("write host:port")
    socket.create_connection((place.hostname, place.port), timeout=10).close()
