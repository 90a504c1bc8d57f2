"""Storages that do not answer for a while, and those that never will."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import grpc
import optuna
import pytest
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError

from compress.core import faults
from compress.core.errors import InputError, RunFailed
from compress.core.faults import ServiceTimeout, retry_call
from search.study.storage import add_retries, is_transient, open_storage


def operational(text: str) -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception(text))


class Answer(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


Answer.__module__ = "grpc._channel"


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (operational("server closed the connection unexpectedly"), True),
        (operational("the database system is starting up"), True),
        (operational("could not serialize access due to concurrent update"), True),
        (operational("database is locked"), True),
        (InterfaceError("SELECT 1", {}, Exception("connection already closed")), True),
        (Answer(grpc.StatusCode.UNAVAILABLE), True),
        (Answer(grpc.StatusCode.DEADLINE_EXCEEDED), True),
        (Answer(grpc.StatusCode.UNAUTHENTICATED), False),
        (operational('password authentication failed for user "u"'), False),
        (operational("database or disk is full"), False),
        (operational('relation "studies" does not exist'), False),
        (IntegrityError("INSERT", {}, Exception("duplicate key")), False),
        (optuna.exceptions.DuplicatedStudyError("there is one"), False),
        (KeyError("no such trial"), False),
    ],
)
def test_what_may_pass(error: Exception, passing: bool) -> None:
    assert is_transient(error) == passing
    wrapped = optuna.exceptions.StorageInternalError("An exception is raised during the commit.")
    wrapped.__cause__ = error
    if not passing and isinstance(error, OperationalError):
        assert not is_transient(wrapped)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(faults, "_LONGEST_WAIT", 0.002)


@pytest.mark.usefixtures("quick")
def test_it_is_tried_again_until_it_works() -> None:
    calls = []

    def call() -> int:
        calls.append(1)
        if len(calls) < 4:
            raise operational("connection refused")
        return 7

    assert retry_call(call, "the storage", is_transient) == 7
    assert len(calls) == 4


@pytest.mark.usefixtures("quick")
def test_what_lasts_is_raised_at_once() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise operational("password authentication failed")

    with pytest.raises(OperationalError):
        retry_call(call, "the storage", is_transient)
    assert len(calls) == 1


@pytest.mark.usefixtures("quick")
def test_it_ends_in_time_and_says_how_to_go_on() -> None:
    def call() -> None:
        raise operational("connection to postgresql://u:s3cret@h/x refused")

    with pytest.raises(ServiceTimeout, match=r"must answer.*0\.05 s.*the run continues") as caught:
        retry_call(call, "the storage", is_transient, 0.05)
    assert isinstance(caught.value, RunFailed)
    assert "s3cret" not in str(caught.value)


def test_every_call_of_a_storage_is_repeated() -> None:
    """Each method of Optuna's interface fails once and works then."""

    class Fragile:
        def __init__(self) -> None:
            self.inner, self.failed = optuna.storages.InMemoryStorage(), set[str]()

        def __getattr__(self, name: str) -> Any:
            method = getattr(self.inner, name)

            def called(*args: Any, **kwargs: Any) -> Any:
                if name not in self.failed:
                    self.failed.add(name)
                    raise operational("server closed the connection unexpectedly")
                return method(*args, **kwargs)

            return called

    fragile: Any = Fragile()
    study = optuna.create_study(storage=add_retries(fragile), directions=["maximize", "minimize"])
    study.set_user_attr("about", 1)
    study.enqueue_trial({"x": 0.5})
    for _ in range(2):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("seed", 3)
        study.tell(trial, [1.0, 2.0])
    assert [item.values for item in study.trials] == [[1.0, 2.0]] * 2
    assert study.trials[0].params == {"x": 0.5}
    assert {"create_new_study", "create_new_trial", "set_trial_param", "set_trial_user_attr",
            "set_trial_state_values", "get_all_trials"} <= fragile.failed  # fmt: skip


def test_a_database_that_another_process_holds(tmp_path: Path) -> None:
    """A real one: SQLite, locked for longer than its driver waits."""
    file = tmp_path / "study.db"
    url = f"sqlite:///{file}?timeout=0.05"
    study = optuna.create_study(storage=open_storage(url, "storage", patience=60))
    held = sqlite3.connect(file, check_same_thread=False)
    held.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match="database is locked"):
        open_storage(url, "storage")
    release = threading.Timer(0.5, held.close)
    release.start()
    study.set_user_attr("about", 1)
    release.join()
    assert study.user_attrs["about"] == 1
