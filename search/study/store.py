"""Files by name in a folder or an object store that all machines of a run reach."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from compress.core.atomic_files import replacing
from compress.core.errors import InputError, one_line
from compress.core.faults import patiently
from compress.core.requirements import require_packages

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
            if "file" in _protocols(self._system):
                with replacing(Path(target)) as part:
                    shutil.copyfile(file, part)
            else:  # stores show whole objects alone
                self._system.put_file(str(file), target)

        self._patiently(call)

    def get(self, name: str, file: Path) -> bool:
        """Fetches a file, in one step; returns whether it is there."""

        def call() -> bool:
            try:
                with replacing(file) as part:
                    self._system.get_file(self._at(name), str(part))
            except FileNotFoundError:
                return False
            return True

        return self._patiently(call)

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
            return sorted(name for path in found if is_whole(name := path.rpartition("/")[2]))

        return self._patiently(call)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _patiently(self, call: Callable[[], T]) -> T:
        return patiently(call, f"the files' place '{self.url}'", _is_passing)


def is_whole(name: str) -> bool:
    """Tells a file's name from one that is being written."""
    return bool(name) and not name.startswith(".")


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
