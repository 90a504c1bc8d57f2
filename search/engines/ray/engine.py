"""The pool of workers on a Ray cluster: allocation, refusal of unsuitable nodes, replacement."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from compress.core.atomic_files import read_json
from compress.core.credentials import hide_passwords
from compress.core.errors import InputError, to_one_line
from compress.core.memory_budget import get_current_budget
from compress.core.module_loading import find_current_folder
from compress.data.dataset import list_shared_files
from compress.run.directory import LOG
from search.engines import messages
from search.engines._base import Job, JobQueue, PoolSettings, WorkerRequest, WorkerSpec
from search.engines.local import compute_memory_share
from search.engines.pool import Link, OnMessage, Pool, Slot
from search.engines.ray.host import REFUSED, ActorConfig, RayHost, collect_versions, hash_file
from search.engines.ray.link import END_SECONDS, RayLink
from search.study.remote import FileStore, fetch_files, publish_files

LOCAL, AUTO = "local", "auto"


class RayEngine:
    """An engine whose workers are actors of a Ray cluster; see `search.engines.Engine`."""

    remote = True
    _owns_connection = False

    def allocate_workers(self, request: WorkerRequest) -> WorkerSpec:
        """Return the requested number of workers, or as many as the cluster's nodes can hold.

        It counts the resources of all live nodes, including those that are in use, and never
        returns more workers than jobs unless they are requested.

        Raises:
            InputError: The cluster does not respond, no node can hold a worker, the study is a
                journal in a folder that workers do not see, or the file store is not writable.
        """
        options = request.options
        if options.files and request.uses_local_journal:
            raise InputError(
                "files must come with a storage that workers reach: the run's journal lies in its "
                "folder. Received: none. Give --storage."
            )
        if options.files:
            FileStore(options.files).check()
        self._owns_connection |= _connect(os.environ.get("RAY_ADDRESS") or AUTO)
        import ray

        nodes = [node for node in ray.nodes() if node["Alive"]]
        total = ray.cluster_resources()
        cpus = options.cpus_per_worker or request.threads or 1
        has_gpu = total.get("GPU", 0) >= 1 and request.device != "cpu"
        gpus_per_worker = (
            float(has_gpu) if options.gpus_per_worker is None else options.gpus_per_worker
        )
        capacity = sum(
            _count_fitting_workers(node["Resources"], cpus, gpus_per_worker) for node in nodes
        )
        if not capacity:
            resources = sorted({_format_resources(node["Resources"]) for node in nodes})
            raise InputError(
                "cpus_per_worker and gpus_per_worker must fit on a node of the cluster. Received: "
                f"{cpus} cores and {gpus_per_worker:g} GPUs, where the nodes have "
                f"{', '.join(resources) or 'nothing'}."
            )
        count = request.workers or min(capacity, request.max_jobs)
        location = f"a Ray cluster of {len(nodes)} node(s), {_format_resources(total)}"
        if count > capacity:
            location += f" ({count - capacity} workers wait until there is room)"
        # without a budget set by the user, workers may use all memory of their node
        memory = compute_memory_share(count) if get_current_budget().is_user_set else None
        return WorkerSpec(
            count,
            request.threads or cpus,
            location,
            gpus_per_worker=gpus_per_worker,
            cpus_per_worker=cpus,
            memory=memory,
        )

    def open_pool(self, settings: PoolSettings) -> RayPool:
        """Return the pool of workers; all are requested at once."""
        return RayPool(settings, self._disconnect)

    def _disconnect(self) -> None:
        import ray

        if self._owns_connection:
            self._owns_connection = False
            ray.shutdown()


ENGINE = RayEngine()


class RayPool(Pool):
    """Workers that Ray places on nodes; a worker lost with its node is requested again.

    Args:
        settings: See `Pool`.
        disconnect: Called when the pool closes, to disconnect from the cluster.
    """

    AHEAD = True

    def __init__(self, settings: PoolSettings, disconnect: Callable[[], None]) -> None:
        super().__init__(settings)
        self._disconnect = disconnect
        self._links: list[RayLink] = []
        self._actor_config: ActorConfig | None = None
        url = settings.request.options.files
        self._files = FileStore(url) if url else None
        self._published_teachers: dict[tuple[str, ...], list[str]] = {}
        self._refused_nodes: set[str] = set()
        self._has_worked = False
        self._last_report = time.monotonic()

    def __enter__(self) -> RayPool:
        import ray

        folder, workers = self._settings.folder, self._settings.workers
        with warnings.catch_warnings(action="ignore"):  # Ray warns about its next version
            data = {
                path.name: ray.put(np.memmap(path, np.uint8, "r"))
                for path in list_shared_files(folder.shared)
            }
        sharing = (
            max(1, math.floor(1 / workers.gpus_per_worker + 1e-9)) if workers.gpus_per_worker else 1
        )
        self._actor_config = ActorConfig(
            folder=str(folder.path.resolve()),
            plan_digest=hash_file(folder.plan_path),
            versions=collect_versions(),
            arguments=(
                "--device",
                self._settings.request.device if workers.gpus_per_worker else "cpu",
                *workers.arguments,
                "--sharers",
                str(sharing),
            ),
            module_paths=tuple(filter(None, (find_current_folder(), *sys.path))),
            fingerprint=str(read_json(folder.data)["fingerprint"]),
            data=data,
            progress_interval=max(
                1.0, workers.count / 50
            ),  # at most fifty progress messages per second, of all workers together
            files=self._settings.request.options.files,
            records=(folder.plan_path.read_bytes(), folder.data.read_bytes()),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        # `join` kills actors that do not end in time
        deadline = time.monotonic() + END_SECONDS
        for link in self._links:
            link.join(deadline - time.monotonic())
        self._disconnect()

    def _get_log_path(self, index: int) -> Path:
        return self._folder.path.resolve() / f"workers-{index}.log"

    def _open(self, index: int, on_message: OnMessage) -> Link:
        """Start a worker in a Ray actor with its share of CPUs and GPUs; Ray never restarts it."""
        import ray

        assert self._actor_config is not None, "the pool was entered"
        workers = self._settings.workers
        log = self._get_log_path(index)
        # no restarts by Ray: the slot starts a new worker, with a current job
        actor_class = ray.remote(RayHost).options(
            num_cpus=workers.cpus_per_worker,
            num_gpus=workers.gpus_per_worker,
            max_concurrency=4,
            max_restarts=0,
        )
        with warnings.catch_warnings(action="ignore"):  # Ray warns about its next version
            actor = actor_class.remote(self._actor_config, log)
        link = RayLink(actor, on_message, self._settings.environment, self._fetch_files, log)
        self._links.append(link)
        return link

    def _fetch_files(self, names: list[str]) -> None:
        assert self._files is not None, "a worker has put something there"
        fetch_files(self._folder, self._files, names)

    def _prepare_job(self, job: Job) -> Job:
        if self._files is None or "teachers" not in job:
            return job
        key = tuple(job["teachers"])
        if key not in self._published_teachers:
            self._published_teachers[key] = publish_files(self._folder, self._files, key)
        return {**job, "teachers": self._published_teachers[key]}

    def _on_event(self, slot: Slot, message: Job | None, handler: JobQueue) -> None:
        """Exclude a node that cannot run workers, delay restarts by 1 s, else act as `Pool`."""
        if message is not None and message["kind"] == REFUSED:
            self._refuse_node(slot, message["node"], message["reason"])
            return
        if message is not None and message["kind"] == messages.READY:
            self._has_worked = True
        elif message is None and not slot.has_started:
            # after a pause Ray knows that the node is gone, and places the next worker elsewhere
            slot.paused_until = time.monotonic() + 1
        super()._on_event(slot, message, handler)

    def _refuse_node(self, slot: Slot, node: str, reason: str) -> None:
        """Exclude an unsuitable node, or raise an error if no worker has worked yet.

        At the start of a run, the user can still fix the node.

        Raises:
            InputError: No worker has worked yet.
        """
        text = f"Node '{node}' cannot work for this run: {reason}."
        if not self._has_worked:
            raise InputError(text)
        if node not in self._refused_nodes:
            LOG.warning("%s It is left out until that is mended.", text)
            self._refused_nodes.add(node)
        self._end_worker(slot)
        slot.lost_starts = 0
        slot.paused_until = time.monotonic() + 30  # before it requests another node

    def _on_idle(self, handler: JobQueue) -> None:
        if any(slot.is_ready for slot in self._slots):
            self._last_report = time.monotonic()
        elif time.monotonic() > self._last_report + 60:
            self._last_report = time.monotonic()
            LOG.info("no worker runs: waiting for room on the cluster (see `ray status`)")
        for slot in self._slots:
            if slot.link is None:
                self._assign_job(slot, handler)


def _count_fitting_workers(resources: dict[str, float], cpus: int, gpus: float) -> int:
    capacity = math.floor(resources.get("CPU", 0) / cpus)
    if not gpus:
        return capacity
    # Ray never splits a worker's GPU share over several cards
    return min(capacity, math.floor(resources.get("GPU", 0)) * math.floor(1 / gpus + 1e-9))


def _format_resources(resources: dict[str, float]) -> str:
    gpus = resources.get("GPU", 0)
    return f"{resources.get('CPU', 0):g} cores" + (f" and {gpus:g} GPUs" if gpus else "")


def _connect(address: str) -> bool:
    """Connect to the cluster at an address, unless this process is connected already.

    Returns:
        Whether a new connection was made.

    Raises:
        InputError: The address does not respond.
    """
    # actors without a GPU must not see one; this also silences Ray's warning
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == LOCAL or address.startswith(("127.0.0.1", "localhost")):
        # otherwise Ray replaces it with the machine's network address and listens there; the
        # variable prevents this, and is meant for systems that warn about listening
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"include_dashboard": False}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        # Ray itself retries for minutes
        _check_address(address)
        with warnings.catch_warnings(action="ignore"):  # Ray warns about its next version
            ray.init(address, namespace="paretune", **options)
    except Exception as error:  # Ray raises many kinds of errors here
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray replaces it before it connects
        reason, address = hide_passwords(to_one_line(str(error), 200)), hide_passwords(address)
        status_command = "ray status" + ("" if address == AUTO else f" --address {address}")
        raise InputError(
            f"RAY_ADDRESS must be of a Ray cluster that runs. Received: '{address}' ({reason}). "
            f"Check it with: {status_command}. A cluster of this machine alone: RAY_ADDRESS=local."
        ) from None
    return True


def _check_address(address: str) -> None:
    """Check that a server listens at an address with host and port.

    Raises:
        OSError: No server listens there.
        ValueError: The port is no number.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname is not None and parts.port is not None:
        socket.create_connection((parts.hostname, parts.port), timeout=10).close()
