"""A candidate's record is written once: by its worker, or by who gave its trial to another."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from optuna.trial import TrialState

from compress.core.atomic_files import write_new_json
from compress.core.errors import InputError
from compress.data import Dataset
from search.study import study as studies
from search.study.directory import Candidate, SearchFolder, TrialGivenUp
from search.study.recovery import recover
from search.study.study import ask_trial
from search.study.warm_start import read_replayed
from tests.search.study.test_recovery import PLAN, begin, end


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    made.claim("search", PLAN)
    return made


def candidate(number: int = 0, seed: int = 1) -> Candidate:
    return Candidate(f"{number:04d}", "complete", {"x": 1}, seed, macs=9, params=1,
                     val={"accuracy": 0.5})  # fmt: skip


def test_of_many_writers_one_succeeds(tmp_path: Path) -> None:
    for turn in range(20):
        path = tmp_path / f"{turn}.json"
        contents = [{"who": who} for who in range(8)]
        with ThreadPoolExecutor(8) as threads:
            done = list(threads.map(partial(write_new_json, path), contents))
        assert sum(done) == 1
        assert json.loads(path.read_text()) == {"who": done.index(True)}
    assert len(list(tmp_path.iterdir())) == 20, "nothing temporary stays"


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "0.json"
    assert [write_new_json(path, {"who": who}) for who in range(2)] == [True, False]
    assert json.loads(path.read_text()) == {"who": 0}
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_record_counts(folder: SearchFolder) -> None:
    assert folder.write_candidate(candidate(seed=1)).seed == 1
    assert folder.write_candidate(candidate(seed=2)).seed == 1
    assert [item.seed for item in folder.read_candidates()] == [1]


def test_a_trial_that_was_given_up_takes_no_record(folder: SearchFolder) -> None:
    assert folder.give_up("0000", 1, "its node was lost")
    assert folder.give_up("0000", 1, "its node was lost"), "twice is once"
    with pytest.raises(TrialGivenUp, match="0000 runs again"):
        folder.write_candidate(candidate())
    assert folder.read_candidates() == []
    assert folder.read_candidate("0000") is None
    with pytest.raises(InputError, match="ran again under another number"):
        read_replayed((str(folder.candidates / "0000.json"),))


def test_a_record_in_time_is_not_given_up(folder: SearchFolder) -> None:
    folder.write_candidate(candidate())
    assert not folder.give_up("0000", 1, "its node was lost")
    assert folder.read_candidate("0000") == candidate()


def test_its_number_is_not_given_out_again(folder: SearchFolder, digits: Dataset) -> None:
    """Nor where the study was lost: what still runs somewhere has this number."""
    study = studies.open_study(folder, PLAN)
    trial = begin(study, PLAN, digits)
    folder.write_candidate(end(trial, "complete", PLAN))
    folder.give_up("0001", 7, "its node was lost")
    folder.journal.unlink()
    assert recover(folder, PLAN, digits)
    found = studies.open_study(folder, PLAN)
    assert [item.state.name for item in found.trials] == ["COMPLETE", "FAIL"]
    assert ask_trial(found, PLAN).number == 2


def test_trials_of_workers_that_outlived_their_run(folder: SearchFolder, digits: Dataset) -> None:
    """The run's process was killed; of three workers one had written its record."""
    study = studies.open_study(folder, PLAN)
    trials = [begin(study, PLAN, digits) for _ in range(3)]
    done = [end(trial, "complete", PLAN) for trial in trials]
    folder.write_candidate(done[1])
    assert studies.close_orphans(study, folder, PLAN) == 2
    states = [trial.state for trial in study.trials]
    waiting, failed = TrialState.WAITING, TrialState.FAIL
    assert states == [failed, TrialState.COMPLETE, failed, waiting, waiting]
    # they still run: what they find out comes too late
    for item in (done[0], done[2]):
        with pytest.raises(TrialGivenUp):
            folder.write_candidate(item)
    assert [item.id for item in folder.read_candidates()] == ["0001"]
    again = [study.trials[number].user_attrs for number in (3, 4)]
    assert [attrs["retry_of"] for attrs in again] == [0, 2]
    assert [attrs["seed"] for attrs in again] == [
        trials[place].user_attrs["seed"] for place in (0, 2)
    ]


def test_a_trial_is_ended_once(folder: SearchFolder, digits: Dataset) -> None:
    """A call of a storage that seemed to be lost is made once more."""
    study = studies.open_study(folder, PLAN)
    trial = begin(study, PLAN, digits)
    done = end(trial, "complete", PLAN)
    for _ in range(2):
        studies.finish_trial(study, done, PLAN)
    assert study.trials[0].values == [done.val["accuracy"], done.macs]
