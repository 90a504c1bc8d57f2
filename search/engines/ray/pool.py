"""Workers that Ray has placed on nodes: asked for, refused, replaced."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.core.atomic_files import read_json
from compress.core.errors import InputError, RunFailed
from compress.core.interpreter import current_folder
from compress.data.shared import files_of
from compress.run.directory import LOG
from search.engines import messages
from search.engines._base import Handler, Job, Order
from search.engines.pool import Link, Pool, Slot, Tell
from search.engines.ray import node
from search.engines.ray.host import REFUSED, Brief, RayHost
from search.engines.ray.link import RayLink, Watch, quiet
from search.study.remote import Files, given, receive

LOST_SECONDS = 1.0
MAX_BEGUN = 20
"""So many workers of a slot may be lost in a row before they are ready."""
AGAIN_SECONDS = 30.0
"""After a node was refused, its slot asks for another this much later."""
END_SECONDS = 10.0
PACE, WORDS = 1.0, 50
"""Seconds at least between two words of progress of a worker; words a second of all of them."""
TOLD_SECONDS = 60.0
"""How often a run without any worker says that it waits."""


class RayPool(Pool):
    """Workers that Ray has placed on nodes; one that is lost with its node is asked for anew.

    Args:
        order: See `Pool`.
        leave: Called at the end.
    """

    AHEAD = True

    def __init__(self, order: Order, leave: Callable[[], None]) -> None:
        super().__init__(order)
        self._order, self._leave = order, leave
        self._watch = Watch()
        self._brief: Brief | None = None
        place = order.demand.options.files
        self._files = Files(place) if place else None
        self._given: dict[tuple[str, ...], list[str]] = {}
        self._refused: set[str] = set()
        # by slot: until when it asks for no worker, how many it has asked for in vain
        self._asleep: dict[int, float] = {}
        self._begun: dict[int, int] = {}
        self._worked = False
        self._told = time.monotonic()

    def __enter__(self) -> RayPool:
        import ray

        folder, crew = self._order.folder, self._order.crew
        with quiet():
            data = {
                path.name: ray.put(np.memmap(path, np.uint8, "r"))
                for path in files_of(folder.shared)
            }
        shared = max(1, math.floor(1 / crew.cards + 1e-9)) if crew.cards else 1
        self._brief = Brief(
            folder=str(folder.path.resolve()),
            plan_digest=node.digest_of(folder.plan_path),
            versions=node.versions(),
            words=(
                "--device", self._order.demand.device if crew.cards else "cpu",
                *crew.words, "--sharers", str(shared),
            ),
            modules=tuple(filter(None, (current_folder(), *sys.path))),
            fingerprint=str(read_json(folder.data)["fingerprint"]),
            data=data,
            log="",
            pace=max(PACE, crew.count / WORDS),
            files=self._order.demand.options.files,
            records=(folder.plan_path.read_bytes(), folder.data.read_bytes()),
        )  # fmt: skip
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._watch.stop()
        self._leave()

    def _log_of(self, index: int) -> Path:
        return self._folder.path.resolve() / f"workers-{index}.log"

    def _open(self, index: int, tell: Tell) -> Link:
        import ray

        assert self._brief is not None, "the pool was entered"
        crew = self._order.crew
        log = self._log_of(index)
        brief = replace(self._brief, log=str(log))
        # it is not Ray that starts one again: the slot does, with a job of now
        made = ray.remote(RayHost).options(
            num_cpus=crew.cpus, num_gpus=crew.cards, max_concurrency=4, max_restarts=0
        )
        with quiet():
            actor = made.remote(brief)
        return RayLink(actor, self._watch, tell, self._order.environment, self._receive, log)

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

    def _may_start(self, slot: Slot) -> bool:
        return time.monotonic() >= self._asleep.get(slot.index, 0.0)

    def _start(self, slot: Slot) -> None:
        begun = self._begun[slot.index] = self._begun.get(slot.index, 0) + 1
        if begun > MAX_BEGUN:
            raise RunFailed(
                f"Workers must stay until they are ready. Received: {MAX_BEGUN} that were lost "
                f"before, one after another. See '{self._log_of(slot.index)}' and `ray status`."
            )
        super()._start(slot)

    def _handle(self, slot: Slot, message: Job | None, handler: Handler) -> None:
        if message is not None and message["kind"] == REFUSED:
            self._refuse(slot, message["node"], message["reason"])
            return
        if message is not None and message["kind"] == messages.READY:
            self._worked = True
            self._begun[slot.index] = 0
        elif message is None and not slot.started:
            # the next one may come to another node, when this one is known to be gone
            self._asleep[slot.index] = time.monotonic() + LOST_SECONDS
        super()._handle(slot, message, handler)

    def _refuse(self, slot: Slot, where: str, reason: str) -> None:
        """Leaves a node out; where none has worked yet, that is the user's to mend.

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
        self._begun[slot.index] = 0
        self._asleep[slot.index] = time.monotonic() + AGAIN_SECONDS

    def _wait(self, handler: Handler) -> None:
        if any(slot.ready for slot in self._slots):
            self._told = time.monotonic()
        elif time.monotonic() > self._told + TOLD_SECONDS:
            self._told = time.monotonic()
            LOG.info("no worker runs: waiting for room on the cluster (see `ray status`)")
        for slot in self._slots:
            if slot.link is None:
                self._feed(slot, handler)

    def stop(self) -> None:
        """Ends all workers; those that do not end in time are killed."""
        super().stop()
        self._watch.join(END_SECONDS)
