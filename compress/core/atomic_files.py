"""Atomic writes of files, and checks of output folders."""

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
_TEMPORARY_PATTERN = re.compile(r"\..+-[a-z0-9_]{8}\.part(\.[^.]+)?")
"""Names of the temporary files of `replace_file`."""
MAX_FILE_BYTES = 2**27
"""Maximum size of a plan or a record."""


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` atomically.

    The temporary name keeps the suffix, since Keras chooses a format by it. On an exception the
    temporary file is removed and `path` is unchanged.

    Args:
        path: Path of the finished file.

    Yields:
        The path to write to, in the same folder, so that the final rename is atomic.
    """
    with _create_temporary(path) as temporary:
        yield temporary
        _set_default_mode(temporary)
        temporary.replace(path)


@contextmanager
def _create_temporary(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and remove the file at the end if it still exists."""
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


def _set_default_mode(temporary: Path) -> None:
    """Set the default permissions of a new file; those of mkstemp are private."""
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)


def _format_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def list_complete_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a folder that end in `suffix`, sorted, without temporary files.

    A killed process leaves its temporary file behind, and `glob` also finds hidden files.

    Args:
        folder: The folder.
        suffix: End of the names, like ".json".
    """
    return sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))


def remove_unfinished(folder: Path) -> int:
    """Remove the temporary files of killed processes in a folder and its subfolders.

    Args:
        folder: A folder without running writers.

    Returns:
        The number of removed files.
    """
    unfinished = [path for path in folder.rglob(".*") if _TEMPORARY_PATTERN.fullmatch(path.name)]
    for path in unfinished:
        path.unlink(missing_ok=True)
    return len(unfinished)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one atomic step."""
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8 to `path` in one atomic step.

    Characters that UTF-8 cannot encode (in file names of another encoding) are written as escapes.
    """
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON in one atomic step; NaN and infinity raise an error."""
    write_text(path, _format_json(content))


def write_new_json(path: Path, content: Mapping[str, Any]) -> bool:
    """Write JSON like `write_json` unless the file already exists.

    Returns:
        See `write_new_bytes`.
    """
    return write_new_bytes(path, _format_json(content).encode("utf-8", "backslashreplace"))


def write_new_bytes(path: Path, content: bytes) -> bool:
    """Write a file in one atomic step unless it already exists.

    If several processes or machines write the same file, only one succeeds. On a file system
    without hard links, two that write at the same moment may both succeed, and the last one's
    content is kept.

    Returns:
        Whether this process wrote the file.
    """
    with _create_temporary(path) as temporary:
        temporary.write_bytes(content)
        _set_default_mode(temporary)
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
    """Read a JSON object from a file.

    Raises:
        InputError: The file is missing or holds no JSON object.
    """
    try:
        content = json.loads(read_file(path).decode("utf-8"), parse_constant=_refuse_constant)
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
    """Return the content of a plan or a record; endless files raise an error.

    Raises:
        OSError: The file is missing, unreadable, a named pipe in a folder, or larger than
            `MAX_FILE_BYTES` bytes (/dev/zero).
    """
    # a shell's <(command) and standard input are pipes too, but they have a writer
    if path.is_fifo() and not str(path).startswith(("/dev/", "/proc/")):
        raise OSError(errno.EINVAL, "it is a named pipe", str(path))
    with open(path, "rb") as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_FILE_BYTES // 2**20} MiB", str(path))
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


@contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """Yield a writable folder; if an error occurs before anything is written, remove it again.

    Args:
        path: The folder; it and its parents are created if missing.

    Raises:
        InputError: See `ensure_writable_folder`.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield ensure_writable_folder(path)
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # it was not created, or it is not empty
                folder.rmdir()
        raise


def ensure_writable_folder(path: Path) -> Path:
    """Return `path` after checking that it is a writable folder, created if it is missing.

    Raises:
        InputError: The path is a file, cannot be created, or is read-only.
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
    """Check, without writing, that a folder is writable or can be created.

    A folder whose mode forbids writing is rejected even if the user (root) could override it,
    because it was marked read-only on purpose.

    Raises:
        InputError: The path is a file, or it or its first existing parent is read-only.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"Output folder '{path}' is a file. {_REMEDY}")
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not existing.stat().st_mode & 0o222 or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"Output folder '{path}' must be writable: '{existing}' is not. {_REMEDY}")
