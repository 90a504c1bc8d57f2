"""Result files: one a run, with where it comes from; resumed and shown as what they are."""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _common, _stored
from benchmarks._common import Benchmark, Mean, Peer, ratio, seed_list, table, told_ratio, verdict
from benchmarks._stored import KEYS, Stored, begin, kept_peer, machine, read, revision, was_run


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results"
    monkeypatch.setattr(_stored, "RESULTS", folder)
    return folder


class Fake:
    """A benchmark that counts what it measures."""

    def __init__(self, peers: tuple[str, ...] = (), stops_at: int | None = None) -> None:
        self.measured: list[int] = []
        self.began_with: list[dict[str, Any]] = []
        self.stops_at = stops_at
        self.benchmark = Benchmark(
            "fake", "Counts.", self.measure, {"squares": self.squares}, self.arguments,
            peers=peers, resumable=True,
        )  # fmt: skip

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--size", type=int, default=3)
        seed_list(parser)

    def measure(self, given: argparse.Namespace, stored: Stored) -> None:
        self.began_with.append(json.loads(json.dumps(stored.result)))
        for name in self.benchmark.peers:
            state = stored.provenance["peers"][name]
            new = {"seconds": 9} if was_run(state) else _common.not_run(state)
            stored.result[name] = kept_peer(stored.result.get(name), new)
        runs = stored.result.setdefault("runs", {})
        for seed in given.seeds:
            if str(seed) in runs:
                continue
            if seed == self.stops_at:
                raise KeyboardInterrupt
            self.measured.append(seed)
            runs[str(seed)] = given.size * seed
            stored.save()

    def squares(self, result: dict[str, Any]) -> str:
        return table(["seed", "square"], [[key, value] for key, value in result["runs"].items()])


def only(folder: Path) -> Path:
    (file,) = folder.glob("fake/*.json")
    return file


def test_each_run_writes_a_file_of_its_own(results: Path) -> None:
    Fake().benchmark.run([])
    first = only(results)
    before = first.read_bytes()
    again = Fake()
    again.benchmark.run([])
    assert again.began_with == [{}], "a new run begins with nothing"
    assert again.measured == [0, 1, 2]
    assert len(list(results.glob("fake/*.json"))) == 2
    assert first.read_bytes() == before
    commit, _ = revision()
    today = json.loads(before)["provenance"]["date"][:10]
    assert first.name == f"{today}-{(commit or 'unknown')[:7]}.json"


def test_runs_of_one_moment_do_not_take_each_others_name(results: Path) -> None:
    runs = [begin("fake", {}, [0]) for _ in range(3)]
    for number, run in enumerate(runs):
        run.save(number=number)
    assert len({run.path for run in runs}) == 3
    assert [read(run.path).result["number"] for run in runs if run.path] == [0, 1, 2]
    assert not [path for path in (results / "fake").iterdir() if path.suffix != ".json"]


