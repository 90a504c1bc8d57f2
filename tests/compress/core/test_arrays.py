"""Archives of arrays: read as NumPy reads them, and refused by what their headers declare."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.core import linux
from compress.core.arrays import open_npz
from compress.core.errors import InputError

ARRAYS = {
    "f4": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "big_endian": np.arange(4, dtype=">u2"),
    "scalar": np.array(3.5),
    "text": np.array(["a", "é"]),
    "json": np.array('{"x": 1}'),
    "empty": np.zeros((0, 5)),
    "bool": np.array([True, False]),
    "large": np.arange(500_000, dtype=np.float64),
}


def read(path: Path) -> dict[str, np.ndarray]:
    with open_npz(path) as archive:
        return archive.read_arrays(archive.names)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote(save: Any, tmp_path: Path) -> None:
    save(tmp_path / "a.npz", **ARRAYS)
    found = read(tmp_path / "a.npz")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    found["f4"][0, 0] = 7.0  # an array of one's own


def npy(shape: object, content: bytes = b"", kind: str = "'<f4'", version: int = 1) -> bytes:
    header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + content


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{}], object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (b"just text", "'x' is no array"),
        (b"", "'x' is no array"),
        (npy("(4,)", b"\0" * 15), "'x' says that it has 16 bytes, and has 15"),
        (npy("(4,)", b"\0" * 17), "'x' says that it has 16 bytes, and has 17"),
        (npy("(10**9, 10**9)"), "malformed"),
        (npy("(1000000000, 1000000000)"), "'x' says that it has 4,000,000,000,000,000,000 bytes"),
        (npy(f"({2**62}, {2**62}, 4)"), "'x' says that it has"),
        (npy("(-1,)"), r"'x' has shape \(-1,\)"),
        (npy("(-4, -1)", b"\0" * 16), r"'x' has shape \(-4, -1\)"),
        (npy("(1,) * 3"), "malformed"),
        (npy("(" + "1," * 70 + ")", b"\0" * 4), "maximum supported dimension"),
        (npy(f"({10**18}, 0)"), ""),
        (npy("(1,)", b"\0" * 4, version=9), "version"),
        (npy("(1,)", b"\0" * 4, kind="'<f4', 'descr': 5"), "."),
        (npy("(1,)", b"\0" * 4, kind="'nosuch'"), "."),
        (npy("(1,)", b"\0" * 4, kind="[[[[["), "."),
        (npy("(1,)" + "(" * 5000), "."),
        (pickled(), "'x' holds pickled objects"),
    ],
)
def test_members_that_are_none(member: bytes, reason: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", member)
    if not reason:  # odd, but what it says is true
        assert read(tmp_path / "a.npz")["x"].size == 0
        return
    with pytest.raises(InputError, match=rf"a\.npz' must be an \.npz file .*\(.*{reason}"):
        read(tmp_path / "a.npz")


def test_what_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "a.npy").rename(tmp_path / "single.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("x_train, y_train")
    (tmp_path / "folder.npz").mkdir()
    for name, reason in (
        ("single", "a single array in an .npy file: save it with np.savez"),
        ("empty", "not a zip file"),
        ("text", "not a zip file"),
        ("folder", "Is a directory"),
        ("none", "No such file"),
    ):
        with pytest.raises(InputError, match=reason):
            read(tmp_path / f"{name}.npz")


def flagged(path: Path, flag: int, method: int | None = None) -> None:
    """Sets a flag (1: encrypted) and a method of compression in both of zip's headers."""
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.index(mark) + place
        content[start] |= flag
        if method is not None:
            content[start + 2] = method
    path.write_bytes(content)


def test_encrypted_and_unknown_compressions(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(9.0))
    flagged(path, 1)
    with pytest.raises(InputError, match="encrypted"):
        read(path)
    np.savez(path, x=np.arange(9.0))
    flagged(path, 0, method=97)
    with pytest.raises(InputError, match="compression method"):
        read(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_bit_anywhere(save: Any, tmp_path: Path) -> None:
    """Every flip and cut is refused, or hits what holds no value (times, attributes)."""
    path = tmp_path / "a.npz"
    array = np.random.default_rng(1).normal(size=40)
    save(path, x=array)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 2):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(broken)
        try:
            found = read(path)
        except InputError:
            refused += 1
        else:
            # another name is another member
            assert "x" not in found or np.array_equal(found["x"], array)
    assert refused > len(whole) // 4
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read(path)


def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros(2_000_000))
    (tmp_path / "meminfo").write_text("MemAvailable: 15000 kB\n")
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    with pytest.raises(InputError, match=r"must fit into memory. Received: 0.1 GB"):
        read(path)
    (tmp_path / "meminfo").write_text("MemAvailable: 18000 kB\n")
    assert read(path)["x"].shape == (2_000_000,)
