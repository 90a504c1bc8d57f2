"""A run's files where workers do not see its folder: through a folder or a store that all reach.

A worker has a folder of its own, laid out as the run's. What it needs of others it fetches when it
reads it; what it has made it puts there when a job is done, and the run's process fetches that.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from compress.core.atomic_files import write_new_bytes
from compress.core.errors import RunFailed
from search.study.directory import SearchFolder
from search.study.records import Candidate
from search.study.store import Files, is_whole

PUBLISHED = ("candidates", "final", "exports", "compressed", "shrunk")
"""Folders of a run whose files go on; what is in progress and what is measured stay on the node."""
GIVEN = "given"
"""Folder for files of the user's that workers need: teachers."""
RECORDS = "candidates"


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
        if path.exists() or not self._files.get(name, path):
            return
        state = _state(path)
        if state is not None:
            self._known[path] = state


def _state(path: Path) -> tuple[int, int] | None:
    """Returns what tells whether a file has changed; None: it is none that goes on."""
    if path.is_dir() or not is_whole(path.name):
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def receive(folder: SearchFolder, files: Files, names: Iterable[str]) -> None:
    """Fetches what a worker has made into the run's folder; records last, and each once."""
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
    """Puts files of the run's machine where workers reach them; returns their names there."""
    home, names = folder.path.resolve(), []
    for number, text in enumerate(paths):
        path = Path(text).resolve()
        inside = path.is_relative_to(home)
        # several may have one name
        name = str(path.relative_to(home)) if inside else f"{GIVEN}/{number}/{path.name}"
        files.put(path, name)
        names.append(name)
    return names
