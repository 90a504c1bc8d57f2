"""The run's study in the browser: served, live, and never changed."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.core.errors import InputError, MissingDependency
from compress.plan import Plan
from compress.plan.fields import from_flat
from search.cli.dashboard import create_dashboard
from search.plan import SearchPlan
from search.study.directory import SearchFolder
from search.study.events import upload_artifacts
from search.study.study import open_study
from tests.patience import PATIENCE
from tests.search.test_run import paretune


def stand_in(storage: Any) -> Callable[..., list[bytes]]:
    """Answers with the number of trials, as the real one would among much else."""

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        start("200 OK", [("Content-Type", "application/json")])
        number = int(environ["PATH_INFO"].rpartition("/")[2])
        return [json.dumps({"trials": [None] * storage.get_n_trials(number)}).encode()]

    return application


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(wsgi=stand_in, __spec__=ModuleSpec("optuna_dashboard", None))
    monkeypatch.setitem(sys.modules, "optuna_dashboard", fake)  # type: ignore[arg-type]


def made_run(path: Path, **plan: Any) -> tuple[SearchFolder, Any]:
    folder = SearchFolder(path)
    chosen = from_flat(SearchPlan, {"sampler": "random", **plan})
    folder.claim("search", chosen)
    return folder, open_study(folder, chosen)


@contextmanager
def serving(folder: SearchFolder) -> Iterator[str]:
    with create_dashboard(folder.path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def fetch(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        content: bytes = answer.read()
        return content


def status_of(url: str, method: str, body: bytes | None = None) -> int:
    try:
        fetch(url, method, body)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return 200


def check(folder: SearchFolder, study: Any) -> None:
    study.ask()
    with serving(folder) as url:
        api = f"{url}/api/studies/0"
        assert len(json.loads(fetch(api))["trials"]) == 1
        before = folder.journal.read_bytes()
        assert status_of(api, "DELETE") == 405
        body = b'{"study_name": "x", "directions": ["minimize"]}'
        assert status_of(f"{url}/api/studies", "POST", body) == 405
        assert status_of(f"{api}/note", "PUT", b'{"body": "x", "version": 1}') == 405
        assert folder.journal.read_bytes() == before


def test_read_only_with_a_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch)
    folder, study = made_run(tmp_path / "run")
    check(folder, study)
    with serving(folder) as url:
        # the run continues meanwhile
        study.ask()
        assert len(json.loads(fetch(f"{url}/api/studies/0"))["trials"]) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_one(tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    folder, study = made_run(tmp_path / "run")
    check(folder, study)
    (folder.path / "report.html").write_text("<p>the report")
    upload_artifacts(study, folder)
    with serving(folder) as url:
        assert b"<title>Optuna Dashboard</title>" in fetch(f"{url}/dashboard/studies/0")
        (kept,) = json.loads(fetch(f"{url}/api/studies/0"))["artifacts"]
        assert kept["filename"] == "report.html"
        assert fetch(f"{url}/artifacts/0/{kept['artifact_id']}") == b"<p>the report"


def test_a_study_in_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch)
    storage = f"sqlite:///{tmp_path}/studies.db"
    made_run(tmp_path / "other", storage=storage)
    folder, _ = made_run(tmp_path / "run", storage=storage)
    with create_dashboard(folder.path, 0) as server:
        assert server.start == "/dashboard/studies/2"


def test_what_cannot_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_package(monkeypatch)
    with pytest.raises(InputError, match="must be the folder of a run"):
        create_dashboard(tmp_path, 0)
    bare = SearchFolder(tmp_path / "compress")
    bare.claim("compress", Plan())
    with pytest.raises(InputError, match="must be the folder of a search"):
        create_dashboard(bare.path, 0)
    early = SearchFolder(tmp_path / "early")
    early.claim("search", SearchPlan())
    with pytest.raises(InputError, match="must have a study"):
        create_dashboard(early.path, 0)
    assert not early.journal.exists()
    with pytest.raises(InputError, match=r"port must be in \[0, 65535\]. Received: 70000"):
        create_dashboard(early.path, 70_000)
    folder, _ = made_run(tmp_path / "run")
    with create_dashboard(folder.path, 0) as server:
        taken = server.server_port
        with pytest.raises(InputError, match=f"port must be free. Received: {taken}"):
            create_dashboard(folder.path, taken)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)  # type: ignore[arg-type]
    folder, _ = made_run(tmp_path / "run")
    with pytest.raises(MissingDependency, match=r"pip install 'paretune\[dashboard\]'"):
        create_dashboard(folder.path, 0)


def test_one_line_on_the_command_line(tmp_path: Path) -> None:
    done = paretune("dashboard", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("paretune: error: 'nowhere' must be the folder of a run")
    assert done.stderr.count("\n") == 1


def raw_status(port: int, *lines: str) -> int:
    """Send a request as it is written; return the status of the answer."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as wire:
        wire.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(wire.recv(1000).split()[1])


def test_other_hosts_and_bad_lengths_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_package(monkeypatch)
    folder, _ = made_run(tmp_path / "run")
    with serving(folder) as url:
        port = int(url.rpartition(":")[2])
        for host, status in (
            (f"127.0.0.1:{port}", 200), (f"localhost:{port}", 200), ("evil.example", 403),
            (f"evil.example:{port}", 403), ("", 403), ("127.0.0.1:x", 403),
        ):  # fmt: skip
            assert raw_status(port, "GET /api/studies/0 HTTP/1.0", f"Host: {host}") == status
        assert raw_status(port, "GET /api/studies/0 HTTP/1.0") == 403
        for length in ("x", "-1", "1e3"):
            own = (f"Host: localhost:{port}", f"Content-Length: {length}")
            assert raw_status(port, "DELETE /api/studies/0 HTTP/1.0", *own) == 400
