"""A run's files where workers do not see its folder: in a folder or a store that all reach.

A worker has a folder of its own, laid out as the run's. What it needs of others it fetches when it
reads it; what it has made it puts there when a job is done, and the run's process fetches that.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from compress.core.atomic_files import replacing, write_new_bytes
from compress.core.errors import InputError, RunFailed, one_line
from compress.core.faults import patiently
from compress.core.interpreter import require_packages
from search.study.directory import Candidate, SearchFolder

PUBLISHED = ("candidates", "final", "exports", "compressed", "shrunk")
"""Folders of a run whose files go on; what is in progress and what is measured stay on the node."""
GIVEN = "given"
"""Folder for files of the user's that workers need: teachers."""
RECORDS = "candidates"
LASTING = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, ValueError)
"""Errors of a store that never pass."""


class RemoteFolder(SearchFolder):
    """A worker's folder on its node; see the module.

    Args:
        path: On this node.
        files: What all reach.
        known_as: Where the run's folder lies on its own machine.
    """

    def __init__(self, path: str | Path, files: Files, known_as: Path) -> None:
        super().__init__(path)
        self.known_as = known_as
        self._files = files
        self._known: dict[Path, tuple[int, int] | None] = {}

    def read_candidate(self, name: str) -> Candidate | None:
        """Return a record, of whichever worker."""
        self._fetch(f"{RECORDS}/{name}.json")
        return super().read_candidate(name)

    def shipped_file(self, name: str) -> Path:
        """Return the file that goes on, with the record of its training."""
        for folder in (self.candidates, self.final):
            for found in self._files.names(folder.name):
                if found.startswith((f"{name}.", f"{name}-final")):
                    self._fetch(f"{folder.name}/{found}")
        return super().shipped_file(name)

    def brought(self, path: Path) -> Path:
        """Return a file of the run, fetched where this node does not have it."""
        inside = path if not path.is_absolute() else path.relative_to(self.path)
        self._fetch(str(inside))
        return self.path / inside

    def publish(self) -> tuple[str, ...]:
        """Put files written since the last call where all reach them, and return their names."""
        found = []
        for folder in PUBLISHED:
            for path in sorted((self.path / folder).rglob("*")):
                state = _state(path)
                if state is None or self._known.get(path) == state:
                    continue
                name = str(path.relative_to(self.path))
                self._files.put(path, name)
                self._known[path] = state
                found.append(name)
        return tuple(found)

    def _fetch(self, name: str) -> None:
        path = self.path / name
        if not path.exists() and self._files.get(name, path):
            self._known[path] = _state(path)


def _state(path: Path) -> tuple[int, int] | None:
    """Return a file's time of change and size; None: it is not passed on."""
    if path.is_dir() or not is_whole(path.name):
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def receive(folder: SearchFolder, files: Files, names: Iterable[str]) -> None:
    """Fetch a worker's files into the run's folder; records last, and each once."""
    for name in sorted(names, key=lambda name: (name.endswith(".json"), name)):
        path = folder.path / name
        if not (name.startswith(f"{RECORDS}/") and name.endswith(".json")):
            found = files.get(name, path)
        elif found := (content := files.read(name)) is not None:
            write_new_bytes(path, content)
        if not found:
            raise RunFailed(
                f"'{name}' was in '{files.url}', where a worker has put it, and is gone."
            )


def given(folder: SearchFolder, files: Files, paths: Iterable[str]) -> list[str]:
    """Put files of the run's machine where workers reach them, and return their names there."""
    home, names = folder.path.resolve(), []
    for number, text in enumerate(paths):
        path = Path(text).resolve()
        inside = path.is_relative_to(home)
        # several may have one name
        name = str(path.relative_to(home)) if inside else f"{GIVEN}/{number}/{path.name}"
        files.put(path, name)
        names.append(name)
    return names


class Files:
    """Files by name at a URL.

    Args:
        url: As fsspec takes it: `s3://bucket/path`, `gs://...`, a path.

    Raises:
        MissingDependency: fsspec is not installed.
        InputError: No file can be written there.
    """

    def __init__(self, url: str) -> None:
        require_packages(("fsspec",), "files")
        import fsspec

        self.url = url
        try:
            self._system, self._root = fsspec.url_to_fs(url)
        except Exception as error:  # of whichever package it needs
            raise _unusable(url, error) from None

    def check(self) -> None:
        """Write a file and remove it, to check that the place can be written to.

        Raises:
            InputError: That is not possible.
        """
        name = self._at(f".paretune-{uuid.uuid4().hex}")
        try:
            self._system.makedirs(self._root, exist_ok=True)
            self._system.pipe_file(name, b"")
            self._system.rm_file(name)
        except Exception as error:  # of stores of many kinds
            raise _unusable(self.url, error) from None

    def put(self, file: Path, name: str) -> None:
        """Write a file there, in one step."""

        def call() -> None:
            target = self._at(name)
            named = self._system.protocol
            if "file" in ((named,) if isinstance(named, str) else named):
                with replacing(Path(target)) as part:
                    shutil.copyfile(file, part)
            else:  # stores show whole objects alone
                self._system.put_file(str(file), target)

        self._patiently(call)

    def get(self, name: str, file: Path) -> bool:
        """Fetch a file, in one step, and return whether it is there."""
        with suppress(FileNotFoundError), replacing(file) as part:
            self._patiently(self._system.get_file, self._at(name), str(part))
            return True
        return False

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where there is none."""
        with suppress(FileNotFoundError):
            return bytes(self._patiently(self._system.cat_file, self._at(name)))
        return None

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's files, sorted; none where there is none."""
        with suppress(FileNotFoundError):
            found = self._patiently(self._system.ls, self._at(folder), detail=False)
            return sorted(name for path in found if is_whole(name := path.rpartition("/")[2]))
        return []

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _patiently(self, call: Callable[..., Any], *words: Any, **more: Any) -> Any:
        place = f"the files' place '{self.url}'"
        return patiently(
            partial(call, *words, **more), place, lambda error: not isinstance(error, LASTING)
        )


def is_whole(name: str) -> bool:
    """Tell whether a name is that of a whole file, not of one that is being written."""
    return bool(name) and not name.startswith(".")


def _unusable(url: str, error: Exception) -> InputError:
    return InputError(
        "files must be a place that files can be written to: a folder that all machines share, or "
        f"a store that fsspec opens (s3://bucket/path). Received: '{url}' "
        f"({one_line(f'{type(error).__name__}: {error}', 200)})."
    )
