"""Storage, resume and the first trials."""

from __future__ import annotations

import fcntl
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from compress.core.errors import InputError
from compress.data import Dataset
from compress.plan.nesting import from_flat
from search.plan import SearchPlan
from search.spaces import SPACES, resolve_space
from search.study import optimizers
from search.study import study as studies
from search.study.directory import Candidate, SearchFolder
from search.study.objective import find_same_choices, format_candidate_id, get_trial_seed
from search.study.recovery import recover
from search.study.storage import JournalLock
from search.study.study import ask_trial
from search.study.warm_start import read_replayed

PLAN = from_flat(SearchPlan, {"sampler": "random"})


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    made.claim("run", PLAN)
    return made


def start(study: optuna.Study) -> optuna.Trial:
    trial = ask_trial(study, PLAN)
    trial.suggest_float("x", 0.0, 1.0)
    return trial


def finished(number: int, state: str = "complete") -> Candidate:
    return Candidate(format_candidate_id(number), state, {"x": 0.5}, 1, macs=7, params=2,
                     val={"accuracy": 0.5})  # fmt: skip


def test_a_journal_is_read_by_optuna_alone(folder: SearchFolder) -> None:
    start(studies.open_study(folder, PLAN))
    storage = JournalStorage(JournalFileBackend(str(folder.journal)))
    study = optuna.load_study(study_name="paretune", storage=storage)
    assert study.metric_names == list(PLAN.search.resolved_objectives)
    assert len(study.trials) == 1


def test_orphans_are_closed_and_queued_again(folder: SearchFolder) -> None:
    study = studies.open_study(folder, PLAN)
    _, lost, written = start(study), start(study), start(study)
    lost.set_user_attr("seed", 123)
    studies.finish_trial(study, finished(0), PLAN)
    folder.write_candidate(finished(0))
    folder.write_candidate(finished(2))  # on disk, but the kill came before it was told

    again = studies.open_study(folder, PLAN)
    assert studies.close_orphans(again, folder, PLAN) == 1
    states = [trial.state for trial in again.trials]
    assert states == [
        TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING,
    ]  # fmt: skip
    assert again.trials[2].values == [0.5, 7.0]
    retried = start(again)
    assert retried.params == lost.params
    assert get_trial_seed(PLAN, retried) == 123
    assert retried.user_attrs["retry_of"] == 1
    assert written.number == 2


