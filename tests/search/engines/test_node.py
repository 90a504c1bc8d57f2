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
from compress.data.dataset import files_of, open_shared, shared
from search.engines.ray.host import (
    NodePlace,
    differing,
    digest_of,
    folder_problem,
    versions,
)
from search.plan import SearchPlan
from search.study.directory import SearchFolder


def test_versions() -> None:
    found = versions()
    assert found["paretune"] == __version__
    assert found["optuna"] == metadata.version("optuna")
    assert differing(found, found) == ""
    other = {**found, "keras": "3.0.0", "paretune's code": "0"}
    ours = metadata.version("keras")
    code = found["paretune's code"]
    text = f"keras 3.0.0 in place of {ours}, paretune's code 0 in place of {code}"
    assert differing(found, other) == text
    del other["keras"]
    assert differing(found, other).startswith(f"keras none in place of {ours}")


def test_a_folder_that_a_node_sees(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", SearchPlan())
    digest = digest_of(folder.plan_path)
    assert folder_problem(folder.path, digest) == ""
    assert "is not there" in folder_problem(tmp_path / "elsewhere", digest)
    assert "another run's" in folder_problem(folder.path, "0" * 64)


class Bytes:
    """Bytes that count how often they are fetched."""

    def __init__(self, content: bytes) -> None:
        self.content, self.fetched = content, 0

    def __call__(self) -> npt.NDArray[np.uint8]:
        self.fetched += 1
        return np.frombuffer(self.content, np.uint8)


def test_data_come_once_to_a_node_and_go_with_its_last_worker(tmp_path: Path) -> None:
    files = {"train-x.npy": Bytes(b"abc"), "about.json": Bytes(b"{}")}
    one, two = (NodePlace("f1", tmp_path) for _ in range(2))
    one.fill(files)
    two.fill(files)
    assert [item.fetched for item in files.values()] == [1, 1]
    assert one.place == two.place
    assert (one.place / "train-x.npy").read_bytes() == b"abc"
    one.release()
    assert two.place.is_dir()
    one.release()
    two.release()
    assert not two.place.exists()
    assert [path.name for path in tmp_path.iterdir()] == [f"{one.place.name[:-2]}lock"]


def test_what_killed_workers_left_is_removed_or_written_anew(tmp_path: Path) -> None:
    files = {"x.npy": Bytes(b"abc"), "about.json": Bytes(b"{}")}
    torn, other = NodePlace("f1", tmp_path), NodePlace("f2", tmp_path)
    for place in (torn.place, other.place):
        place.mkdir()
        (place / "x.npy").write_bytes(b"ab")
    torn.fill(files)
    assert (torn.place / "x.npy").read_bytes() == b"abc"
    assert not other.place.exists()
    torn.release()


def test_data_of_a_run_that_works_stay(tmp_path: Path) -> None:
    files = {"about.json": Bytes(b"{}")}
    one, other = NodePlace("f1", tmp_path), NodePlace("f2", tmp_path)
    one.fill(files)
    other.fill(files)
    assert one.place.is_dir()
    assert other.place.is_dir()
    one.release()
    other.release()


def test_a_data_set_arrives_as_it_was(tmp_path: Path, digits: Dataset) -> None:
    with shared(digits, tmp_path / "run", least_bytes=0) as (_, problem):
        assert problem == ""
        held = {path.name: np.fromfile(path, np.uint8) for path in files_of(tmp_path / "run")}
        there = NodePlace(digits.fingerprint()[:24], tmp_path)
        there.fill({name: lambda array=array: array for name, array in held.items()})
    found = open_shared(there.place, digits.fingerprint())
    assert found is not None
    assert found.fingerprint() == digits.fingerprint()
    np.testing.assert_array_equal(found.train.x, digits.train.x)
    there.release()


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_without_data(tmp_path: Path, name: str) -> None:
    (tmp_path / "train-x.npy").write_bytes(b"of a writer that was killed")
    assert files_of(tmp_path / name) == []


def test_anothers_folder_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody may make a folder of this name, with other data in it."""
    data = NodePlace("f1", tmp_path)
    data.place.mkdir()
    (data.place / "about.json").write_text("not ours")
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    data.fill({"about.json": Bytes(b"{}")})
    assert (data.place / "about.json").read_text() == "{}"
    data.release()


def test_a_workers_folder_on_a_node_that_does_not_see_the_runs(tmp_path: Path) -> None:
    place = NodePlace("run-1", tmp_path)
    place.make(b"plan", b"data")
    folder = SearchFolder(place.place)
    assert (folder.plan_path.read_bytes(), folder.data.read_bytes()) == (b"plan", b"data")
    assert folder.read_candidates() == []
    other = NodePlace("f1", tmp_path)
    other.fill({"about.json": Bytes(b"{}")})
    assert folder.plan_path.exists(), "it is held"
    place.release()
    assert not place.place.exists()
    other.release()
