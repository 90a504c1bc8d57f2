"""The run's end of the Ray engine, with actors that are played: what arrives, in which order."""

from __future__ import annotations

import errno
import queue
import re
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.core.errors import InputError
from search.engines import KILLED, NODE_LOST, messages
from search.engines.pool import Link, OnMessage
from search.engines.ray.engine import RayPool
from search.engines.ray.host import ENDED, REFUSED
from search.engines.ray.link import RayLink
from tests.patience import PATIENCE, wait_for
from tests.search.engines.orders import order
from tests.search.engines.test_pool import READY, Jobs, Worker

DONE = {"kind": messages.DONE, "memory": 1, "renewed": False}
OK = {"node": "n1", "problem": ""}


class Actor:
    """An actor whose calls are remembered; each `remote` returns the method's name."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []
        self.killed = False
        self.answers: dict[str, queue.Queue[Any]] = defaultdict(queue.Queue)

    def __getattr__(self, name: str) -> Any:
        def remote(*words: Any) -> str:
            self.made.append((name, words))
            return name

        return SimpleNamespace(remote=remote)

    def names(self) -> list[str]:
        return [name for name, _ in self.made]

    def get(self, reference: str, timeout: float = PATIENCE) -> Any:
        """In place of `ray.get`: waits until the test gives an answer."""
        answer = self.answers[reference].get(timeout=timeout)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor: Actor) -> None:
        """In place of `ray.kill`: who waits hears that it is gone."""
        assert actor is self
        self.killed = True
        for name in ("begin", "poll"):
            self.answers[name].put(died("killed"))


def died(text: str) -> Exception:
    return type("ActorDiedError", (Exception,), {})(text)


class Scene:
    """A link, its actor, and what the pool hears."""

    def __init__(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actor = Actor()
        ray = SimpleNamespace(get=self.actor.get, kill=self.actor.kill)
        monkeypatch.setitem(sys.modules, "ray", ray)
        self.heard: list[Any] = []
        self.received: list[list[str]] = []
        self.broken: Exception | None = None
        self.link = RayLink(self.actor, self.heard.append, {"SECRET": "x"}, self._fetch_files, log)

    def _fetch_files(self, names: list[str]) -> None:
        # what the pool has heard before: files come first
        self.received.append([*names, str(len(self.heard))])
        if self.broken is not None:
            raise self.broken

    def answer(self, reference: str, answer: Any) -> None:
        self.actor.answers[reference].put(answer)

    def wait(self) -> None:
        """Waits for the end of the thread that listens; the actor is gone then."""
        self.answer("end", None)
        self.link.join(PATIENCE)
        assert self.actor.killed


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path / "workers-0.log", monkeypatch)


def test_messages_arrive_in_order_and_files_before_theirs(scene: Scene) -> None:
    scene.answer("begin", OK)
    scene.answer("poll", [READY])
    files = ["candidates/0000.json"]
    scene.answer("poll", [{**DONE, "files": files}, READY])
    scene.answer("poll", died("its node has died"))
    scene.wait()
    assert scene.actor.made[0] == ("begin", ({"SECRET": "x"},))
    assert scene.heard == [READY, {**DONE, "files": files}, READY, None]
    assert scene.received == [[*files, "1"]]


def test_the_end_of_a_worker(scene: Scene, tmp_path: Path) -> None:
    scene.answer("begin", OK)
    scene.answer("poll", [{"kind": ENDED, "how": "exit code 3", "printed": "Traceback"}])
    scene.wait()
    assert scene.heard == [None]
    assert scene.link.describe_exit() == "exit code 3"
    assert (tmp_path / "workers-0.log").read_text() == "Traceback"
    assert scene.actor.names() == ["begin", "poll", "end"]


def test_nothing_of_a_worker_that_was_ended_arrives(scene: Scene, tmp_path: Path) -> None:
    scene.answer("begin", OK)
    wait_for(lambda: "poll" in scene.actor.names())
    scene.link.end()
    scene.answer("poll", [{**DONE, "files": ["candidates/0000.json"]}])
    scene.answer("poll", [{"kind": ENDED, "how": "exit code 0", "printed": "words"}])
    scene.wait()
    assert scene.heard == scene.received == []
    assert not (tmp_path / "workers-0.log").exists()
    assert "end" in scene.actor.names()


def test_one_that_waits_for_room_is_not_asked_to_end(scene: Scene) -> None:
    scene.link.end()
    scene.wait()
    assert "end" not in scene.actor.names()
    assert scene.heard == []


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("The actor died: its node has died", NODE_LOST),
        ("Task was killed due to the node running low on memory", KILLED),
    ],
)
def test_how_actors_die(text: str, how: str, scene: Scene) -> None:
    """One that could not be reached for a moment may still be there, and hold its place."""
    scene.answer("begin", OK)
    scene.answer("poll", died(text))
    scene.wait()
    assert scene.heard == [None]
    assert scene.link.describe_exit() == how


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The machine failed"),
        (ValueError("broken"), r"could not be fetched \(ValueError: broken\)"),
    ],
)
def test_files_that_cannot_be_fetched_end_the_run(
    error: Exception, said: str, scene: Scene
) -> None:
    scene.broken = error
    scene.answer("begin", OK)
    scene.answer("poll", [{**DONE, "files": ["candidates/0000.json"]}])
    scene.wait()
    (message,) = scene.heard
    assert message["kind"] == messages.FATAL
    assert re.search(said, message["reason"])


def test_a_log_that_cannot_be_written_ends_the_run(scene: Scene, tmp_path: Path) -> None:
    """The job did not end with a lost node: on another it would fail as well."""
    (tmp_path / "workers-0.log").mkdir()
    scene.answer("begin", OK)
    scene.answer("poll", [{"kind": ENDED, "how": "exit code 3", "printed": "Traceback"}])
    scene.wait()
    (message,) = scene.heard
    assert message["kind"] == messages.FATAL
    assert "IsADirectoryError" in message["reason"]


def test_a_node_without_paretune(scene: Scene) -> None:
    text = "raised in its creation task: ModuleNotFoundError: No module named 'search.engines'"
    scene.answer("begin", died(text))
    scene.wait()
    (message,) = scene.heard
    assert message["kind"] == REFUSED
    assert "paretune is not installed there" in message["reason"]


def test_a_node_that_cannot_work(scene: Scene) -> None:
    scene.answer("begin", {"node": "n1", "problem": "it has keras 3.0.0"})
    scene.wait()
    assert scene.heard == [{"kind": REFUSED, "node": "n1", "reason": "it has keras 3.0.0"}]


class Nodes(RayPool):
    """A pool whose nodes answer at once; `problems` says what is wrong with each, in turn."""

    def __init__(self, folder: Path, count: int, problems: list[str]) -> None:
        super().__init__(order(folder, count), lambda: None)
        self.problems = problems
        self.made = 0

    def _open(self, index: int, on_message: OnMessage) -> Link:
        problem = self.problems.pop(0) if self.problems else ""
        self.made += 1
        if problem:
            on_message({"kind": REFUSED, "node": "n2", "reason": problem})
        return Worker(on_message, mortal=False, ready=not problem)


def test_a_bad_node_ends_the_run_before_anything_has_worked(tmp_path: Path) -> None:
    pool, jobs = Nodes(tmp_path, 1, ["it has keras 3.0.0 in place of 3.15.1"]), Jobs(1)
    with pytest.raises(InputError, match=r"Node 'n2' cannot work .*: it has keras 3\.0\.0"):
        pool.run(jobs)
    assert jobs.done == []


def test_a_bad_node_that_joins_later_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool, jobs = Nodes(tmp_path, 2, ["", "no such folder"]), Jobs(6)
    pool.run(jobs)
    assert sorted(jobs.done) == list(range(6))
    assert caplog.text.count("Node 'n2' cannot work for this run: no such folder") == 1
    assert pool.made == 2, "its slot waits before it asks again"