def test_trials_are_read_once_an_ask(folder: SearchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    study = studies.open_study(folder, PLAN)
    start(study)
    studies.finish_trial(study, finished(0), PLAN)
    study.enqueue_trial({"x": study.trials[0].params["x"]})
    read = []
    storage = type(study._storage)
    whole = storage.get_all_trials
    monkeypatch.setattr(
        storage, "get_all_trials", lambda *args, **kwargs: read.append(1) or whole(*args, **kwargs)
    )
    first, second = start(study), start(study)
    assert [trial.number for trial in (first, second)] == [1, 2], "the queue comes first"
    assert len(read) == 2
    assert (find_same_choices(first), find_same_choices(second)) == (0, None)
    assert len(read) == 2


def test_a_trial_is_read_once_and_told_unread(
    folder: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a trial takes a database several queries."""
    study = studies.open_study(folder, PLAN)
    read, known = [], type(study._storage).get_trial
    monkeypatch.setattr(
        type(study._storage), "get_trial", lambda self, id: read.append(id) or known(self, id)
    )
    for number in range(2):
        trial = ask_trial(study, PLAN)
        assert trial.number == number
        trial.suggest_float("x", 0.0, 1.0)
        studies.finish_trial(study, finished(number), PLAN)
        assert len(read) == number + 1
    assert [trial.values for trial in study.trials] == [[0.5, 7.0]] * 2
    studies.finish_trial(study, replace(finished(0), macs=9), PLAN)
    assert study.trials[0].values == [0.5, 7.0], "one that has ended stays as it is"


def test_a_quality_that_is_no_number_is_not_told(folder: SearchFolder) -> None:
    study = studies.open_study(folder, PLAN)
    start(study)
    studies.finish_trial(study, replace(finished(0), val={"accuracy": math.nan}), PLAN)
    assert [(trial.state, trial.values) for trial in study.trials] == [(TrialState.FAIL, None)]


def test_workers_that_ask_at_once_draw_their_own_choices(folder: SearchFolder) -> None:
    """All of them see the same trials; what they draw follows from their own number."""
    studies.open_study(folder, PLAN)
    workers = [studies.open_study(folder, PLAN) for _ in range(4)]
    for study in workers:
        seen = study.get_trials(deepcopy=False)
        study.get_trials = lambda deepcopy=False, seen=seen: list(seen)  # type: ignore[method-assign]
    drawn = [start(study).params["x"] for study in workers]
    assert len(set(drawn)) == 4


def test_queued_trials_do_not_share_draws_with_the_next(folder: SearchFolder) -> None:
    """Two interrupted trials without choices, then a new one: three different draws."""
    study = studies.open_study(folder, PLAN)
    study.enqueue_trial({})
    study.enqueue_trial({})
    drawn = [start(study).params["x"] for _ in range(3)]
    assert len(set(drawn)) == 3


def test_a_torn_journal_is_repaired(folder: SearchFolder, digits: Dataset) -> None:
    study = studies.open_study(folder, PLAN)
    start(study)
    studies.finish_trial(study, finished(0), PLAN)
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole + b'{"op_code":4,"worker_i')
    assert not recover(folder, PLAN, digits)
    assert folder.journal.read_bytes() == whole
    again = studies.open_study(folder, PLAN)
    assert [trial.state for trial in again.trials] == [TrialState.COMPLETE]
    start(again)
    assert len(studies.open_study(folder, PLAN).trials) == 2


def test_a_killed_holder_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "j.lock"
    script = (
        "import sys, time; from pathlib import Path; from search.study.storage import JournalLock\n"
        "lock = JournalLock(Path(sys.argv[1])); lock.acquire(); "
        "print('held', flush=True); time.sleep(3600)"
    )
    lock = JournalLock(path)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with open(path) as handle, pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
        holder.wait()
    # free at once: nothing has to expire first
    with open(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert lock.acquire()
    lock.release()


def test_the_baseline_is_tried_first(folder: SearchFolder, digits: Dataset) -> None:
    study = studies.open_study(folder, PLAN)
    studies.enqueue_first_trials(study, PLAN, digits)
    studies.enqueue_first_trials(study, PLAN, digits)  # a second start adds nothing
    assert len(study.trials) == 1 + studies.MAX_LADDER_STEPS
    trial = ask_trial(study, PLAN)
    SPACES["cnn"].build(trial, digits)
    settings = optimizers.sample_settings(trial, PLAN, digits)
    assert trial.params == {
        **SPACES["cnn"].baseline(digits),
        **optimizers.build_baseline(PLAN, digits),
    }
    assert (settings.optimizer, settings.epochs) == ("adam", PLAN.search.epochs)
    # then the smallest, with the same settings
    trial = ask_trial(study, PLAN)
    SPACES["cnn"].build(trial, digits)
    assert trial.params == SPACES["cnn"].smallest(digits)
    assert optimizers.sample_settings(trial, PLAN, digits) == settings


@pytest.mark.parametrize(("trials", "steps"), [(1, 0), (3, 0), (4, 1), (11, 2), (12, 3), (500, 3)])
def test_short_searches_spend_at_most_a_quarter_on_small_models(
    trials: int, steps: int, digits: Dataset
) -> None:
    plan = from_flat(SearchPlan, {"trials": trials})
    assert len(studies.list_first_choices(plan, digits)) == 1 + steps


def test_spaces_of_unknown_sizes_begin_with_their_baseline(blobs: Dataset) -> None:
    plan = from_flat(SearchPlan, {"space": "tests.search.spaces.own:build"})
    (first,) = studies.list_first_choices(plan, blobs)
    assert first == {
        **resolve_space(plan.search.space).baseline(blobs),
        **optimizers.build_baseline(plan, blobs),
    }


def test_a_replay_keeps_choices_and_seed(folder: SearchFolder, digits: Dataset) -> None:
    folder.write_candidate(finished(5))
    plan = from_flat(SearchPlan, {"warm_start": str(folder.candidates / "0005.json")})
    study = studies.open_study(folder, plan)
    studies.enqueue_first_trials(study, plan, digits)
    trial = start(study)
    assert trial.params == {"x": 0.5}
    assert get_trial_seed(plan, trial) == 1
    with pytest.raises(InputError, match="Cannot read"):
        read_replayed((str(folder.path / "no.json"),))


def test_seeds_differ_by_trial_and_plan(folder: SearchFolder) -> None:
    study = studies.open_study(folder, PLAN)
    first, second = start(study), start(study)
    other = from_flat(SearchPlan, {"seed": 1})
    seeds = {
        get_trial_seed(PLAN, first),
        get_trial_seed(PLAN, second),
        get_trial_seed(other, first),
    }
    assert len(seeds) == 3
    assert get_trial_seed(PLAN, first) == get_trial_seed(PLAN, first)
    assert first.params != second.params


def test_other_storages(folder: SearchFolder, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    plan = from_flat(SearchPlan, {"storage": url})
    study = studies.open_study(folder, plan)
    start(study)
    assert study.study_name.startswith("paretune-run-")
    assert len(studies.open_study(folder, plan).trials) == 1
    bad = from_flat(SearchPlan, {"storage": "nonsense://x"})
    with pytest.raises(InputError, match="storage must be a URL that Optuna can open"):
        studies.open_study(folder, bad)


@pytest.mark.parametrize(
    ("examples", "epoch", "expected"),
    [
        (1221, None, (32, 64, 128)),
        (51_000, None, (64, 128, 256)),
        (51_000, 2_560, (32, 64, 128, 256)),
    ],
)
def test_batch_sizes_follow_the_examples_of_an_epoch(
    examples: int, epoch: int | None, expected: tuple[int, ...]
) -> None:
    class Sized:
        train = range(examples)

    plan = from_flat(SearchPlan, {} if epoch is None else {"epoch_examples": epoch})
    assert optimizers.list_batch_sizes(plan, Sized()) == expected  # type: ignore[arg-type]
