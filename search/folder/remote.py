"""A run's files where workers do not see its folder: through a folder or a store that all reach.

A worker has a folder of its own, laid out as the run's. What it needs of others it fetches when it
reads it; what it has made it puts there when a job is done, and the run's process fetches that.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from compress.core.atomic_files import replacing, write_new_bytes
from compress.core.errors import InputError, one_line
from compress.core.patience import patiently
from compress.core.requirements import require_packages
from search.folder.directory import SearchFolder
from search.folder.records import Candidate

PUBLISHED = ("candidates", "final", "exports", "compressed", "shrunk")
"""Folders of a run whose files go on; what is in progress and what is measured stay on the node."""
GIVEN = "given"
"""Folder for files of the user's that workers need: teachers."""
RECORDS = "candidates"
T = TypeVar("T")


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
        """Writes a file and removes it.

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
        """Writes a file there, in one step."""

        def call() -> None:
            target = self._at(name)
            self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
            if "file" not in _protocols(self._system):
                self._system.put_file(str(file), target)  # stores show whole objects alone
                return
            part = f"{target}.{uuid.uuid4().hex}.part"
            try:
                self._system.put_file(str(file), part)
                Path(part).replace(target)
            finally:
                with suppress(FileNotFoundError):
                    Path(part).unlink()

        self._patiently(call)

    def read(self, name: str) -> bytes | None:
        """Returns a file's content; None where there is none."""

        def call() -> bytes | None:
            try:
                return bytes(self._system.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

        return self._patiently(call)

    def names(self, folder: str) -> list[str]:
        """Returns the names of a folder's files, sorted; none where there is none."""

        def call() -> list[str]:
            try:
                found = self._system.ls(self._at(folder), detail=False)
            except FileNotFoundError:
                return []
            return sorted(name for path in found if _is_whole(name := path.rpartition("/")[2]))

        return self._patiently(call)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _patiently(self, call: Callable[[], T]) -> T:
        return patiently(call, f"the files' place '{self.url}'", _is_passing)


def _is_whole(name: str) -> bool:
    return bool(name) and not name.startswith(".") and not name.endswith(".part")


def _is_passing(error: BaseException) -> bool:
    """Tells whether a store's error may pass: not what says that it never will."""
    lasting = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, ValueError)
    return isinstance(error, Exception) and not isinstance(error, lasting)


def _protocols(system: Any) -> tuple[str, ...]:
    named = system.protocol
    return (named,) if isinstance(named, str) else tuple(named)


def _unusable(url: str, error: Exception) -> InputError:
    return InputError(
        "files must be a place that files can be written to: a folder that all machines share, or "
        f"a store that fsspec opens (s3://bucket/path). Received: '{url}' "
        f"({one_line(f'{type(error).__name__}: {error}', 200)})."
    )


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
        self._known: dict[Path, tuple[int, int]] = {}

    def read_candidate(self, name: str) -> Candidate | None:
        """Returns a record, of whichever worker."""
        self._fetch(f"{RECORDS}/{name}.json")
        return super().read_candidate(name)

    def candidate_models(self) -> dict[str, Path]:
        """Returns the models of all candidates that have one; see `brought`."""
        names = self._files.names(RECORDS)
        return {
            name.removesuffix(".keras"): self.candidates / name
            for name in names
            if name.endswith(".keras")
        }

    def shipped_file(self, name: str) -> Path:
        """Returns the file that goes on, with what says how it was trained."""
        for folder in (self.candidates, self.final):
            for found in self._files.names(folder.name):
                if found.startswith((f"{name}.", f"{name}-final")):
                    self._fetch(f"{folder.name}/{found}")
        return super().shipped_file(name)

    def brought(self, path: Path) -> Path:
        """Returns a file of the run, fetched where this node does not have it."""
        inside = path if not path.is_absolute() else path.relative_to(self.path)
        self._fetch(str(inside))
        return self.path / inside

    def publish(self) -> tuple[str, ...]:
        """Puts what was written since the last call where all reach it; returns the names."""
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
        if path.exists():
            return
        content = self._files.read(name)
        if content is not None:
            with replacing(path) as part:
                part.write_bytes(content)
            state = _state(path)
            if state is not None:
                self._known[path] = state


def _state(path: Path) -> tuple[int, int] | None:
    """Returns what tells whether a file has changed; None: it is none that goes on."""
    if path.is_dir() or not _is_whole(path.name):
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def receive(folder: SearchFolder, files: Files, names: Iterable[str]) -> None:
    """Fetches what a worker has made into the run's folder; records last, and each once."""
    for name in sorted(names, key=lambda name: (name.endswith(".json"), name)):
        content = files.read(name)
        if content is None:
            raise InputError(f"'{name}' must be in '{files.url}': a worker has put it there.")
        path = folder.path / name
        if name.startswith(f"{RECORDS}/") and name.endswith(".json"):
            write_new_bytes(path, content)
        else:
            with replacing(path) as part:
                part.write_bytes(content)


def given(folder: SearchFolder, files: Files, paths: Iterable[str]) -> list[str]:
    """Puts files of the run's machine where workers reach them; returns their names there."""
    names = []
    for text in paths:
        path = Path(text)
        inside = path.resolve().is_relative_to(folder.path.resolve())
        name = (
            str(path.resolve().relative_to(folder.path.resolve()))
            if inside
            else f"{GIVEN}/{path.name}"
        )
        files.put(path, name)
        names.append(name)
    return names
