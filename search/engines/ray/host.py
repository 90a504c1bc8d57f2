"""The actor on a node of the Ray engine, which runs one worker process.

The actor itself imports no TensorFlow. It starts the same worker as the local engine, so that
forks, renewal and deaths work as on one machine, and forwards its messages.
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
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import compress
import search
from compress.core import linux
from compress.core.atomic_files import ensure_writable_folder, replace_file
from compress.core.errors import InputError
from search.engines import messages
from search.engines.local import ProcessLink
from search.study.directory import SearchFolder

REFUSED = "refused"
"""Kind of message: this node cannot run workers; "reason" holds the reason."""
ENDED = "ended"
"""Kind of message: the worker process has ended; "how" holds its exit code or signal."""


@dataclass(frozen=True)
class ActorConfig:
    """The configuration of an actor.

    Attributes:
        folder: The run's folder, an absolute path.
        plan_digest: See `find_folder_problem`.
        versions: Result of `collect_versions` on the run's machine.
        arguments: Options of `search.engines.worker`.
        module_paths: Module search path of the run's machine, for user-defined modules.
        fingerprint: Fingerprint of the data.
        data: File name -> reference into Ray's object store; empty: the worker loads the data.
        progress_interval: Minimum seconds between two progress messages.
        files: URL of the file store, if nodes do not see the folder; "": they see it.
        records: Contents of plan.json and data.json, for nodes that do not see the folder.
    """

    folder: str
    plan_digest: str
    versions: Mapping[str, str]
    arguments: tuple[str, ...]
    module_paths: tuple[str, ...]
    fingerprint: str
    data: Mapping[str, Any]
    progress_interval: float
    files: str = ""
    records: tuple[bytes, bytes] = (b"", b"")


class RayHost:
    """An actor with one worker, on the node that Ray has chosen.

    Args:
        config: The configuration of the worker.
        log: File for the worker's output.
    """

    def __init__(self, config: ActorConfig, log: Path) -> None:
        self._config, self._log = config, log
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._started: Future[ProcessLink] = Future()
        self._end_event, self._end_lock = threading.Event(), threading.Lock()
        self._folders: list[NodeFolder] = []
        self._last_progress = 0.0

    def begin(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Check this node and start the worker.

        Args:
            environment: Additional environment variables of the worker. They may be secret: Ray
                stores the constructor arguments of actors, but not the arguments of their methods.

        Returns:
            "node": the host name; "problem": the reason for which it cannot run a worker, empty if
            it can.
        """
        problem = self._find_problem()
        if not problem:
            # a worker ends with the thread that started it, and Ray's threads are short-lived
            arguments = self._build_arguments()
            threading.Thread(
                target=self._run_worker, args=(arguments, environment), daemon=True
            ).start()
            error = self._started.exception()
            problem = f"a worker cannot start there ({error})" if error else ""
        return {"node": socket.gethostname(), "problem": problem}

    def _build_arguments(self) -> tuple[str, ...]:
        """Fetch the worker's data to this node, and return the worker's arguments."""
        arguments = (self._config.folder, *self._config.arguments)
        if self._config.files:
            worker_folder = self._add_folder(f"run-{uuid.uuid4().hex[:12]}")
            worker_folder.create(*self._config.records)
            # this node does not see the run's folder
            self._log = worker_folder.path / "workers.log"
            remote_options = ("--files", self._config.files, "--known-as", self._config.folder)
            arguments = (str(worker_folder.path), *self._config.arguments, *remote_options)
        if self._config.data:
            data = self._add_folder(self._config.fingerprint[:24])
            import ray

            # `fill` fetches nothing that exists on this node
            data.fill({name: partial(ray.get, item) for name, item in self._config.data.items()})
            arguments = (*arguments, "--shared", str(data.path))
        return arguments

    def _add_folder(self, name: str) -> NodeFolder:
        self._folders.append(NodeFolder(name))
        return self._folders[-1]

    def _find_problem(self) -> str:
        """Return why this node cannot run a worker (versions, the run's folder), "" if it can."""
        differences = describe_differences(self._config.versions, collect_versions())
        if differences:
            return f"it has {differences}; install what the run's own machine has"
        if self._config.files:
            return ""
        folder_text = find_folder_problem(Path(self._config.folder), self._config.plan_digest)
        remedy = (
            "Put the output folder on a file system that all nodes mount at the same place, and "
            "that they may write to"
        )
        return f"the run's folder {folder_text}. {remedy}" if folder_text else ""

    def _run_worker(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        """Start the worker and stay alive until its end, because it ends with this thread."""
        try:
            variables = {
                **environment,
                "CUDA_VISIBLE_DEVICES": _list_gpus(),
                "PYTHONPATH": os.pathsep.join(_list_module_paths(self._config.module_paths)),
            }
            with open(self._log, "a", encoding="utf-8") as log:
                self._started.set_result(ProcessLink(arguments, variables, log, self._on_message))
                self._end_event.wait()
        except Exception as error:  # `begin` waits for it and reports it
            self._started.set_exception(error)

    def _on_message(self, message: dict[str, Any] | None) -> None:
        """Queue a worker's message (None: it exited) for `poll`, without too frequent progress."""
        if message is None:
            cause = self._started.result().describe_exit()
            self._messages.put({"kind": ENDED, "how": cause, "printed": self._read_log()})
            return
        if message["kind"] == messages.PROGRESS:
            now = time.monotonic()
            if now - self._last_progress < self._config.progress_interval:
                return
            self._last_progress = now
        self._messages.put(message)

    def _read_log(self) -> str:
        """Return the end of the worker's log if it only exists on this node, else ""."""
        if not self._config.files:
            return ""
        return self._log.read_text("utf-8", "replace")[-10_000:] if self._log.exists() else ""

    def poll(self) -> list[dict[str, Any]]:
        """Return the worker's messages since the last call, after ten seconds at most."""
        new_messages = []
        try:
            new_messages.append(self._messages.get(timeout=10))
            while True:
                new_messages.append(self._messages.get_nowait())
        except queue.Empty:
            return new_messages

    def send(self, message: dict[str, Any]) -> None:
        """Send the worker a message."""
        self._started.result().send(message)

    def kill(self) -> None:
        """Kill the worker; its last messages can still be polled."""
        self._started.result().kill()

    def end(self) -> None:
        """End the worker and release the node's folders.

        A second call waits for the first and does nothing.
        """
        with self._end_lock:
            if self._end_event.is_set():
                return
            if self._started.done() and not self._started.exception():
                self._started.result().end()
            for folder in self._folders:
                folder.release()
            self._end_event.set()


def _list_module_paths(run_paths: Iterable[str]) -> list[str]:
    """Return a worker's module search path: the paths of this process, then those of the run.

    Ray's own folders are left out, because they contain packages in other versions.
    """
    import ray

    ray_folder = str(Path(ray.__file__).parent)
    node_paths = [path for path in sys.path if path and not path.startswith(ray_folder)]
    return [
        *node_paths,
        *(path for path in run_paths if path not in node_paths and Path(path).is_dir()),
    ]


def _list_gpus() -> str:
    """Return the GPUs that Ray has assigned to this actor, as `CUDA_VISIBLE_DEVICES`."""
    import ray

    gpu_ids = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return ",".join(gpu_ids) if gpu_ids else "-1"


@cache
def collect_versions() -> dict[str, str]:
    """Return the versions that must agree on all machines of a run, without importing packages."""
    digest = hashlib.sha256()
    for package in (compress, search):
        package_folder = Path(package.__path__[0])
        for path in sorted(package_folder.rglob("*.py")):
            digest.update(
                str(path.relative_to(package_folder)).encode() + b"\0" + path.read_bytes()
            )
    packages = {name: metadata.version(name) for name in SearchFolder.PACKAGES}
    python = ".".join(platform.python_version_tuple()[:2])
    code = {"paretune's code": digest.hexdigest()[:12]}
    return {"paretune": compress.__version__, "python": python, **packages, **code}


def describe_differences(expected: Mapping[str, str], installed: Mapping[str, str]) -> str:
    """Return a description of the versions that differ on a node; empty: none.

    Args:
        expected: Versions of the run's machine, by name.
        installed: Versions of the node, by name.
    """
    return ", ".join(
        f"{name} {installed.get(name, 'none')} in place of {version}"
        for name, version in expected.items()
        if installed.get(name) != version
    )


def hash_file(path: Path) -> str:
    """Return a hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_folder_problem(folder: Path, digest: str) -> str:
    """Return the reason for which this node cannot use a run's folder; empty: it can.

    Args:
        folder: The run's folder, as an absolute path of its own machine.
        digest: Result of `hash_file` for its plan.json.
    """
    plan = SearchFolder(folder).plan_path
    try:
        if not plan.exists():
            return f"'{folder}' is not there"
        if hash_file(plan) != digest:
            return f"'{folder}' is another run's there"
        ensure_writable_folder(folder)
    except (OSError, InputError) as error:
        return f"'{folder}' cannot be read and written there ({error})"
    return ""


class NodeFolder:
    """A folder among a node's temporary files, which the last worker that uses it removes.

    Args:
        name: Name of the folder, without the prefix.
        home: Folder of temporary files; default: the system's.
    """

    def __init__(self, name: str, home: Path | None = None) -> None:
        user = "user"
        with contextlib.suppress(OSError, KeyError):  # users in containers may have no name
            user = getpass.getuser()
        prefix = f"paretune-{user}-"
        self._home = home or Path(tempfile.gettempdir())
        self.path = self._home / (prefix + name)
        self._prefix = prefix
        self._shared_lock: IO[str] | None = None

    def create(self, plan: bytes, data: bytes) -> None:
        """Create a worker's folder, with the layout of the run's folder that the node does not see.

        Args:
            plan: Content of plan.json.
            data: Content of data.json.
        """
        with self._hold_lock():
            self._remove_unused()
            folder = SearchFolder(self.path)
            for subfolder in (folder.candidates, folder.final, folder.exports, folder.compressed):
                subfolder.mkdir(parents=True)
            folder.plan_path.write_bytes(plan)
            folder.data.write_bytes(data)
            self._shared_lock = linux.lock_file(self._get_lock_path(self.path), is_shared=True)

    def fill(self, files: Mapping[str, Callable[[], npt.NDArray[np.uint8]]]) -> None:
        """Write the run's data into the folder, unless another worker of this node has.

        Args:
            files: File name -> function that returns its bytes. The last file marks the folder as
                complete.
        """
        with self._hold_lock():
            self._remove_unused()
            # the last file is missing if a writer was killed; other users may create folders of
            # this name, because the parent folder is shared
            last = [*files][-1]
            if not ((self.path / last).is_file() and linux.is_owned_by_user(self.path)):
                shutil.rmtree(self.path, ignore_errors=True)
                # fails if another user owns a folder of this name
                self.path.mkdir(mode=0o700)
                for name, fetch in files.items():
                    with replace_file(self.path / name) as part:
                        fetch().tofile(part)
            self._shared_lock = linux.lock_file(self._get_lock_path(self.path), is_shared=True)

    def release(self) -> None:
        """Release the folder; the last worker of the node removes it."""
        if self._shared_lock is None:
            return
        self._shared_lock.close()
        self._shared_lock = None
        with self._hold_lock():
            self._remove(self.path)

    def _remove_unused(self) -> None:
        """Remove other folders that killed workers have left."""
        for path in self._home.glob(f"{self._prefix}*"):
            if path.is_dir() and path != self.path:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        if not linux.is_locked(self._get_lock_path(path)):
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._get_lock_path(path).unlink()

    @staticmethod
    def _get_lock_path(path: Path) -> Path:
        return path.with_name(f"{path.name}.held")

    def _hold_lock(self) -> IO[str]:
        return linux.lock_file(self._home / f"{self._prefix}lock")
