"""What a node checks before it works for a run, and where it keeps the data."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from compress import __version__
from compress.data import Dataset
from compress.data.dataset import list_shared_files, open_shared_dataset, share_dataset
from search.engines.ray.host import (
    NodeFolder,
    collect_versions,
    describe_differences,
    find_folder_problem,
    hash_file,
)
from search.plan import SearchPlan
from search.study.directory import SearchFolder


def test_versions() -> None:
    found = collect_versions()
    assert found["paretune"] == __version__
    assert found["optuna"] == metadata.version("optuna")
    assert describe_differences(found, found) == ""
    other = {**found, "keras": "3.0.0", "paretune's code": "0"}
    ours = metadata.version("keras")
    code = found["paretune's code"]
    text = f"keras 3.0.0 in place of {ours}, paretune's code 0 in place of {code}"
    assert describe_differences(found, other) == text
    del other["keras"]
    assert describe_differences(found, other).startswith(f"keras none in place of {ours}")


def test_a_folder_that_a_node_sees(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", SearchPlan())
    digest = hash_file(folder.plan_path)
    assert find_folder_problem(folder.path, digest) == ""
    assert "is not there" in find_folder_problem(tmp_path / "elsewhere", digest)
    assert "another run's" in find_folder_problem(folder.path, "0" * 64)


class Bytes:
    """Bytes that count how often they are fetched."""

    def __init__(self, content: bytes) -> None:
        self.content, self.fetched = content, 0

    def __call__(self) -> npt.NDArray[np.uint8]:
        self.fetched += 1
        return np.frombuffer(self.content, np.uint8)


def test_data_come_once_to_a_node_and_go_with_its_last_worker(tmp_path: Path) -> None:
    files = {"train-x.npy": Bytes(b"abc"), "about.json": Bytes(b"{}")}
    one, two = (NodeFolder("f1", tmp_path) for _ in range(2))
    one.fill(files)
    two.fill(files)
    assert [item.fetched for item in files.values()] == [1, 1]
    assert one.path == two.path
    assert (one.path / "train-x.npy").read_bytes() == b"abc"
    one.release()
    assert two.path.is_dir()
    one.release()
    two.release()
    assert not two.path.exists()
    assert [path.name for path in tmp_path.iterdir()] == [f"{one.path.name[:-2]}lock"]


def test_what_killed_workers_left_is_removed_or_written_anew(tmp_path: Path) -> None:
    files = {"x.npy": Bytes(b"abc"), "about.json": Bytes(b"{}")}
    torn, other = NodeFolder("f1", tmp_path), NodeFolder("f2", tmp_path)
    for place in (torn.path, other.path):
        place.mkdir()
        (place / "x.npy").write_bytes(b"ab")
    torn.fill(files)
    assert (torn.path / "x.npy").read_bytes() == b"abc"
    assert not other.path.exists()
    torn.release()


def test_data_of_a_run_that_works_stay(tmp_path: Path) -> None:
    files = {"about.json": Bytes(b"{}")}
    one, other = NodeFolder("f1", tmp_path), NodeFolder("f2", tmp_path)
    one.fill(files)
    other.fill(files)
    assert one.path.is_dir()
    assert other.path.is_dir()
    one.release()
    other.release()


def test_a_data_set_arrives_as_it_was(tmp_path: Path, digits: Dataset) -> None:
    with share_dataset(digits, tmp_path / "run", min_bytes=0) as (_, problem):
        assert problem == ""
        held = {
            path.name: np.fromfile(path, np.uint8) for path in list_shared_files(tmp_path / "run")
        }
        there = NodeFolder(digits.fingerprint()[:24], tmp_path)
        there.fill({name: lambda array=array: array for name, array in held.items()})
    found = open_shared_dataset(there.path, digits.fingerprint())
    assert found is not None
    assert found.fingerprint() == digits.fingerprint()
    np.testing.assert_array_equal(found.train.x, digits.train.x)
    there.release()


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "train-x.npy").write_bytes(b"of a writer that was killed")
    assert list_shared_files(tmp_path / name) == []


def test_anothers_folder_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may make a folder of this name, with other data in it."""
    data = NodeFolder("f1", tmp_path)
    data.path.mkdir()
    (data.path / "about.json").write_text("not ours")
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    data.fill({"about.json": Bytes(b"{}")})
    assert (data.path / "about.json").read_text() == "{}"
    data.release()


def test_a_workers_folder_on_a_node_that_does_not_see_the_runs(tmp_path: Path) -> None:
    place = NodeFolder("run-1", tmp_path)
    place.create(b"plan", b"data")
    folder = SearchFolder(place.path)
    assert (folder.plan_path.read_bytes(), folder.data.read_bytes()) == (b"plan", b"data")
    assert folder.read_candidates() == []
    other = NodeFolder("f1", tmp_path)
    other.fill({"about.json": Bytes(b"{}")})
    assert folder.plan_path.exists(), "it is held"
    place.release()
    assert not place.path.exists()
    other.release()