def test_a_file_says_where_it_comes_from(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fake.py", "--seeds", "4,5"])
    Fake().benchmark.run(["--seeds", "4,5"])
    content = json.loads(only(results).read_text())
    told = content["provenance"]
    assert set(told) == set(KEYS)
    assert content["benchmark"] == "fake"
    assert told["command"] == "python -m benchmarks.fake --seeds 4,5"
    assert told["seeds"] == [4, 5]
    assert told["settings"] == {"size": 3, "seeds": [4, 5]}
    assert told["complete"] is True
    assert told["resumed"] == []
    assert (told["commit"], told["dirty"]) == revision()
    assert set(told["machine"]) >= {
        "cpu", "cores", "python", "tensorflow", "keras", "optuna", "ai-edge-litert",
    }  # fmt: skip
    assert all(told["machine"].values())


def test_commands_measure_anew_all_that_a_file_holds() -> None:
    """Of a file that was gone on with: what was typed, each once, without the file itself."""
    typed = [
        "python -m benchmarks.this --nets a",
        "python -m benchmarks.this --nets a --resume some/file.json",
        "python -m benchmarks.this --resume 'a file.json' --nets a,b",
        "python -m benchmarks.this --resume=file.json --nets c d",
    ]
    first, *again = ({"command": command} for command in typed)
    stored = Stored("this", {**first, "resumed": again}, {})
    assert stored.commands == (
        typed[0],
        "python -m benchmarks.this --nets a,b",
        "python -m benchmarks.this --nets c d",
    )


def test_commit_and_changes_are_those_of_the_tree(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert revision(tmp_path) == (None, None)
    git("init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "old.json").write_text("{}")
    git("add", ".")
    git("commit", "-qm", "one")
    assert revision(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "benchmarks" / "results" / "old.json").write_text("[]")
    assert revision(tmp_path)[1] is False, "results are not what runs"
    (tmp_path / "code.py").write_text("a = 2\n")
    assert revision(tmp_path)[1] is True


def test_only_resume_goes_on(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        Fake(stops_at=1).benchmark.run([])
    file = only(results)
    assert read(file).provenance["complete"] is False
    assert "unfinished" in read(file).origin()
    again = Fake()
    again.benchmark.run(["--resume", str(file), "--seeds", "0,1,2,3"])
    assert again.measured == [1, 2, 3]
    told = read(only(results)).provenance
    assert told["complete"] is True
    assert told["seeds"] == [0, 1, 2, 3]
    assert len(told["resumed"]) == 1
    assert told["resumed"][0]["commit"] == revision()[0]


def refused(benchmark: Benchmark, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        benchmark.run(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_what_cannot_go_on_is_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Fake().benchmark.run([])
    file = only(results)
    before = file.read_bytes()
    fake = Fake()
    assert "size (3, now 4)" in refused(
        fake.benchmark, ["--resume", str(file), "--size", "4"], capsys
    )
    other = json.loads(before)
    other["provenance"]["machine"]["cpu"] = "another"
    file.write_text(json.dumps(other))
    assert "Other: cpu" in refused(fake.benchmark, ["--resume", str(file)], capsys)
    other = json.loads(before)
    other["benchmark"] = "real"
    file.write_text(json.dumps(other))
    assert "one of real" in refused(fake.benchmark, ["--resume", str(file)], capsys)
    other = json.loads(before)
    other["provenance"]["settings"] = None  # older than this record
    file.write_text(json.dumps(other))
    assert "settings" in refused(fake.benchmark, ["--resume", str(file)], capsys)
    file.write_text("{}")
    assert "no provenance" in refused(fake.benchmark, ["--show", str(file)], capsys)
    assert "Cannot read" in refused(fake.benchmark, ["--show", "nowhere.json"], capsys)
    assert "--show FILE" in refused(fake.benchmark, ["--write", "a.md"], capsys)
    assert fake.measured == []
    short = Benchmark("fake", "", fake.measure, {}, fake.arguments)
    assert "unrecognized arguments: --resume" in refused(short, ["--resume", str(file)], capsys)


def test_what_is_no_time_goes_on_on_another_machine(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Fake().benchmark.run([])
    file = only(results)
    other = json.loads(file.read_text())
    here = other["provenance"]["machine"]["cpu"]
    other["provenance"]["machine"]["cpu"] = "another"
    file.write_text(json.dumps(other))
    fake = Fake()
    free = replace(fake.benchmark, anywhere=True)
    free.run(["--resume", str(file), "--seeds", "0,1,2,3"])
    assert fake.measured == [3]
    assert read(file).provenance["resumed"][0]["machine"]["cpu"] == here
    assert f", another, {other['provenance']['machine']['cores']} core" in read(file).origin()
    assert read(file).origin().endswith(f", then {here}")
    other["provenance"]["machine"]["keras"] = "0"
    file.write_text(json.dumps(other))
    assert "Other: keras" in refused(free, ["--resume", str(file)], capsys)


def test_stored_results_are_printed_as_stored(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Fake().benchmark.run(["--seeds", "7"])
    said = capsys.readouterr().out
    assert "measured, " in said
    assert "stored, of" not in said
    file = only(results)
    before = file.read_bytes()
    fake = Fake()
    fake.benchmark.run(["--show", str(file)])
    said = capsys.readouterr().out
    told = read(file).provenance
    assert said.startswith(f"stored, of {told['date'][:10]}, commit {(told['commit'] or '')[:7]}")
    assert "| 7 | 21 |" in said
    assert "measured, " not in said
    assert fake.measured == []
    assert file.read_bytes() == before


def test_a_failed_save_leaves_what_was_there(results: Path) -> None:
    stored = begin("fake", {}, [0])
    path = stored.save(seconds=1.0)
    with pytest.raises(ValueError, match="JSON"):
        stored.save(seconds=float("nan"))
    assert read(path).result == {"seconds": 1.0}
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def peer(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    there = Peer("other", "pytest", modules, None, "pip install other")
    monkeypatch.setitem(_common.PEERS, "other", there)


def test_a_peer_that_is_missing_has_a_row_that_says_so(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peer(monkeypatch, "pytest", "no_such_module")
    Fake(peers=("other",)).benchmark.run([])
    stored = read(only(results))
    reason = "no_such_module not installed (pip install other)"
    assert stored.result["other"] == {"not run": reason}
    assert stored.provenance["peers"] == {"other": f"not run: {reason}"}
    assert f"other: not run: {reason}" in capsys.readouterr().out


def test_a_measured_peer_is_never_overwritten_with_nothing(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer(monkeypatch, "pytest")
    Fake(peers=("other",)).benchmark.run(["--seeds", "0"])
    file = only(results)
    assert read(file).provenance["peers"] == {"other": f"pytest {pytest.__version__}"}
    peer(monkeypatch, "no_such_module")  # it is gone when the benchmark continues
    Fake(peers=("other",)).benchmark.run(["--resume", str(file), "--seeds", "0,1"])
    stored = read(file)
    assert stored.result["other"] == {"seconds": 9}
    assert stored.provenance["peers"] == {"other": f"pytest {pytest.__version__}"}
    assert stored.result["runs"] == {"0": 0, "1": 3}


def test_a_peer_in_an_environment_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_PYTHON", "/no/such/python")
    other = Peer("other", "pytest", ("pytest",), "OTHER_PYTHON", "make it")
    assert other.state() == (
        "not run: OTHER_PYTHON=/no/such/python does not start (FileNotFoundError)"
    )


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (None, {"not run": "gone"}, {"not run": "gone"}),
        ({"not run": "gone"}, {"s": 1}, {"s": 1}),
        ({"s": 1}, {"not run": "gone"}, {"s": 1}),
        ({"s": 1}, {}, {"s": 1}),
        ({"s": 1}, {"s": 2}, {"s": 2}),
    ],
)
def test_kept_peer(old: Any, new: Any, kept: Any) -> None:
    assert kept_peer(old, new) == kept


def test_means_and_ties_by_hand() -> None:
    # mean 2, deviations -1, 0, 1: variance 2 / 2, standard error 1 / sqrt(3)
    mean = Mean.of([0.01, 0.02, 0.03])
    assert mean.mean == pytest.approx(0.02)
    assert mean.error == pytest.approx(0.01 / 3**0.5)
    assert mean.percent() == "2.00 +- 0.58 %"
    assert Mean.of([0.5]).percent() == "50.00 % (one seed)"
    # the difference's standard error is 1 / sqrt(3) * sqrt(2) = 0.816 points; Student's t of four
    # degrees of freedom is 2.776 (Welch: both spread alike), which makes 2.267
    assert verdict(Mean(0.0426, mean.error, 3), mean) == "+2.26, a tie"
    assert verdict(Mean(0.0427, mean.error, 3), mean) == "+2.27"
    assert verdict(Mean(-0.0027, mean.error, 3), mean) == "-2.27"
    # a single mean against zero: t of two degrees of freedom is 4.303, 2.48 points
    zero = Mean(0.0248, mean.error, 3).compare()
    above = Mean(0.0249, mean.error, 3).compare()
    assert zero is not None
    assert above is not None
    assert (zero.is_tie, above.is_tie) == (True, False)
    assert mean.compare(Mean(0.5, None, 1)) is None
    assert verdict(Mean(0.5, None, 1), mean) == "+48.00, one seed"


def test_the_machine_is_told_where_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stored, "PACKAGES", ("numpy", "no-such-package"))
    told = machine()
    assert told["no-such-package"] is None
    assert told["numpy"]


def test_ratios_say_what_their_ends_are() -> None:
    few = ratio([2.0, 4.0, 6.0], [1.0, 1.0, 2.0])  # 2, 4, 3
    assert told_ratio(few) == "3.00x [range 2.00 to 4.00]"
    old = {"ratio": 1.41, "low": 1.38, "high": 1.43, "rounds": 7}
    assert told_ratio(old) == "1.41x (7 rounds)"
    assert told_ratio({**old, "rounds": 40}) == "1.41x [1.38, 1.43]"
    assert told_ratio({**old, "rounds": 40, "low": 0.99}) == "1.41x [0.99, 1.43] (a tie)"
    assert told_ratio(_common.not_run("not run: gone")) == "not run: gone"
    assert told_ratio(None) == ""


def test_a_path_outside_the_repository_is_recorded_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "mlperf-tiny"
    folder.mkdir()
    assert _stored.shown_path(str(folder)) == "mlperf-tiny"
    # what lies inside, and what is no path, stay as they were typed
    assert _stored.shown_path("benchmarks/nets") == "benchmarks/nets"
    assert _stored.shown_path("--mlperf") == "--mlperf"
