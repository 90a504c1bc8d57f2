"""The proxy in front of a database, and databases themselves: real ones, on this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from benchmarks.cluster_overhead import Server
from compress.core.errors import InputError, MissingDependency
from search.study.storage import HOST, Proxy, _add_driver, create_proxy, open_storage
from tests.patience import PATIENCE
from tests.search.test_run import environment


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    made = create_proxy(f"sqlite:///{tmp_path / 'study.db'}", 0)
    yield made
    made.close()


def some_trials(storage: Any, count: int) -> optuna.Study:
    study = optuna.create_study(
        storage=storage, study_name="s", directions=["maximize", "minimize"], load_if_exists=True
    )
    for _ in range(count):
        trial = study.ask()
        trial.set_user_attr("seed", trial.number)
        study.tell(trial, [trial.suggest_float("x", 0, 1), 1.0])
    return study


def test_a_study_through_the_proxy_is_the_databases(proxy: Proxy, tmp_path: Path) -> None:
    there = some_trials(open_storage(proxy.url, "storage", patience=60), 3)
    behind = optuna.load_study(
        study_name="s", storage=open_storage(f"sqlite:///{tmp_path / 'study.db'}", "storage")
    )
    assert [trial.params for trial in behind.trials] == [trial.params for trial in there.trials]
    assert [trial.user_attrs["seed"] for trial in behind.trials] == [0, 1, 2]


def test_what_changes_is_seen_by_who_has_read_it_before(proxy: Proxy) -> None:
    here = some_trials(open_storage(proxy.url, "storage", patience=60), 2)
    there = optuna.load_study(
        study_name="s", storage=open_storage(proxy.url, "storage", patience=60)
    )
    trial = here.ask()
    assert [item.state.name for item in there.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert not there.trials[2].user_attrs
    trial.set_user_attr("rung1", 0.5)
    drawn = trial.suggest_float("x", 0, 1)
    assert there.trials[2].user_attrs == {"rung1": 0.5}
    assert there.trials[2].params == {"x": drawn}
    here.tell(trial, [0.1, 2.0])
    assert there.trials[2].values == [0.1, 2.0]
    third = optuna.load_study(
        study_name="s", storage=open_storage(proxy.url, "storage", patience=60)
    )
    assert [item.params for item in third.trials] == [item.params for item in here.trials]
    with pytest.raises(KeyError):
        there._storage.get_all_trials(99)


def test_a_trial_is_written_once_for_all_that_ask(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.storages._grpc import servicer

    first = some_trials(open_storage(proxy.url, "storage", patience=60), 5)
    first.ask()
    assert len(first.trials) == 6
    written, made = [], servicer._to_proto_trial
    monkeypatch.setattr(
        servicer, "_to_proto_trial", lambda trial: written.append(trial.number) or made(trial)
    )
    for _ in range(3):
        there = optuna.load_study(
            study_name="s", storage=open_storage(proxy.url, "storage", patience=60)
        )
        assert [trial.params for trial in there.trials] == [trial.params for trial in first.trials]
    assert set(written) == {5}, "the one that runs alone may have changed"


def test_it_listens_to_this_machine_alone(proxy: Proxy) -> None:
    listening = [
        item.laddr
        for item in psutil.Process().net_connections("tcp")
        if item.status == psutil.CONN_LISTEN and item.laddr.port == proxy.port
    ]
    assert [place.ip.removeprefix("::ffff:") for place in listening] == [HOST]
    with pytest.raises(InputError, match=f"port must be free. Received: {proxy.port}"):
        create_proxy("sqlite://", proxy.port)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("grpc://127.0.0.1:1", "serves no journal, and no other proxy"),
        ("runs/x/study.journal", "must be the URL of a database"),
        ("postgresql://u:s3cret@127.0.0.1:9/x", "storage must be a URL that Optuna can open"),
    ],
)
def test_what_it_does_not_serve(url: str, said: str) -> None:
    if url.startswith("postgresql") and importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    with pytest.raises(InputError, match=said) as caught:
        create_proxy(url, 0)
    assert "s3cret" not in str(caught.value)


@pytest.mark.slow
def test_a_proxy_that_is_not_there() -> None:
    for url, said in (("grpc://127.0.0.1:9", "timeout"), ("grpc://127.0.0.1", "host:port")):
        with pytest.raises(InputError, match=rf"storage must be a URL .*{said}"):
            open_storage(url, "storage")


def test_the_command_serves_until_it_is_ended(tmp_path: Path) -> None:
    code = "from search.cli import main; main()"
    url = f"sqlite:///{tmp_path / 'study.db'}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "storage", "serve", "--storage", url, "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(),
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None
    line = next((line for line in process.stdout if "grpc://" in line), "")
    assert line, process.communicate()
    place = line.split()[1]
    assert place.startswith("grpc://127.0.0.1:")
    assert len(some_trials(open_storage(place, "storage"), 2).trials) == 2
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_drivers_that_are_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = set()

    def find(name: str) -> object:
        return name if name in there else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(MissingDependency, match=r"pip install 'paretune\[postgresql\]'"):
        _add_driver("postgresql://u@h/d")
    with pytest.raises(MissingDependency, match=r"pip install 'paretune\[mysql\]'"):
        _add_driver("mysql://u@h/d")
    there |= {"psycopg", "pymysql"}
    assert _add_driver("postgresql://u@h/d") == "postgresql+psycopg://u@h/d"
    assert _add_driver("postgres://u@h/d") == "postgresql+psycopg://u@h/d"
    assert _add_driver("mysql://u@h/d") == "mysql+pymysql://u@h/d"
    there |= {"psycopg2", "MySQLdb"}
    for url in ("postgresql://u@h/d", "mysql://u@h/d", "postgresql+asyncpg://u@h/d"):
        assert _add_driver(url) == url
    assert _add_driver("postgres://u@h/d") == "postgresql://u@h/d"  # SQLAlchemy's only name


def test_a_database_that_restarts_loses_nothing(database: Server) -> None:
    """Once between calls, and once while nobody answers for a while."""
    storage = open_storage(database.url, "storage", patience=60)
    some_trials(storage, 3)
    database.restart()
    some_trials(storage, 3)
    database.stop()
    waiting = threading.Thread(target=some_trials, args=(storage, 3))
    waiting.start()
    database.start()
    waiting.join(PATIENCE)
    study = optuna.load_study(study_name="s", storage=storage)
    assert sum(trial.state.name == "COMPLETE" for trial in study.trials) == 9
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))
