"""A node's end of the Ray engine: an actor that runs one worker process.

The actor itself imports no TensorFlow: it starts the same worker that the local engine starts, so
that forks, renewal and deaths work as on one machine, and hands its messages on.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import platform
import queue
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import compress
import search
from compress.core import linux
from compress.core.atomic_files import replacing, writable_folder
from compress.core.errors import InputError
from search.engines import messages
from search.engines.local import ProcessLink
from search.study.directory import SearchFolder

REFUSED = "refused"
"""Kind of message: this node cannot work for the run; "reason" says why."""
ENDED = "ended"
"""Kind of message: the worker process has ended; "how" says how."""


@dataclass(frozen=True)
class Brief:
    """The instructions of an actor.

    Attributes:
        folder: The run's, an absolute path.
        plan_digest: See `folder_problem`.
        versions: Of the run's machine.
        words: Options of `search.engines.worker`.
        modules: Folders in which the run's machine finds modules, for the user's own.
        fingerprint: Of the data.
        data: File -> reference into Ray's object store; empty: the worker loads for itself.
        pace: Seconds at least between two words of progress.
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
    pace: float
    files: str = ""
    records: tuple[bytes, bytes] = (b"", b"")


class RayHost:
    """One worker on whichever node Ray has placed this.

    Args:
        brief: What it shall run.
        log: Where what the worker prints goes.
    """

    def __init__(self, brief: Brief, log: Path) -> None:
        self._brief, self._log = brief, log
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._started: Future[ProcessLink] = Future()
        self._over, self._ending = threading.Event(), threading.Lock()
        self._places: list[NodePlace] = []
        self._progress_told = 0.0

    def begin(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Check this node and start the worker.

        Args:
            environment: Variables of the worker beside this process's. They may be secret: Ray
                keeps what actors are made with, but not what their methods are called with.

        Returns:
            "node": where it is; "problem": why it cannot work there, empty if it can.
        """
        problem = self._problem()
        if not problem:
            # a process ends with the thread that has started it: Ray's own come and go
            words = self._words()
            threading.Thread(target=self._run, args=(words, environment), daemon=True).start()
            error = self._started.exception()
            problem = f"a worker cannot start there ({error})" if error else ""
        return {"node": socket.gethostname(), "problem": problem}

    def _words(self) -> tuple[str, ...]:
        """Fetch the worker's data to this node, and return the worker's arguments."""
        words = (self._brief.folder, *self._brief.words)
        if self._brief.files:
            own = self._place(f"run-{uuid.uuid4().hex[:12]}")
            own.make(*self._brief.records)
            self._log = own.place / "workers.log"  # the run's folder is not seen from here
            theirs = ("--files", self._brief.files, "--known-as", self._brief.folder)
            words = (str(own.place), *self._brief.words, *theirs)
        if self._brief.data:
            data = self._place(self._brief.fingerprint[:24])
            import ray

            # nothing is fetched that is there already
            data.fill({name: partial(ray.get, item) for name, item in self._brief.data.items()})
            words = (*words, "--shared", str(data.place))
        return words

    def _place(self, name: str) -> NodePlace:
        self._places.append(NodePlace(name))
        return self._places[-1]

    def _problem(self) -> str:
        other = differing(self._brief.versions, versions())
        if other:
            return f"it has {other}; install what the run's own machine has"
        if self._brief.files:
            return ""
        folder = folder_problem(Path(self._brief.folder), self._brief.plan_digest)
        remedy = (
            "Put the output folder on a file system that all nodes mount at the same place, and "
            "that they may write to"
        )
        return f"the run's folder {folder}. {remedy}" if folder else ""

    def _run(self, words: tuple[str, ...], environment: Mapping[str, str]) -> None:
        try:
            own = {
                **environment,
                "CUDA_VISIBLE_DEVICES": _cards(),
                "PYTHONPATH": os.pathsep.join(_modules(self._brief.modules)),
            }
            with open(self._log, "a", encoding="utf-8") as log:
                self._started.set_result(ProcessLink(words, own, log, self._hear))
                self._over.wait()
        except Exception as error:  # `begin` waits, and tells of it
            self._started.set_exception(error)

    def _hear(self, message: dict[str, Any] | None) -> None:
        if message is None:
            how = self._started.result().how()
            self._said.put({"kind": ENDED, "how": how, "printed": self._printed()})
            return
        if message["kind"] == messages.PROGRESS:
            now = time.monotonic()
            if now - self._progress_told < self._brief.pace:
                return
            self._progress_told = now
        self._said.put(message)

    def _printed(self) -> str:
        """Return the end of the worker's log, where it is on this node alone."""
        if not self._brief.files:
            return ""
        return self._log.read_text("utf-8", "replace")[-10_000:] if self._log.exists() else ""

    def poll(self) -> list[dict[str, Any]]:
        """Return the worker's messages since the last call, in order; wait ten seconds for one."""
        found = []
        try:
            found.append(self._said.get(timeout=10))
            while True:
                found.append(self._said.get_nowait())
        except queue.Empty:
            return found

    def send(self, message: dict[str, Any]) -> None:
        """Send the worker a message."""
        self._started.result().send(message)

    def kill(self) -> None:
        """Kill the worker; its last messages can still be asked for."""
        self._started.result().kill()

    def end(self) -> None:
        """End the worker and give the data back, once; a second call waits for the first."""
        with self._ending:
            if self._over.is_set():
                return
            if self._started.done() and not self._started.exception():
                self._started.result().end()
            for place in self._places:
                place.release()
            self._over.set()


def _modules(theirs: Iterable[str]) -> list[str]:
    """Return where a worker finds modules: as this process, then as the run's own.

    Ray brings packages of its own for its processes, in versions that are not ours.
    """
    import ray

    home = str(Path(ray.__file__).parent)
    ours = [path for path in sys.path if path and not path.startswith(home)]
    return [*ours, *(path for path in theirs if path not in ours and Path(path).is_dir())]


def _cards() -> str:
    """Return the GPUs that Ray has given this actor, as `CUDA_VISIBLE_DEVICES` names them."""
    import ray

    given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return ",".join(given) if given else "-1"


@cache
def versions() -> dict[str, str]:
    """Return the versions that all machines of a run share, by name; nothing is imported."""
    digest = hashlib.sha256()
    for package in (compress, search):
        home = Path(package.__path__[0])
        for path in sorted(home.rglob("*.py")):
            digest.update(str(path.relative_to(home)).encode() + b"\0" + path.read_bytes())
    packages = {name: metadata.version(name) for name in SearchFolder.PACKAGES}
    python = ".".join(platform.python_version_tuple()[:2])
    code = {"paretune's code": digest.hexdigest()[:12]}
    return {"paretune": compress.__version__, "python": python, **packages, **code}


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Describe the versions that differ between a run's machine and a node; empty: none."""
    return ", ".join(
        f"{name} {theirs.get(name, 'none')} in place of {wanted}"
        for name, wanted in ours.items()
        if theirs.get(name) != wanted
    )


def digest_of(path: Path) -> str:
    """Return a hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def folder_problem(folder: Path, digest: str) -> str:
    """Explain why workers on this node cannot use a run's folder; empty: they can.

    Args:
        folder: The run's, as its own machine calls it.
        digest: `digest_of` its plan.json.
    """
    plan = SearchFolder(folder).plan_path
    try:
        if not plan.exists():
            return f"'{folder}' is not there"
        if digest_of(plan) != digest:
            return f"'{folder}' is another run's there"
        writable_folder(folder)
    except (OSError, InputError) as error:
        return f"'{folder}' cannot be read and written there ({error})"
    return ""


class NodePlace:
    """A folder of ours among a node's temporary files, gone with the last worker that holds it.

    Args:
        name: What it is called.
        home: Folder of temporary files; default: the system's.
    """

    def __init__(self, name: str, home: Path | None = None) -> None:
        user = "user"
        with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
            user = getpass.getuser()
        mine = f"paretune-{user}-"
        self._home = home or Path(tempfile.gettempdir())
        self.place = self._home / (mine + name)
        self._mine = mine
        self._hold: linux.Lock | None = None

    def make(self, plan: bytes, data: bytes) -> None:
        """Make the folder a worker's: laid out as the run's, which the node does not see."""
        with self._locked():
            self._sweep()
            folder = SearchFolder(self.place)
            for place in (folder.candidates, folder.final, folder.exports, folder.compressed):
                place.mkdir(parents=True)
            folder.plan_path.write_bytes(plan)
            folder.data.write_bytes(data)
            self._hold = linux.share(self._held_by(self.place))

    def fill(self, files: Mapping[str, Callable[[], npt.NDArray[np.uint8]]]) -> None:
        """Write the run's data into the folder, unless another worker of this node has.

        Args:
            files: Name -> what fetches its bytes. The last one says that all are there.
        """
        with self._locked():
            self._sweep()
            # what a killed writer left has no last file; all users share the folder above
            last = [*files][-1]
            if not ((self.place / last).is_file() and linux.is_own(self.place)):
                shutil.rmtree(self.place, ignore_errors=True)
                # fails where another user's folder stands in its place
                self.place.mkdir(mode=0o700)
                for name, fetch in files.items():
                    with replacing(self.place / name) as part:
                        fetch().tofile(part)
            self._hold = linux.share(self._held_by(self.place))

    def release(self) -> None:
        """Give the folder back; the last worker of the node removes it."""
        if self._hold is None:
            return
        self._hold.release()
        self._hold = None
        with self._locked():
            self._remove(self.place)

    def _sweep(self) -> None:
        """Remove folders that killed workers have left."""
        for place in self._home.glob(f"{self._mine}*"):
            if place.is_dir() and place != self.place:
                self._remove(place)

    def _remove(self, place: Path) -> None:
        if not linux.is_shared(self._held_by(place)):
            shutil.rmtree(place, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._held_by(place).unlink()

    @staticmethod
    def _held_by(place: Path) -> Path:
        return place.with_name(f"{place.name}.held")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        held = linux.lock(self._home / f"{self._mine}lock", wait=True)
        assert held is not None, "it was waited for"
        try:
            yield
        finally:
            held.release()
