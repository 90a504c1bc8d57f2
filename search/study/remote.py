"""The files of a run whose workers do not see its folder, in a shared folder or object store.

A worker has its own folder with the layout of the run's folder. It fetches files of other workers
when it reads them. When a job is done, it publishes its new files, and the run's process fetches
them.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from compress.core.atomic_files import replace_file, write_new_bytes
from compress.core.errors import InputError, RunFailed, to_one_line
from compress.core.faults import retry_call
from compress.core.module_loading import require_packages
from search.study.directory import Candidate, SearchFolder

PUBLISHED_FOLDERS = ("candidates", "final", "exports", "compressed", "shrunk")
"""Subfolders whose files are published; unfinished files and measurements stay on the node."""
GIVEN_FOLDER = "given"
"""Folder for the user's files that workers need, such as teachers."""
RECORDS_FOLDER = "candidates"
PERMANENT_ERRORS = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, ValueError)
"""Errors of a store that are not retried."""


class RemoteFolder(SearchFolder):
    """A worker's folder on its node; see the module.

    Args:
        path: The folder on this node.
        files: The file store that all machines reach.
        origin_path: The run's folder on its own machine.
    """

    def __init__(self, path: str | Path, files: FileStore, origin_path: Path) -> None:
        super().__init__(path)
        self.origin_path = origin_path
        self._files = files
        self._published: dict[Path, tuple[int, int] | None] = {}

    def read_candidate(self, name: str) -> Candidate | None:
        """Return the record of a candidate of any worker."""
        self._fetch(f"{RECORDS_FOLDER}/{name}.json")
        return super().read_candidate(name)

    def get_shipped_path(self, name: str) -> Path:
        """Return the path of the final `.keras` file, after fetching all files of the model."""
        for folder in (self.candidates, self.final):
            for file_name in self._files.list_names(folder.name):
                if file_name.startswith((f"{name}.", f"{name}-final")):
                    self._fetch(f"{folder.name}/{file_name}")
        return super().get_shipped_path(name)

    def fetch_file(self, path: Path) -> Path:
        """Return the local path of a file of the run, fetching it if this node does not have it."""
        relative = path if not path.is_absolute() else path.relative_to(self.path)
        self._fetch(str(relative))
        return self.path / relative

    def publish(self) -> tuple[str, ...]:
        """Publish the files that are new or changed since the last call; return their names."""
        names = []
        for folder in PUBLISHED_FOLDERS:
            for path in sorted((self.path / folder).rglob("*")):
                state = _read_state(path)
                if state is None or self._published.get(path) == state:
                    continue
                name = str(path.relative_to(self.path))
                self._files.put(path, name)
                self._published[path] = state
                names.append(name)
        return tuple(names)

    def _fetch(self, name: str) -> None:
        path = self.path / name
        if not path.exists() and self._files.get(name, path):
            self._published[path] = _read_state(path)


def _read_state(path: Path) -> tuple[int, int] | None:
    """Return a file's modification time in nanoseconds and size; None: it is not published."""
    if path.is_dir() or not is_complete_name(path.name):
        return None
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def fetch_files(folder: SearchFolder, files: FileStore, names: Iterable[str]) -> None:
    """Fetch a worker's files into the run's folder, records last.

    The record of a candidate is kept if it exists; other files are overwritten.

    Args:
        folder: The folder of the run.
        files: The file store.
        names: Names of the files, relative to the folder.

    Raises:
        RunFailed: A file is no longer in the store.
    """
    for name in sorted(names, key=lambda name: (name.endswith(".json"), name)):
        path = folder.path / name
        if not (name.startswith(f"{RECORDS_FOLDER}/") and name.endswith(".json")):
            is_fetched = files.get(name, path)
        elif is_fetched := (content := files.read(name)) is not None:
            write_new_bytes(path, content)
        if not is_fetched:
            raise RunFailed(
                f"'{name}' was in '{files.url}', where a worker has put it, and is gone."
            )


def publish_files(folder: SearchFolder, files: FileStore, paths: Iterable[str]) -> list[str]:
    """Publish files of the run's machine for the workers, and return their names in the store.

    Args:
        folder: The folder of the run.
        files: The file store.
        paths: Paths of the files, inside or outside the folder.
    """
    home, names = folder.path.resolve(), []
    for number, text in enumerate(paths):
        path = Path(text).resolve()
        is_inside = path.is_relative_to(home)
        # several files may have the same name
        name = str(path.relative_to(home)) if is_inside else f"{GIVEN_FOLDER}/{number}/{path.name}"
        files.put(path, name)
        names.append(name)
    return names


class FileStore:
    """Files by name at a URL.

    Args:
        url: A URL for fsspec: `s3://bucket/path`, `gs://...`, or a path.

    Raises:
        MissingDependency: fsspec is not installed.
        InputError: The store cannot be opened.
    """

    def __init__(self, url: str) -> None:
        require_packages(("fsspec",), "files")
        import fsspec

        self.url = url
        try:
            self._system, self._root = fsspec.url_to_fs(url)
        except Exception as error:  # from the package of the store
            raise _build_store_error(url, error) from None

    def check(self) -> None:
        """Check that the store is writable, by writing and removing a file.

        Raises:
            InputError: The store is not writable.
        """
        name = self._resolve_path(f".paretune-{uuid.uuid4().hex}")
        try:
            self._system.makedirs(self._root, exist_ok=True)
            self._system.pipe_file(name, b"")
            self._system.rm_file(name)
        except Exception as error:  # each store has its own errors
            raise _build_store_error(self.url, error) from None

    def put(self, file: Path, name: str) -> None:
        """Write a file to the store atomically.

        Args:
            file: The local file.
            name: Name in the store.
        """

        def write() -> None:
            target = self._resolve_path(name)
            protocols = self._system.protocol
            if "file" in ((protocols,) if isinstance(protocols, str) else protocols):
                with replace_file(Path(target)) as part:
                    shutil.copyfile(file, part)
            else:  # object stores only show complete objects
                self._system.put_file(str(file), target)

        self._retry(write)

    def get(self, name: str, file: Path) -> bool:
        """Fetch a file atomically, and return whether it exists.

        Args:
            name: Name in the store.
            file: Destination of the local copy.
        """
        with suppress(FileNotFoundError), replace_file(file) as part:
            self._retry(self._system.get_file, self._resolve_path(name), str(part))
            return True
        return False

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if the file does not exist."""
        with suppress(FileNotFoundError):
            return bytes(self._retry(self._system.cat_file, self._resolve_path(name)))
        return None

    def list_names(self, folder: str) -> list[str]:
        """Return the sorted names of a folder's files; empty if the folder does not exist."""
        with suppress(FileNotFoundError):
            paths = self._retry(self._system.ls, self._resolve_path(folder), detail=False)
            return sorted(
                name for path in paths if is_complete_name(name := path.rpartition("/")[2])
            )
        return []

    def _resolve_path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _retry(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        description = f"the files' place '{self.url}'"
        return retry_call(
            partial(call, *args, **kwargs),
            description,
            lambda error: not isinstance(error, PERMANENT_ERRORS),
        )


def is_complete_name(name: str) -> bool:
    """Return whether a name is that of a complete file rather than one being written."""
    return bool(name) and not name.startswith(".")


def _build_store_error(url: str, error: Exception) -> InputError:
    return InputError(
        "files must be a place that files can be written to: a folder that all machines share, or "
        f"a store that fsspec opens (s3://bucket/path). Received: '{url}' "
        f"({to_one_line(f'{type(error).__name__}: {error}', 200)})."
    )
