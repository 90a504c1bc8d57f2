"""A node's end of the Ray engine: an actor that runs one worker process.

The actor itself imports no TensorFlow: it starts the same worker that the local engine starts, so
that forks, renewal and deaths work as on one machine, and hands its messages on.
"""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.engines import messages
from search.engines.local import ProcessLink
from search.engines.ray import node

REFUSED = "refused"
"""Kind of message: this node cannot work for the run; "reason" says why."""
ENDED = "ended"
"""Kind of message: the worker process has ended; "how" says how."""
POLL_SECONDS = 10.0
"""How long a call waits for a message, before the next call waits for it."""
PRINTED = 10_000
"""Characters of a dead worker's log that are sent to the run's machine."""


@dataclass(frozen=True)
class Brief:
    """What an actor is told.

    Attributes:
        folder: The run's, an absolute path.
        plan_digest: See `search.engines.ray.node.folder_problem`.
        versions: Of the run's machine.
        words: Options of `search.engines.worker`.
        modules: Folders in which the run's machine finds modules, for the user's own.
        fingerprint: Of the data.
        data: File -> reference into Ray's object store; empty: the worker loads for itself.
        log: Where what the worker prints goes.
        pace: Seconds between two words of progress: all workers share one listener.
        files: Where files go if nodes do not see the folder; "": they do.
        records: Content of plan.json and data.json, for such nodes.
    """

    folder: str
    plan_digest: str
    versions: Mapping[str, str]
    words: tuple[str, ...]
    modules: tuple[str, ...]
    fingerprint: str
    data: Mapping[str, Any]
    log: str
    pace: float
    files: str = ""
    records: tuple[bytes, bytes] = (b"", b"")


class RayHost:
    """One worker on whichever node Ray has placed this.

    Args:
        brief: What it shall run.
    """

    def __init__(self, brief: Brief) -> None:
        self._brief = brief
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._link: ProcessLink | None = None
        self._begun, self._over = threading.Event(), threading.Event()
        self._places: list[node.NodePlace] = []
        self._progress_told = 0.0
        self._failed: Exception | None = None

    def begin(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Checks this node and starts the worker.

        Args:
            environment: Variables of the worker beside this process's. They may be secret: Ray
                keeps what actors are made with, but not what their methods are called with.

        Returns:
            "node": where it is; "problem": why it cannot work there, empty if it can.
        """
        answer = {"node": socket.gethostname(), "problem": self._problem()}
        if answer["problem"]:
            return answer
        words = (self._brief.folder, *self._brief.words)
        if self._brief.files:
            own = self._place(f"run-{uuid.uuid4().hex[:12]}")
            own.make(*self._brief.records)
            theirs = ("--files", self._brief.files, "--known-as", self._brief.folder)
            words = (str(own.place), *self._brief.words, *theirs)
        if self._brief.data:
            data = self._place(self._brief.fingerprint[:24])
            data.fill({name: _fetching(item) for name, item in self._brief.data.items()})
            words = (*words, "--shared", str(data.place))
        # a process ends with the thread that has started it: Ray's own come and go
        threading.Thread(target=self._run, args=(words, environment), daemon=True).start()
        self._begun.wait()
        if self._failed is not None:
            answer["problem"] = f"a worker cannot start there ({self._failed})"
        return answer

    def _place(self, name: str) -> node.NodePlace:
        self._places.append(node.NodePlace(name))
        return self._places[-1]

    def _problem(self) -> str:
        other = node.differing(self._brief.versions, node.versions())
        if other:
            return f"it has {other}; install what the run's own machine has"
        if self._brief.files:
            return ""
        folder = node.folder_problem(Path(self._brief.folder), self._brief.plan_digest)
        return f"the run's folder {folder}. {node.REMEDY_FOLDER}" if folder else ""

    def _run(self, words: tuple[str, ...], environment: Mapping[str, str]) -> None:
        try:
            own = {
                **environment,
                "CUDA_VISIBLE_DEVICES": _cards(),
                "PYTHONPATH": os.pathsep.join(_modules(self._brief.modules)),
            }
            with open(self._log, "a", encoding="utf-8") as log:
                self._link = ProcessLink(words, own, log, self._hear)
                self._begun.set()
                self._over.wait()
        except Exception as error:  # `begin` waits, and tells of it
            self._failed = error
            self._begun.set()

    @property
    def _log(self) -> Path:
        """Where what the worker prints goes: in the run's folder, if it is seen from here."""
        if self._brief.files:
            return self._places[0].place / "workers.log"
        return Path(self._brief.log)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is None:
            self._begun.wait()
            assert self._link is not None, "it was made"
            self._said.put({"kind": ENDED, "how": self._link.how(), "printed": self._printed()})
            return
        if message["kind"] == messages.PROGRESS:
            now = time.monotonic()
            if now - self._progress_told < self._brief.pace:
                return
            self._progress_told = now
        self._said.put(message)

    def _printed(self) -> str:
        """Returns the end of what the worker printed, where its log is on this node alone."""
        if not self._brief.files:
            return ""
        return self._log.read_text("utf-8", "replace")[-PRINTED:] if self._log.exists() else ""

    def poll(self) -> list[dict[str, Any]]:
        """Returns what the worker has said since the last call, in order; waits for it a while."""
        found = []
        try:
            found.append(self._said.get(timeout=POLL_SECONDS))
            while True:
                found.append(self._said.get_nowait())
        except queue.Empty:
            return found

    def send(self, message: dict[str, Any]) -> None:
        """Sends the worker a message."""
        if self._link is not None:
            self._link.send(message)

    def kill(self) -> None:
        """Kills the worker; what it says last can still be asked for."""
        if self._link is not None:
            self._link.kill()

    def end(self) -> None:
        """Ends the worker and gives the data back."""
        if self._link is not None:
            self._link.end()
        for place in self._places:
            place.release()
        self._over.set()


def _fetching(reference: Any) -> Any:
    """Returns what gets an object of the store: nothing is fetched that is there already."""
    import ray

    return lambda: ray.get(reference)


def _modules(theirs: Iterable[str]) -> list[str]:
    """Returns where a worker finds modules: as this process, then as the run's own.

    Ray brings packages of its own for its processes, in versions that are not ours.
    """
    import ray

    home = str(Path(ray.__file__).parent)
    ours = [path for path in sys.path if path and not path.startswith(home)]
    return [*ours, *(path for path in theirs if path not in ours and Path(path).is_dir())]


def _cards() -> str:
    """Returns the GPUs that Ray has given this actor, as `CUDA_VISIBLE_DEVICES` names them."""
    import ray

    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return ",".join(given) if given else "-1"
