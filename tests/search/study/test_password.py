"""The password of `--storage` and of warm starts: used, and nowhere to be read afterwards."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

from compress.core import credentials
from compress.core.errors import InputError, RunFailed
from compress.plan.nesting import build_command_words, from_flat
from search.cli import app
from search.engines.local import LocalPool
from search.pipeline import _format_commands
from search.plan import SearchPlan
from search.report import render
from search.study.directory import Candidate, SearchFolder
from search.study.storage import _add_driver, open_storage
from search.study.warm_start import find_sources
from tests.search.engines.orders import order

URL = "postgresql://u:s3cret@127.0.0.1:1/x"
SHORT = "postgresql://u@127.0.0.1:1/x"
OTHER = "mysql+pymysql://v:s3cret@127.0.0.1:1/y?password=s3cret"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_full_urls", {})
    for name in (
        credentials.URL_VARIABLE,
        credentials.PASSWORD_VARIABLE,
        credentials.PASSWORD_FILE_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)


def plan_with(url: str = URL) -> SearchPlan:
    return from_flat(SearchPlan, {"storage": url, "warm_start": f"runs/a,{OTHER}"})


def everything_in(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_plan_has_none() -> None:
    plan = plan_with()
    assert plan.search.storage == SHORT
    assert plan.search.warm_start == ("runs/a", "mysql+pymysql://v@127.0.0.1:1/y")
    assert "s3cret" not in repr(plan) + " ".join(build_command_words(plan))
    assert plan == plan_with(SHORT) == plan_with("postgresql://u:another@127.0.0.1:1/x")


def test_a_run_and_its_report_have_none(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", plan_with(), {}, _format_commands(plan_with(), "search", folder, 1))
    for number in range(2):
        folder.write_candidate(Candidate(f"{number:04d}", "complete", {"x": number}, 1, macs=9,
                                         params=1, val={"accuracy": 0.5}))  # fmt: skip
    render(folder.path)
    written = everything_in(folder.path)
    assert b"s3cret" not in written
    assert SHORT.encode() in written
    # it continues with the password, without it and with a new one
    for url in (URL, SHORT, "postgresql://u:new@127.0.0.1:1/x"):
        folder.claim("search", plan_with(url))
    with pytest.raises(InputError, match="belongs to another run") as caught:
        folder.claim("search", plan_with("postgresql://u:s3cret@elsewhere/x"))
    assert "s3cret" not in str(caught.value)


def test_a_folder_of_an_older_version_loses_it(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "run")
    folder.claim("search", plan_with(), {}, {"command": "paretune"})
    record = json.loads(folder.plan_path.read_text())
    record["plan"]["search"] |= {"storage": URL, "warm_start": ["runs/a", OTHER]}
    record["shown"] = {"command": f"paretune search --storage {URL}", "replay": "paretune"}
    folder.plan_path.write_text(json.dumps(record))
    folder.write_candidate(Candidate("0000", "complete", {"x": 1}, 1, macs=9, params=1,
                                     val={"accuracy": 0.5}))  # fmt: skip
    render(folder.path)
    assert b"s3cret" not in (folder.path / "report.html").read_bytes()
    assert b"s3cret" not in (folder.path / "report.json").read_bytes()
    folder.claim("search", plan_with())
    assert b"s3cret" not in everything_in(folder.path)


def test_storages_are_opened_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def fail(url: str, **_: object) -> None:
        opened.append(url)
        raise RuntimeError(f"cannot connect to {url} (password 's3cret')\nmore of it")

    monkeypatch.setattr(optuna.storages, "RDBStorage", fail)
    plan = plan_with()
    for url, option in (
        (plan.search.storage, "storage"),
        (plan.search.warm_start[1], "warm_start"),
    ):
        with pytest.raises(InputError, match=f"{option} must be a URL that Optuna can") as caught:
            open_storage(url, option)
        assert "s3cret" not in str(caught.value)
    assert opened == [_add_driver(URL), OTHER]
    with pytest.raises(InputError) as caught:
        find_sources(plan.search.warm_start[1:], "cnn", ("accuracy", "macs"), None)  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)


def test_no_url_at_all() -> None:
    with pytest.raises(InputError, match=r"storage must be a URL .* Received: '\.\.\.@h/db'"):
        plan_with("postgres//u:s3cret@h/db")
    with pytest.raises(InputError, match="Received: 'nonsense'"):
        plan_with("nonsense")


def test_workers_are_told_in_their_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process whose first import writes down how it was started."""
    (tmp_path / "numpy.py").write_text(
        "import json, os, pathlib\n"
        f"pathlib.Path({str(tmp_path / 'seen.json')!r}).write_text(json.dumps(\n"
        "    [pathlib.Path('/proc/self/cmdline').read_text(),\n"
        "     os.environ.get('PARETUNE_STORAGE')]))\n"
        "os._exit(3)\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    class Jobs:
        def take_job(self) -> dict[str, str]:
            return {"kind": "trial"}

    private = credentials.build_environment(plan_with().search.storage)
    with (
        LocalPool(order(tmp_path, environment=private)) as pool,
        pytest.raises(RunFailed, match="could not start"),
    ):
        pool.run(Jobs())  # type: ignore[arg-type]
    command, url = json.loads((tmp_path / "seen.json").read_text())
    assert "search.engines.worker" in command
    assert "s3cret" not in command
    assert url == URL


@pytest.mark.parametrize("command", ["search", "run"])
def test_the_command_line_does_not_say_it(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No driver here, or nobody who listens: one line either way."""
    monkeypatch.chdir(tmp_path)
    words = [command, "--data", "digits", "--storage", URL, "--trials", "1", "--out", "r"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.output
    assert SHORT in done.stderr
    assert "s3cret" not in done.output + done.stderr
    assert b"s3cret" not in everything_in(tmp_path)
