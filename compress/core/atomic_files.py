"""Files that appear whole or not at all, and the checks of a folder we write to."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from compress.core.errors import InputError

_REMEDY = "Choose another output folder."
_UNFINISHED = re.compile(r"\..+-[a-z0-9_]{8}\.part(\.[^.]+)?")
"""What `replacing` calls a file that is being written."""
LARGEST = 2**27
"""Bytes of a plan or a record."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success the file there takes its place.

    The temporary name keeps the suffix, since Keras chooses a format by it. On an
    exception the temporary file is removed and what stood at `path` stays as it was.

    Args:
        path: Where the finished file shall be.

    Yields:
        The path to write to, in the same folder (a rename there is atomic).
    """
    with _beside(path) as temporary:
        yield temporary
        _readable(temporary)
        temporary.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, and remove what is left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}-", suffix=f".part{path.suffix}"
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _readable(temporary: Path) -> None:
    """Make a file as readable as any of its user; mkstemp makes private ones."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def whole_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder that end in `suffix`, sorted; no temporary ones.

    A writer that is killed leaves its temporary file behind, and `glob` finds hidden files too.
    """
    return sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))


def remove_unfinished(folder: Path) -> int:
    """Remove what killed writers left in a folder and those below it.

    Args:
        folder: One that nobody writes to.

    Returns:
        How many files it were.
    """
    found = [path for path in folder.rglob(".*") if _UNFINISHED.fullmatch(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one atomic step."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8 to `path` in one atomic step.

    What UTF-8 cannot hold (of file names in another encoding) is written as escapes.
    """
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON; NaN and infinity are refused (not JSON)."""
    write_text(path, _json(content))


def write_new_json(path: Path, content: Mapping[str, Any]) -> bool:
    """Write JSON as `write_json` does, but only where nothing stands yet.

    Returns:
        See `write_new_bytes`.
    """
    return write_new_bytes(path, _json(content).encode("utf-8", "backslashreplace"))


def write_new_bytes(path: Path, content: bytes) -> bool:
    """Write a file in one step, but only where nothing stands yet.

    Of several processes, on several machines too, one alone succeeds. On a file system without
    hard links two that write within the same moment may both succeed; the last one's stays.

    Returns:
        Whether it was this one.
    """
    with _beside(path) as temporary:
        temporary.write_bytes(content)
        _readable(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            if path.exists():
                return False
            temporary.replace(path)
        return True


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: The file is missing or holds no JSON object.
    """
    try:
        content = json.loads(read_file(path).decode("utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise InputError(f"Cannot read '{path}': {error.strerror}.") from None
    except RecursionError:
        raise InputError(f"'{path}' must hold JSON (it is nested too deeply).") from None
    except ValueError as error:
        raise InputError(f"'{path}' must hold JSON ({error}).") from None
    if not isinstance(content, dict):
        raise InputError(f"'{path}' must hold a JSON object. Received: {type(content).__name__}.")
    return content


def read_file(path: Path) -> bytes:
    """Read a plan or a record; what would keep a reader busy for ever is refused.

    Raises:
        OSError: It is missing, unreadable, a named pipe that lies in a folder, or has no end
            within `LARGEST` bytes (/dev/zero).
    """
    # a shell's <(command) and standard input are pipes too, but have a writer
    if path.is_fifo() and not str(path).startswith(("/dev/", "/proc/")):
        raise OSError(errno.EINVAL, "it is a named pipe", str(path))
    with open(path, "rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {LARGEST // 2**20} MiB", str(path))
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write to; where nothing was written and an error ends it, none is left.

    Args:
        path: The folder; it and its parents are made where they are missing.

    Raises:
        InputError: See `writable_folder`.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield writable_folder(path)
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # it was not made, or something lies in it
                folder.rmdir()
        raise


def writable_folder(path: Path) -> Path:
    """Make sure that `path` is a folder that files can be written to.

    Returns:
        `path`, created where it did not exist.

    Raises:
        InputError: It is a file, cannot be created, or is read-only.
    """
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(
            f"Output folder '{path}' must be writable: {error.strerror}. {_REMEDY}"
        ) from None
    return path


def check_folder(path: Path) -> None:
    """Checks, without writing anything, that a folder is or can be made that may be written to.

    A folder whose mode forbids writing is respected even when the user could
    override it (root can): whoever marked it read-only meant it.

    Raises:
        InputError: It is a file, or it or the folder that it would be made in is read-only.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"Output folder '{path}' is a file. {_REMEDY}")
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.stat().st_mode & 0o222 or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"Output folder '{path}' must be writable: '{existing}' is not. {_REMEDY}")
