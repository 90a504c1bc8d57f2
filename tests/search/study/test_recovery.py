"""Journals removed, emptied, torn and scrambled: finished candidates stay what they are."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from compress.core.errors import InputError, RunFailed
from compress.data import Dataset
from compress.plan.nesting import from_flat
from compress.run.directory import LOG
from search.engines.run_jobs import SearchWorker
from search.optuna_internals import FIXED_PARAMS_ATTR, set_study_attr
from search.plan import SearchPlan
from search.spaces import SPACES, resolve_space
from search.spaces._base import ask_choices
from search.study import optimizers
from search.study import study as studies
from search.study.costs import Costs, report_excess
from search.study.directory import Candidate, SearchFolder
from search.study.objective import (
    DominanceStopper,
    collect_rung_losses,
    format_candidate_id,
    get_trial_seed,
)
from search.study.recovery import recover
from search.study.storage import open_storage
from search.study.study import ask_trial

OPTIONS = {"sampler": "random", "trials": 40, "epochs": 4, "max_macs": 1000}
STATES = ("complete", "stopped", "rejected", "failed", "complete", "duplicate", "complete")


def plan_of(**more: object) -> SearchPlan:
    return from_flat(SearchPlan, OPTIONS | more)


PLAN = plan_of()


def begin(study: optuna.Study, plan: SearchPlan, data: Dataset) -> optuna.Trial:
    """Asks for a trial and all its choices, as a worker does."""
    trial = ask_trial(study, plan)
    trial.set_user_attr("seed", get_trial_seed(plan, trial))
    ask_choices(trial, SPACES["cnn"].choices(data))
    optimizers.sample_settings(trial, plan, data)
    return trial


def end(trial: optuna.Trial, state: str, plan: SearchPlan) -> Candidate:
    """Ends a trial as `search.study.objective.evaluate_trial` does, without a training."""
    rng = random.Random(trial.number)
    macs, quality = 1000 + trial.number, [rng.random() for _ in range(plan.search.epochs)]
    name, seed = format_candidate_id(trial.number), trial.user_attrs["seed"]
    item = Candidate(
        name, state, dict(trial.params), seed, macs=macs, params=7, ended=1e9, seconds=3.0
    )
    if state in ("failed", "rejected"):
        if state == "rejected":
            report_excess(trial, Costs(macs, 7), plan.search)
        return replace(item, reason="because")
    if state == "duplicate":
        return replace(item, val={"accuracy": 0.25})
    stopper = DominanceStopper(trial, plan.list_rungs(), [macs])
    length = plan.search.epochs if state == "complete" else 2
    history = []
    for epoch in range(1, length + 1):
        history.append({"epoch": epoch, "loss": 1.0, "val": {"accuracy": quality[epoch - 1]}})
        stopper.should_stop(epoch, max(quality[:epoch]))  # stores the metric at rungs
    val = {"accuracy": max(quality[:length])}
    return replace(item, val=val, history=tuple(history))


def make_run(
    path: Path, plan: SearchPlan, data: Dataset, states: tuple[str, ...] = STATES
) -> SearchFolder:
    """A run with every kind of candidate, a gap, an interrupted trial and queued ones."""
    folder = SearchFolder(path)
    folder.claim("run", plan)
    study = studies.open_study(folder, plan)
    studies.enqueue_first_trials(study, plan, data)
    for state in states:
        trial = begin(study, plan, data)
        item = end(trial, state, plan)
        folder.write_candidate(item)
        if state == "complete":
            folder.get_model_path(item.id).write_bytes(b"model " + item.id.encode())
        studies.finish_trial(study, item, plan)
    study.set_user_attr("of the user", 1)
    set_study_attr(study, "of a sampler", 3)
    begin(study, plan, data)  # 0007: interrupted by an earlier end of the run
    assert studies.close_orphans(study, folder, plan) == 1  # queued again as 0008
    begin(study, plan, data)  # 0008, interrupted now
    study.enqueue_trial({"batch_size": 32})  # 0009
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> SearchFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "r", PLAN, digits)


@pytest.fixture
def lost(run: SearchFolder, tmp_path: Path) -> Callable[[bytes | None], SearchFolder]:
    """Copies the run, with another journal."""

    def copy(journal: bytes | None) -> SearchFolder:
        folder = SearchFolder(tmp_path / "copy")
        folder.claim("run", PLAN)
        for path in run.candidates.iterdir():
            (folder.candidates / path.name).write_bytes(path.read_bytes())
        if journal is not None:
            folder.journal.write_bytes(journal)
        return folder

    return copy


def files(folder: SearchFolder) -> dict[str, bytes]:
    """Returns the files of candidates, without those that stand for trials tried again."""
    found = {path.name: path.read_bytes() for path in sorted(folder.candidates.iterdir())}
    return {name: content for name, content in found.items() if b'"lost"' not in content}


def go_on(folder: SearchFolder, plan: SearchPlan, data: Dataset) -> optuna.Study:
    """What a run does before its first trial; then two trials, to their ends."""
    before = files(folder)
    missing = recover(folder, plan, data)
    study = studies.open_study(folder, plan)
    studies.close_orphans(study, folder, plan)
    studies.enqueue_first_trials(study, plan, data, missing)
    for _ in range(2):
        trial = begin(study, plan, data)
        assert folder.read_candidate(format_candidate_id(trial.number)) is None
        assert not folder.get_model_path(format_candidate_id(trial.number)).exists()
        item = end(trial, "complete", plan)
        studies.finish_trial(study, item, plan)
    assert files(folder) == before
    by_number = {trial.number: trial for trial in study.get_trials()}
    for item in folder.read_candidates():
        trial = by_number[int(item.id)]
        state, values = studies.to_outcome(item, plan)
        assert (trial.state, trial.values, trial.params) == (state, values, item.choices)
    return study


def described(study: optuna.Study) -> list[Any]:
    """Returns what samplers and rules read of the trials that have records."""
    return [
        (trial.state, trial.values, trial.params, trial.distributions, trial.constraints,
         {key: trial.user_attrs.get(key) for key in ("seed", "costs", "rung1", "rung2")})
        for trial in study.get_trials()[: len(STATES)]
    ]  # fmt: skip


def test_a_whole_journal_stays_as_it_is(run: SearchFolder, digits: Dataset) -> None:
    before = run.journal.read_bytes()
    assert not recover(run, PLAN, digits)
    assert run.journal.read_bytes() == before


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 999, b"no journal\n", b'{"op_code":'])
def test_a_lost_journal_is_made_of_the_records(
    content: bytes | None, run: SearchFolder, lost: Callable[[bytes | None], SearchFolder],
    digits: Dataset, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = lost(content)
    (folder.candidates / "0011.keras").write_bytes(b"killed before its record was written")
    with caplog.at_level(logging.INFO, LOG.name):
        study = go_on(folder, PLAN, digits)
    assert described(study) == described(studies.open_study(run, PLAN))
    rows = collect_rung_losses(study, 1, 1, excluded_number=-1)
    assert len(rows) == 4 + 2  # the trained ones of the records, and the two new ones
    # 0007 to 0011 are given out to nobody; what was to be tried first and has no trial comes next
    states = [trial.state for trial in study.trials]
    assert states[7:12] == [TrialState.FAIL] * 5
    assert [trial.number for trial in study.trials if trial.state == TrialState.COMPLETE][-2:] == [
        12, 13,
    ]  # fmt: skip
    assert "0000, 0001, 0002, 0003, 0004, 0005, 0006" in caplog.text
    assert ("missing or empty" if not content else "was corrupt") in caplog.text
    kept = folder.path / "study.journal.damaged"
    assert kept.read_bytes() == content if content else not kept.exists() or content == b""


def test_first_choices_that_were_lost_are_queued_again(
    lost: Callable[[bytes | None], SearchFolder], digits: Dataset
) -> None:
    folder = lost(None)
    for number in range(2, len(STATES) + 1):  # the last was tried again
        for path in folder.candidates.glob(f"{number:04d}.*"):
            path.unlink()
    recover(folder, PLAN, digits)
    study = studies.open_study(folder, PLAN)
    studies.enqueue_first_trials(study, PLAN, digits, has_lost_trials=True)
    waiting = [
        t.system_attrs[FIXED_PARAMS_ATTR] for t in study.trials if t.state == TrialState.WAITING
    ]
    # the baseline and the smallest have records
    assert waiting == studies.list_first_choices(PLAN, digits)[2:]
    assert [trial.number for trial in study.trials if trial.state == TrialState.WAITING] == [2, 3]


def test_what_the_journal_still_says_is_kept(
    run: SearchFolder, lost: Callable[[bytes | None], SearchFolder], digits: Dataset
) -> None:
    """A line that is garbage in the middle: interrupted and queued trials are not lost."""
    lines = run.journal.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    folder = lost(b"".join([*lines[:middle], b"#!? garbage\n", *lines[middle:]]))
    interrupted = studies.open_study(run, PLAN).trials[8]
    assert interrupted.state == TrialState.RUNNING
    assert recover(folder, PLAN, digits)
    study = studies.open_study(folder, PLAN)
    assert study.trials[8] == interrupted
    assert study.trials[9].state == TrialState.WAITING
    assert study.trials[7].state == TrialState.FAIL
    before = studies.open_study(run, PLAN)
    assert study.user_attrs == before.user_attrs
    assert study.user_attrs["of the user"] == 1
    # else a quasi-random sampler would begin its sequence again
    attrs = study._storage.get_study_system_attrs(study._study_id)
    assert attrs == before._storage.get_study_system_attrs(before._study_id)
    assert attrs["of a sampler"] == 3
    assert studies.close_orphans(study, folder, PLAN) == 1
    assert study.trials[10].system_attrs[FIXED_PARAMS_ATTR] == interrupted.params


def mutations(content: bytes, seed: int) -> bytes:
    """Returns a journal corrupt in one of many ways."""
    rng = random.Random(seed)
    lines = content.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    at = rng.randrange(len(content))
    log = json.loads(lines[place])
    key = rng.choice(sorted(log))
    log[key] = rng.choice([None, -1, 3, 10**30, 0.5, "x", [], {}, [1, "a"], {"a": []}, True])
    ways: list[Callable[[], bytes]] = [
        lambda: content[:at],
        lambda: content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :],
        lambda: b"".join(lines[:place] + lines[place + 1 :]),
        lambda: b"".join(lines[:place] + [lines[place]] * 2 + lines[place + 1 :]),
        lambda: b"".join([*lines[:place], b"garbage \xff\n", *lines[place:]]),
        lambda: content[:at] + b"\x00" * 40 + content[at + 40 :],
        lambda: content.replace(b"\n", b"\r\n"),
        lambda: b"".join([*lines[:place], json.dumps(log).encode() + b"\n", *lines[place + 1 :]]),
        lambda: content[:at] + content[at + rng.randrange(1, 400) :],
        lambda: b"".join(lines[:place] + lines[place + 4 :]),
        lambda: b"".join([*lines[:place], lines[place][: len(lines[place]) // 2], *lines[place:]]),
        lambda: b"".join(rng.sample(lines, len(lines))),
        lambda: b"".join(reversed(lines)),
        lambda: b"[" * 9999 + b"\n" + content,
    ]
    return ways[seed % len(ways)]()


@pytest.mark.parametrize("seed", range(28))  # each way twice
def test_mutated_journals(
    seed: int, run: SearchFolder, lost: Callable[[bytes | None], SearchFolder], digits: Dataset
) -> None:
    go_on(lost(mutations(run.journal.read_bytes(), seed)), PLAN, digits)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(28, 168), pytest.param((168, 1400), marks=pytest.mark.matrix)])
def test_many_mutated_journals(
    seeds: tuple[int, int], run: SearchFolder, tmp_path: Path, digits: Dataset
) -> None:
    content = run.journal.read_bytes()
    for seed in range(*seeds):
        folder = SearchFolder(tmp_path / str(seed))
        folder.claim("run", PLAN)
        for path in run.candidates.iterdir():
            (folder.candidates / path.name).write_bytes(path.read_bytes())
        folder.journal.write_bytes(mutations(content, seed))
        try:
            go_on(folder, PLAN, digits)
        except Exception as error:
            raise AssertionError(f"mutation {seed}") from error


def test_a_shared_storage_that_was_lost(tmp_path: Path, digits: Dataset) -> None:
    plan = plan_of(storage=f"sqlite:///{tmp_path}/s.db")
    folder = make_run(tmp_path / "r", plan, digits, STATES[:3])
    first = described(studies.open_study(folder, plan))
    assert not recover(folder, plan, digits)
    moved = plan_of(storage=f"sqlite:///{tmp_path}/another.db")
    study = go_on(folder, moved, digits)
    assert described(study)[:3] == first[:3]
    # a storage whose trials are others is not written to
    other = plan_of(storage=f"sqlite:///{tmp_path}/third.db")
    study = studies.open_study(folder, other)
    begin(study, plan_of(seed=5), digits)
    with pytest.raises(InputError, match="trial 0 with other choices than candidate 0000"):
        recover(folder, other, digits)
    assert len(study.trials) == 1


@pytest.mark.parametrize("name", ["best", "99999999999"])
def test_records_that_are_no_trials(
    name: str, lost: Callable[[bytes | None], SearchFolder], digits: Dataset
) -> None:
    folder = lost(None)
    (folder.candidates / f"{name}.keras").touch()  # a copy of somebody's: not looked at
    folder.write_candidate(replace(folder.read_candidates()[0], id=name))
    with pytest.raises(InputError, match=f"called by a trial's number. Received: '{name}'"):
        recover(folder, PLAN, digits)
    (folder.candidates / f"{name}.json").unlink()
    go_on(folder, PLAN, digits)


def test_a_worker_does_not_train_over_a_finished_candidate(
    lost: Callable[[bytes | None], SearchFolder],
) -> None:
    """The journal is removed while the run continues: nobody has made the study anew yet."""
    folder = lost(None)
    before = files(folder)
    worker: Any = SimpleNamespace(folder=folder, plan=PLAN, _study=None, data=None)
    with pytest.raises(RunFailed, match="The study has lost candidate 0000, which is finished"):
        SearchWorker._run_trial(worker, None, None)
    assert files(folder) == before


OWN = "tests.search.spaces.own:build"


def test_the_users_space_is_asked_again(tmp_path: Path, blobs: Dataset) -> None:
    plan = from_flat(SearchPlan, OPTIONS | {"space": OWN})
    folder = SearchFolder(tmp_path / "r")
    folder.claim("run", plan)
    study = studies.open_study(folder, plan)
    trial = ask_trial(study, plan)
    trial.set_user_attr("seed", 1)
    resolve_space(OWN).build(trial, blobs)
    optimizers.sample_settings(trial, plan, blobs)
    folder.write_candidate(end(trial, "complete", plan))
    expected = study.get_trials()[0].distributions
    folder.journal.unlink()
    assert recover(folder, plan, blobs)
    assert studies.open_study(folder, plan).get_trials()[0].distributions == expected
    # choices that it does not ask for any more
    folder.journal.unlink()
    item = folder.read_candidates()[0]
    (folder.candidates / f"{item.id}.json").unlink()
    folder.write_candidate(replace(item, choices={**item.choices, "gone": 3}))
    with pytest.raises(InputError, match="must offer what candidate 0000 chose"):
        recover(folder, plan, blobs)
    assert not folder.journal.exists()


def test_a_study_that_says_it_is_anothers(
    run: SearchFolder, lost: Callable[[bytes | None], SearchFolder], digits: Dataset
) -> None:
    """One bit of it: plan.json, which has been compared, says what it is of."""
    content = run.journal.read_bytes()
    folder = lost(content.replace(b'"space":"cnn"', b'"space":"cnm"'))
    assert recover(folder, PLAN, digits)
    assert described(go_on(folder, PLAN, digits)) == described(studies.open_study(run, PLAN))


def test_a_damaged_journal_of_another_run_is_one_line(run: SearchFolder, tmp_path: Path) -> None:
    bad = tmp_path / "study.journal"
    bad.write_bytes(b"garbage\n" + run.journal.read_bytes())
    with pytest.raises(InputError, match="warm_start must be a readable journal of Optuna's"):
        open_storage(bad, "warm_start")
