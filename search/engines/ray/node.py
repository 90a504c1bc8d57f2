"""What a node of a cluster must have before it works for a run: versions, the folder, the data."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compress import __version__
from compress.core import linux
from compress.core.atomic_files import replacing, writable_folder
from compress.core.errors import InputError
from compress.core.linux import Lock
from search.study.directory import SearchFolder

REMEDY_FOLDER = (
    "Put the output folder on a file system that all nodes mount at the same place, and that they "
    "may write to"
)


@cache
def versions() -> dict[str, str]:
    """Returns what must be the same wherever a run computes, by name; nothing is imported."""
    import compress
    import search

    digest = hashlib.sha256()
    for package in (compress, search):
        home = Path(package.__path__[0])
        for path in sorted(home.rglob("*.py")):
            digest.update(str(path.relative_to(home)).encode() + b"\0" + path.read_bytes())
    packages = {name: metadata.version(name) for name in SearchFolder.PACKAGES}
    python = ".".join(platform.python_version_tuple()[:2])
    code = {"paretune's code": digest.hexdigest()[:12]}
    return {"paretune": __version__, "python": python, **packages, **code}


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    """Says what differs between a run's machine and a node; empty: nothing."""
    return ", ".join(
        f"{name} {theirs.get(name, 'none')} in place of {wanted}"
        for name, wanted in ours.items()
        if theirs.get(name) != wanted
    )


def digest_of(path: Path) -> str:
    """Returns a hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def folder_problem(folder: Path, digest: str) -> str:
    """Says why workers here cannot use a run's folder; empty: they can.

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
        mine = f"paretune-{_user()}-"
        self._home = home or Path(tempfile.gettempdir())
        self.place = self._home / (mine + name)
        self._mine = mine
        self._hold: Lock | None = None

    def make(self, plan: bytes, data: bytes) -> None:
        """Makes it a worker's folder: laid out as the run's, which it does not see."""
        with self._locked():
            self._sweep()
            folder = SearchFolder(self.place)
            for place in (folder.candidates, folder.final, folder.exports, folder.compressed):
                place.mkdir(parents=True)
            folder.plan_path.write_bytes(plan)
            folder.data.write_bytes(data)
            self._hold = linux.share(self._held_by(self.place))

    def fill(self, files: Mapping[str, Callable[[], npt.NDArray[np.uint8]]]) -> None:
        """Writes the run's data there, unless another worker of this node has.

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
        """Gives it back; the last worker of the node removes it."""
        if self._hold is None:
            return
        self._hold.release()
        self._hold = None
        with self._locked():
            self._remove(self.place)

    def _sweep(self) -> None:
        """Removes what workers that were killed have left of other data."""
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


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "user"
