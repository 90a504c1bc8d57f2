"""Atomic files and output folders."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from compress.core.atomic_files import (
    create_folder,
    ensure_writable_folder,
    read_json,
    replace_file,
    write_json,
    write_text,
)
from compress.core.errors import InputError


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with replace_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("no space")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_readable_like_others(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_json_refuses_nan_and_other_content(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    write_text(tmp_path / "a.json", "[1]")
    with pytest.raises(InputError, match="must hold a JSON object"):
        read_json(tmp_path / "a.json")
    write_text(tmp_path / "a.json", "{")
    with pytest.raises(InputError, match="must hold JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="Cannot read"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    "text", ['{"x": NaN}', '{"x": -Infinity}', "[" * 100_000, '{"x": ' + "9" * 5000 + "}", "\x00"]
)
def test_json_that_python_alone_reads_or_none_does(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json' must hold JSON"):
        read_json(tmp_path / "a.json")


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"Cannot read .*a\.json.*named pipe"):
        read_json(tmp_path / "a.json")


def test_a_file_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read '/dev/zero': it is larger than 128 MiB"):
        read_json(Path("/dev/zero"))


def test_a_shells_pipe_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"x": 1}')
    os.close(writer)
    try:
        assert read_json(Path(f"/dev/fd/{reader}")) == {"x": 1}
    finally:
        os.close(reader)


def test_text_that_utf8_cannot_hold_is_written_as_escapes(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "name \udcff")
    assert (tmp_path / "a").read_bytes() == b"name \\udcff"


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("writes", [False, True])
def test_a_new_folder_is_left_only_with_something_in_it(
    fails: bool, writes: bool, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    for path, new in ((tmp_path / "old", False), (tmp_path / "a" / "b", True)):
        with suppress(KeyError), create_folder(path) as folder:
            if writes:
                (folder / "x").write_text("x")
            if fails:
                raise KeyError
        assert path.exists() == (writes or not fails or not new)
    assert (tmp_path / "a").exists() == (writes or not fails)


def test_output_folders(tmp_path: Path) -> None:
    assert ensure_writable_folder(tmp_path / "new" / "deep").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        ensure_writable_folder(tmp_path / "file")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    try:
        for folder in (locked, locked / "new"):
            with pytest.raises(InputError, match="must be writable"):
                ensure_writable_folder(folder)
        assert list(locked.iterdir()) == []
    finally:
        locked.chmod(0o755)
