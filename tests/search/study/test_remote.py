"""Workers that do not see the run's folder: what they make arrives, what they need comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core.errors import InputError, RunFailed
from search.plan import SearchPlan
from search.study.directory import Candidate, SearchFolder
from search.study.remote import FileStore, RemoteFolder, fetch_files, publish_files

pytest.importorskip("fsspec")


def candidate(number: int, seed: int = 1) -> Candidate:
    return Candidate(f"{number:04d}", "complete", {"x": number}, seed, macs=9, params=1,
                     val={"accuracy": 0.5})  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    made = FileStore(f"file://{tmp_path / 'store' / 'deep'}")
    made.check()
    return made


@pytest.fixture
def run(tmp_path: Path) -> SearchFolder:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", SearchPlan())
    return folder


def worker(tmp_path: Path, name: str, files: FileStore) -> RemoteFolder:
    folder = RemoteFolder(tmp_path / name, files, tmp_path / "run")
    for place in (folder.candidates, folder.final, folder.exports, folder.compressed):
        place.mkdir(parents=True)
    return folder


def trained(folder: RemoteFolder, number: int, seed: int = 1) -> tuple[str, ...]:
    folder.write_candidate(candidate(number, seed))
    folder.get_model_path(f"{number:04d}").write_bytes(b"model %d" % number)
    return folder.publish()


def test_what_a_worker_makes_arrives_once(
    tmp_path: Path, files: FileStore, run: SearchFolder
) -> None:
    one = worker(tmp_path, "one", files)
    (one.path / "workers.log").write_text("stays here")
    (one.candidates / ".0000-abcdefgh.part.keras").write_bytes(b"in progress")
    names = trained(one, 0)
    assert names == ("candidates/0000.json", "candidates/0000.keras")
    assert one.publish() == (), "nothing new"
    fetch_files(run, files, names)
    assert run.read_candidates() == [candidate(0)]
    assert run.get_model_path("0000").read_bytes() == b"model 0"
    stored = sorted(path.name for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert stored == ["0000.json", "0000.keras"]


def test_a_changed_file_goes_again(tmp_path: Path, files: FileStore, run: SearchFolder) -> None:
    one = worker(tmp_path, "one", files)
    record = one.compressed / "0000.json"
    for content in ("first", "second one"):
        record.write_text(content)
        fetch_files(run, files, one.publish())
        assert (run.compressed / "0000.json").read_text() == content


def test_what_is_gone_from_the_store_ends_the_run(
    tmp_path: Path, files: FileStore, run: SearchFolder
) -> None:
    names = trained(worker(tmp_path, "one", files), 0)
    for name in names:
        (tmp_path / "store" / "deep" / name).unlink()
        with pytest.raises(RunFailed, match=f"'{name}' was in .*, and is gone"):
            fetch_files(run, files, [name])
    assert run.read_candidates() == []


def test_a_lost_worker_comes_too_late(tmp_path: Path, files: FileStore, run: SearchFolder) -> None:
    one = worker(tmp_path, "one", files)
    names = trained(one, 0)
    assert run.give_up("0000", 1, "its node was lost")
    fetch_files(run, files, names)
    assert run.read_candidates() == []


def test_another_worker_reads_what_it_needs(tmp_path: Path, files: FileStore) -> None:
    one, two = (worker(tmp_path, name, files) for name in ("one", "two"))
    assert two.read_candidate("0000") is None
    trained(one, 0)
    trained(one, 1)
    assert two.read_candidate("0000") == candidate(0)
    assert not (two.candidates / "0000.keras").exists()
    assert two.fetch_file(two.get_model_path("0001")).read_bytes() == b"model 1"
    assert two.publish() == (), "what was fetched is not put back"


def test_the_trained_model_goes_on(tmp_path: Path, files: FileStore) -> None:
    one, two = (worker(tmp_path, name, files) for name in ("one", "two"))
    trained(one, 0)
    assert two.get_shipped_path("0000") == two.candidates / "0000.keras"
    assert two.read_candidate("0000") == candidate(0)
    (one.final / "0000.keras").write_bytes(b"trained once more")
    (one.final / "0000-final0.json").write_text("{}")
    (one.final / "00001.keras").write_bytes(b"another's")
    one.publish()
    three = worker(tmp_path, "three", files)
    assert three.get_shipped_path("0000").read_bytes() == b"trained once more"
    assert sorted(path.name for path in three.final.iterdir()) == [
        "0000-final0.json", "0000.keras",
    ]  # fmt: skip


def test_teachers_come_along(tmp_path: Path, files: FileStore, run: SearchFolder) -> None:
    own, *others = (
        run.get_model_path("0000"),
        tmp_path / "a" / "t.keras",
        tmp_path / "b" / "t.keras",
    )
    own.write_bytes(b"own")
    for path in others:
        path.parent.mkdir()
        path.write_bytes(path.parent.name.encode())
    names = publish_files(run, files, map(str, (own, *others)))
    assert names == ["candidates/0000.keras", "given/1/t.keras", "given/2/t.keras"]
    one = worker(tmp_path, "one", files)
    found = [one.fetch_file(Path(name)) for name in names]
    assert [path.read_bytes() for path in found] == [b"own", b"a", b"b"]


def test_a_file_is_whole_or_not_there(tmp_path: Path, files: FileStore) -> None:
    one = worker(tmp_path, "one", files)
    with pytest.raises(FileNotFoundError):
        files.put(one.path / "missing", "candidates/0000.keras")
    assert files.list_names("candidates") == []
    assert files.read("candidates/0000.keras") is None
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (f"file://{tmp_path}/file/x", "nosuch://bucket/x"):
        with pytest.raises(InputError, match="files must be a place that files can be written to"):
            FileStore(url).check()
